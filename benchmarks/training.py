"""Seconds of a training step and of an epoch, with our loss and with the paper's loop over anchors instead.

    python -m benchmarks.training [--steps 20] [--rounds 3] --config hscl.yaml --config paper/short.yaml
    python -m benchmarks.training --config hscl.yaml --config paper/official.yaml --config paper/fast_gpu.yaml

All other arguments, such as `--trainer.accelerator gpu` and `--trainer.precision bf16-mixed`, are passed to
`nc-train fit`; everything except the loss is the same. Both are trained in alternation. A step lasts from the end of
one batch to the end of the next on the device, including data and callbacks; the first five of each training are not
counted. The results are the medians over rounds of the median step of each, and the ratio within a round.
"""

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks import device as of_device
from benchmarks import results
from benchmarks.loss import paper_loop
from nc_lightning.cli import train as cli
from nc_lightning.losses import ContrastiveLoss, LossResult

WARM_UP = 5


class Steps(Callback):
    """Records when each batch has ended, also on the device."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.per_epoch = 0
        self.device = torch.device("cpu")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Wait for the device, and record the time."""
        of_device.synchronize(pl_module.device)
        self.device = pl_module.device
        self.ends.append(time.perf_counter())
        self.per_epoch = int(trainer.num_training_batches)

    def seconds(self) -> float:
        """Median of the steps after the warm-up."""
        return statistics.median(b - a for a, b in zip(self.ends[WARM_UP:], self.ends[WARM_UP + 1 :], strict=False))


def by_the_paper(loss: ContrastiveLoss) -> None:
    """Replace the computation of a loss with the loop over anchors."""

    def compute(z: Tensor, labels: Tensor, instances: Tensor | None = None) -> LossResult:
        with torch.autocast(z.device.type, enabled=False):
            return LossResult(paper_loop(z, labels, loss.beta, loss.tau), len(z), len(z))

    loss.compute = compute  # type: ignore[method-assign, assignment]


def train(arguments: list[str], steps: int, loop: bool) -> Steps:
    """Run `nc-train fit` for some steps."""
    timing = Steps()

    class Timed(cli.ContrastiveCLI):
        def before_fit(self) -> None:
            self.trainer.callbacks.append(timing)  # type: ignore[attr-defined]
            if loop:
                by_the_paper(self.model.loss)

    shipped, cli.ContrastiveCLI = cli.ContrastiveCLI, Timed  # type: ignore[misc]
    try:
        with tempfile.TemporaryDirectory() as folder:
            only = [f"--trainer.max_steps={WARM_UP + 1 + steps}", "--trainer.limit_val_batches=0"]
            quiet = ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}"]
            cli.main(["fit", *arguments, *only, *quiet])
    finally:
        cli.ContrastiveCLI = shipped  # type: ignore[misc]
    return timing


def main() -> None:
    """Print a row for each loss, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    results.add_argument(parser)
    options, arguments = parser.parse_known_args()
    rounds = []
    for _ in range(options.rounds):
        timings = {name: train(arguments, options.steps, name == "paper") for name in ("ours", "paper")}
        rounds.append({name: timing.seconds() for name, timing in timings.items()})
        per_epoch, device = timings["ours"].per_epoch, timings["ours"].device
    print(f"nc-train fit {' '.join(arguments)}, {of_device.name_of(device)}, {per_epoch} steps an epoch")
    for name in ("ours", "paper"):
        step = statistics.median(r[name] for r in rounds)
        print(f"{name:>5}: {step:.4f} s a step, {step * per_epoch:.2f} s an epoch")
    ratio = results.spread([r["paper"] / r["ours"] for r in rounds], digits=1)
    print(f"paper / ours: {ratio}")
    steps = {
        f"{name}: seconds a step": results.spread([r[name] for r in rounds], digits=4) for name in ("ours", "paper")
    }
    results.write(options.json, of_device.name_of(device), [steps | {"paper / ours": ratio}])


if __name__ == "__main__":
    main()
