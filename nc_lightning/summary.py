"""The table at the end: each measure beside its ideal, and where the run lies."""

import math
import os
import shlex
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table

from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.geometry import ideal

_LOSS_KEYS = (
    "loss/train",
    "loss/val",
    "loss/test",
    "loss/bound",
    "loss/optimality_gap",
    "loss/neural_collapse",
    "loss/collapsed",
)


def format_value(value: float) -> str:
    """Return a number in at most nine characters.

    Example:
        >>> [format_value(v) for v in (0.0, 8.99951, 3.2e-7, float("nan"))]
        ['0', '8.9995', '3.2e-07', '-']
    """
    if math.isnan(value):
        return "-"
    if value == 0 or math.isinf(value):
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.5g}"


def geometry_table(results: dict[str, dict[str, float]], num_classes: int, feature_dim: int) -> Table:
    """Lay out measures of one or several sets beside the ideal, and whether the first set meets it.

    Args:
        results: Measures by set and key, as `GeometryMonitor.results`.
        num_classes: C.
        feature_dim: d.

    Returns:
        A table for `rich.print`.
    """
    sets = list(results)
    table = Table(title=f"Geometry of {num_classes} classes in {feature_dim} dimensions")
    table.add_column("measure")
    for name in sets:
        table.add_column(name, justify="right")
    table.add_column("ideal", justify="right")
    table.add_column(f"met ({sets[0]})" if sets else "met")
    for key in results[sets[0]] if sets else ():
        goal = ideal(key, num_classes, feature_dim)
        met = "" if goal is None else "[green]yes[/]" if goal.met(results[sets[0]][key]) else "[yellow]no[/]"
        values = [format_value(results[name][key]) for name in sets]
        table.add_row(key, *values, "" if goal is None else goal.text, met)
    return table


def print_summary(trainer: Trainer, module: LightningModule) -> None:
    """Print the table of the trainer's `GeometryMonitor`, the losses beside their bound, and where a fit has left all.

    Args:
        trainer: After ``fit``, ``validate`` or ``test``; nothing is printed on other ranks than the first.
        module: The module that was trained.
    """
    # Lightning tells all processes of the folder: each has to ask.
    folder = trainer.log_dir if trainer.logger is not None else None
    if not trainer.is_global_zero:
        return
    console = _console()
    table = _measured(trainer, module)
    if table is not None:
        console.print(table)
    if trainer.state.fn != TrainerFn.FITTING:
        return
    checkpoint = getattr(trainer.checkpoint_callback, "last_model_path", "")
    if checkpoint:
        console.print(f"checkpoint: {_short(checkpoint)}")
    if folder is not None:
        console.print(f"logs: {_short(folder)}")
        console.print(f"see them: tensorboard --logdir {shlex.quote(_short(folder))}")


def _measured(trainer: Trainer, module: LightningModule) -> Table | None:
    monitors = [c for c in trainer.callbacks if isinstance(c, GeometryMonitor)]  # type: ignore[attr-defined]
    if not monitors or not monitors[0].results:
        return None
    num_classes = monitors[0].num_classes
    assert num_classes is not None
    table = geometry_table(monitors[0].results, num_classes, getattr(module, "feature_dim", num_classes - 1))
    losses = {key: float(v) for key in _LOSS_KEYS if (v := trainer.callback_metrics.get(key)) is not None}
    if losses:
        table.add_section()
    blanks = [""] * (len(monitors[0].results) - 1)
    for key, value in losses.items():
        table.add_row(key, format_value(value), *blanks, "0" if key == "loss/optimality_gap" else "", "")
    return table


def _console() -> Console:
    # Paths must stay whole to be typed again: never wrap them, even where the output is no terminal.
    return Console(soft_wrap=True)


def _short(path: str | Path) -> str:
    """The path from here if it lies below the working folder, else as it is."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
