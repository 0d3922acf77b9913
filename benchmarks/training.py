"""Seconds of a training step and of an epoch, with our loss and with the paper's loop over anchors instead.

    python -m benchmarks.training [--steps 20] [--rounds 3] --config hscl.yaml --config paper/short.yaml
    python -m benchmarks.training --config hscl.yaml --config paper/official.yaml --config paper/fast_gpu.yaml
    python -m benchmarks.training --parts --steps 120 --config hscl.yaml --config paper/short.yaml

All other arguments, such as `--trainer.accelerator gpu` and `--trainer.precision bf16-mixed`, are passed to
`nc-train fit`; everything except the loss is the same. Both are trained in alternation. A step lasts from the end of
one batch to the end of the next on the device, including data and callbacks; the first five of each training are not
counted. The results are the medians over rounds of the median step of each, and the ratio within a round.

`--parts` shows where the time of a step goes, in CPU milliseconds of one thread: the mean over the steps after the
first five, with what happens between epochs, but without validation. A part does not include those that it calls.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks import device as of_device
from benchmarks import results
from benchmarks.loss import paper_loop
from benchmarks.parts import SMALL, WATCHING, Parts
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


def train(arguments: list[str], steps: int, before_fit: Callable[[Trainer, Any], Callback]) -> None:
    """Run `nc-train fit` for some steps, with one more callback."""

    class Timed(cli.ContrastiveCLI):
        def before_fit(self) -> None:
            self.trainer.callbacks.append(before_fit(self.trainer, self.model))  # type: ignore[attr-defined]

    shipped, cli.ContrastiveCLI = cli.ContrastiveCLI, Timed  # type: ignore[misc]
    try:
        with tempfile.TemporaryDirectory() as folder:
            only = [f"--trainer.max_steps={WARM_UP + 1 + steps}", "--trainer.limit_val_batches=0"]
            quiet = ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}"]
            cli.main(["fit", *arguments, *only, *quiet])
    finally:
        cli.ContrastiveCLI = shipped  # type: ignore[misc]


def train_timed(arguments: list[str], steps: int, loop: bool) -> Steps:
    """Run `nc-train fit` for some steps, and return when they ended."""
    timing = Steps()

    def before_fit(trainer: Trainer, model: Any) -> Steps:
        if loop:
            by_the_paper(model.loss)
        return timing

    train(arguments, steps, before_fit)
    return timing


def train_in_parts(arguments: list[str], steps: int) -> dict[str, float]:
    """Run `nc-train fit` for some steps, and return the CPU milliseconds of each part of a step."""
    made: list[Parts] = []

    def before_fit(trainer: Trainer, model: Any) -> Parts:
        made.append(Parts(trainer, model, WARM_UP))
        return made[-1]

    train(arguments, steps, before_fit)
    return made[0].milliseconds


def show_parts(options: argparse.Namespace, arguments: list[str]) -> None:
    """Print a row for each part of a step, the largest first; small ones in one row."""
    torch.set_num_threads(1)
    rounds = [train_in_parts(arguments, options.steps) for _ in range(options.rounds)]

    def of(parts: Iterable[str]) -> list[float]:
        return [sum(each.get(part, 0.0) for part in parts) for each in rounds]

    names = sorted(set().union(*rounds), key=lambda part: -statistics.median(of([part])))
    whole = of(names)
    small = [part for part in names if statistics.median(of([part])) < SMALL * statistics.median(whole)]
    rows = {part: of([part]) for part in names if part not in small}
    rows |= {"other callbacks": of(small), "whole step": whole, f"of it {', '.join(WATCHING)}": of(WATCHING)}
    print(f"nc-train fit {' '.join(arguments)}, CPU milliseconds a step, one thread")
    table: list[dict[str, float | str | None]] = []
    for part, values in rows.items():
        share = results.spread([100 * ms / step for ms, step in zip(values, whole, strict=True)], digits=1)
        table.append({"part": part, "CPU ms": results.spread(values), "% of the step": share})
        print(f"{part:60} {table[-1]['CPU ms']:>24} ms {share:>24} %")
    results.write(options.json, "1 CPU thread", table)


def main() -> None:
    """Print a row for each loss, and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", action="store_true", help="show where the CPU time of a step goes")
    results.add_argument(parser)
    options, arguments = parser.parse_known_args()
    if options.parts:
        show_parts(options, arguments)
        return
    rounds = []
    for _ in range(options.rounds):
        timings = {name: train_timed(arguments, options.steps, name == "paper") for name in ("ours", "paper")}
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
