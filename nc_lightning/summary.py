"""The table at the end: each measure beside its ideal, and where the run lies."""

import shlex

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table

from nc_lightning.callbacks import GeometryMonitor, TensorBoardDashboard
from nc_lightning.files import short_path
from nc_lightning.tables import format_value, geometry_table


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
        console.print(f"checkpoint: {short_path(checkpoint)}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, TensorBoardDashboard) and callback.report is not None:
            console.print(f"report: {short_path(callback.report)}")
    if folder is not None:
        console.print(f"logs: {short_path(folder)}")
        console.print(f"see them: tensorboard --logdir {shlex.quote(short_path(folder))}")


def _measured(trainer: Trainer, module: LightningModule) -> Table | None:
    monitors = [c for c in trainer.callbacks if isinstance(c, GeometryMonitor)]  # type: ignore[attr-defined]
    if not monitors or not monitors[0].results:
        return None
    num_classes = monitors[0].num_classes
    assert num_classes is not None
    table = geometry_table(monitors[0].results, num_classes, getattr(module, "feature_dim", num_classes - 1))
    losses = monitors[0].losses(trainer)
    if losses:
        table.add_section()
    blanks = [""] * (len(monitors[0].results) - 1)
    for key, value in losses.items():
        table.add_row(key, format_value(value), *blanks, "0" if key == "loss/optimality_gap" else "", "")
    return table


def _console() -> Console:
    # Paths must stay whole to be typed again: never wrap them, even where the output is no terminal.
    return Console(soft_wrap=True)
