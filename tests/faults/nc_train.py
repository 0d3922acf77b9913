"""nc-train as a script that Lightning restarts for each further process; it saves its final state."""

import sys

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from nc_lightning.cli import main
from nc_lightning.cli.command_error import exit_on_error


def run():
    with exit_on_error():
        cli = main(sys.argv[1:])
    trainer = cli.trainer
    if trainer.state.fn == "fit":
        end = {"metrics": dict(trainer.callback_metrics), "step": trainer.global_step, "epoch": trainer.current_epoch}
        end |= {"weights": cli.model.state_dict(), "optimizers": [o.state_dict() for o in trainer.optimizers]}
        end["schedules"] = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
        states = {c.state_key: c.state_dict() for c in trainer.callbacks if not isinstance(c, ModelCheckpoint)}
        end["callbacks"] = {key: state for key, state in states.items() if state}
        torch.save(end, f"end-{trainer.global_rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run()
