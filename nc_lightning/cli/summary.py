"""The table at the end of a command: each measure next to its ideal, and the files of the run."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.table import Table

from nc_lightning.callbacks import GeometryMonitor, RunCheckpoint, TensorBoardDashboard
from nc_lightning.geometry import MEASURES
from nc_lightning.io.atomic import short_path
from nc_lightning.private_apis.lightning import latest_checkpoint
from nc_lightning.reports.layers import OUTPUT, by_layer, layers_table
from nc_lightning.reports.tables import format_value, geometry_table, goal_texts, print_table, set_of


def print_summary(trainer: Trainer, module: LightningModule) -> None:
    """Print the tables of the trainer's `GeometryMonitor`, the losses next to their bound, and what was written where.

    Only rank 0 prints.
    """
    if not trainer.is_global_zero:
        return
    for table in _measured(trainer, module):
        print_table(table)
    # Paths stay whole to copy: on one line, and with brackets, which are markup to rich.
    console = Console(soft_wrap=True, markup=False)
    for line in [*(_saved(trainer) if trainer.state.fn == TrainerFn.FITTING else ()), *_logs(trainer)]:
        console.print(line)


def model_line(module: LightningModule) -> str:
    """Return a one-line summary of a module: its parts and their numbers of parameters.

    Example:
        >>> from nc_lightning import HSCL
        >>> from nc_lightning.encoders import MLP
        >>> model_line(HSCL(encoder=MLP((1, 8, 8)), num_classes=10))
        'HSCL: encoder MLP with 296,960, projector Linear with 4,617 parameters'
    """
    parts = {name: part for name, part in module.named_children() if any(True for _ in part.parameters())}
    counts = [
        f"{name} {type(part).__name__} with {sum(p.numel() for p in part.parameters()):,}"
        for name, part in parts.items()
    ]
    return f"{type(module).__name__}: {', '.join(counts)} parameters"


def _saved(trainer: Trainer) -> Iterator[str]:
    """Yield a line for each checkpoint and report that a fit has written and that exists."""
    folder: Path | None = getattr(trainer, "run_folder", None)
    saving = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    saving.sort(key=lambda c: not isinstance(c, RunCheckpoint))  # last.ckpt of any other may be an earlier state
    # Spawned processes return no paths: there, last.ckpt and the report are found by their names.
    lasts = [Path(c.last_model_path) for c in saving] + ([folder / "checkpoints" / "last.ckpt"] if folder else [])
    last = next((path for path in lasts if path.is_file()), None)
    if last is not None:
        yield f"checkpoint: {short_path(last)}"
    elif saving:
        path, step = latest_checkpoint(saving[0])
        if Path(path).is_file():
            yield f"checkpoint of step {step}: {short_path(path)}"
    for callback in saving:
        best = Path(callback.best_model_path)
        if callback.monitor is not None and best.is_file() and not (last and best.samefile(last)):
            score = callback.best_model_score
            value = "" if score is None else f" = {format_value(float(score))}"
            yield f"best {callback.monitor}{value}: {short_path(best)}"
    reports = [c.report for c in trainer.callbacks if isinstance(c, TensorBoardDashboard)]  # type: ignore[attr-defined]
    report = next((path for path in reports if path), folder / "report.html" if folder and reports else None)
    if report is not None and report.is_file():
        yield f"report: {short_path(report)}"


def _logs(trainer: Trainer) -> Iterator[str]:
    """Yield a line for the folder of the run, if it exists, and one for the TensorBoard of all runs next to it."""
    folder: Path | None = getattr(trainer, "run_folder", None)
    if folder is not None and folder.is_dir():
        yield f"logs: {short_path(folder)}"
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and any(Path(logger.log_dir).glob("events.out.tfevents.*")):
            yield f"see them: tensorboard --logdir {shlex.quote(short_path(Path(logger.root_dir)))}"


def _measured(trainer: Trainer, module: LightningModule) -> list[Table]:
    """Return the table of measures, and that of the layers if there are several."""
    monitors = [c for c in trainer.callbacks if isinstance(c, GeometryMonitor)]  # type: ignore[attr-defined]
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    # A monitor that ran in other processes leaves what it logged.
    results = (monitors[0].by_layer or by_layer(values)) if monitors else {}
    num_classes = monitors[0].num_classes or getattr(module, "num_classes", None) if monitors else None
    if OUTPUT not in results or num_classes is None:
        return []
    headline, feature_dim = monitors[0].measures == "headline", getattr(module, "feature_dim", num_classes - 1)
    own = monitors[0].own_ideals(module)
    table = geometry_table(results[OUTPUT], num_classes, feature_dim, headline, own)
    losses = monitors[0].losses(trainer)
    if losses:
        table.add_section()
    sets = list(results[OUTPUT])
    for key, value in losses.items():
        column = set_of(key) if set_of(key) in sets else sets[0]
        goals = goal_texts(key, num_classes, feature_dim, own)
        words = MEASURES[key].headline if key in MEASURES else ""
        cells = [format_value(value) if name == column else "" for name in sets]
        table.add_row(key, *cells, *goals, "", words)
    layers = [layers_table(results, num_classes, monitors[0].feature_dims)] if len(results) > 1 else []
    return [*layers, table]
