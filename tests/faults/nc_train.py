"""nc-train as a script, which Lightning starts again for each further process; it leaves what it has ended with."""

import sys

import torch

from nc_lightning.cli import main


def run():
    cli = main(sys.argv[1:])
    trainer = cli.trainer
    if trainer.is_global_zero and trainer.state.fn == "fit":
        end = {"metrics": dict(trainer.callback_metrics), "step": trainer.global_step, "epoch": trainer.current_epoch}
        end |= {"weights": cli.model.state_dict(), "optimizers": [o.state_dict() for o in trainer.optimizers]}
        torch.save(end, "end.pt")


if __name__ == "__main__":
    run()
