"""Progress of training: a bar in a terminal or notebook, plain lines in a pipe or file."""

import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from rich.console import Console

from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.reports.tables import format_value

SECONDS = 30.0
"""Shortest time between two lines."""


def progress_callbacks(callbacks: Sequence[Callback], console: Console | None = None) -> list[Callback]:
    """Return the callback that shows progress where stdout goes, or none if the callbacks have a progress bar.

    Example:
        >>> import io
        >>> [type(callback).__name__ for callback in progress_callbacks([], Console(file=io.StringIO()))]
        ['EpochLines']
    """
    if any(isinstance(callback, ProgressBar) for callback in callbacks):
        return []
    console = Console() if console is None else console
    if console.is_jupyter:  # in a notebook, rich draws its bar in a widget
        return [Bar()] if find_spec("ipywidgets") else [EpochLines()]
    return [Bar()] if console.is_interactive else [EpochLines()]


class Bar(RichProgressBar):
    """Lightning's progress bar, without the version of the logger."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> Any:
        """Return what stands next to the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


class EpochLines(Callback):
    """Print a line when training starts, after epochs at most every 30 seconds, and after the last epoch.

    A line has the values that were computed in any case; only rank 0 prints.

    Args:
        seconds: Shortest time between two lines; the line of the last epoch does not wait.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Announce the length of training."""
        self._start = self._printed = time.monotonic()
        self._done = trainer.current_epoch, trainer.global_step
        if trainer.is_global_zero:
            epochs, batches = trainer.max_epochs or -1, trainer.num_training_batches
            steps = "" if trainer.max_steps < 0 else f", at most {trainer.max_steps:,} steps"
            last = f" to {epochs}" if epochs > 0 else ""
            _say(f"training: epochs {trainer.current_epoch + 1}{last}, {batches:,} batches each{steps}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before, whose means and measurements are complete only now."""
        if trainer.current_epoch > self._done[0] and time.monotonic() - self._printed >= self.seconds:
            self._print(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the last epoch."""
        if trainer.global_step > self._done[1]:
            self._print(trainer)

    def _print(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            self._printed = time.monotonic()
            _say(epoch_line(trainer, self._left(trainer)))

    def _left(self, trainer: Trainer) -> float | None:
        """Return the seconds that training will take at its mean pace; None if its end is unknown."""
        lengths = ((trainer.current_epoch, trainer.max_epochs), (trainer.global_step, trainer.max_steps))
        shares = [
            (now - before) / (end - before)
            for (now, end), before in zip(lengths, self._done, strict=True)
            if end is not None and end > before
        ]
        return (time.monotonic() - self._start) * (1 / max(shares) - 1) if shares and max(shares) > 0 else None


def epoch_line(trainer: Trainer, left: float | None) -> str:
    """Return the line of the last complete epoch: loss over its bound, NC1, effective rank, and the time left."""
    epoch, metrics = trainer.current_epoch, trainer.callback_metrics
    of = f"/{trainer.max_epochs}" if trainer.max_epochs and trainer.max_epochs > 0 else ""
    loss = {"loss over bound": "loss/optimality_gap", "loss": "loss/train"}
    found = [f"{name} {format_value(float(metrics[key]))}" for name, key in loss.items() if key in metrics][:1]
    monitors = [c for c in trainer.callbacks if isinstance(c, GeometryMonitor)]  # type: ignore[attr-defined]
    for monitor in monitors[:1]:
        values = monitor.results.get("train", {})
        names = {"NC1": "nc1", "effective rank": "effective_rank"}
        measured = ", ".join(f"{name} {format_value(values[key])}" for name, key in names.items() if key in values)
        at = "" if monitor.epoch == epoch else f" (epoch {monitor.epoch})"
        found += [f"{measured}{at}"] if measured else []
    found += [] if not left else [f"{timedelta(seconds=round(left))} left"]
    return f"epoch {epoch}{of}: {', '.join(found)}" if found else f"epoch {epoch}{of}"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
