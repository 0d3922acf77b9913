"""Check, before the first epoch, that callbacks and schedules watch values that training logs."""

import re
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.measurement.watchers import PREFIXES, measured_keys
from nc_lightning.callbacks.sources import callbacks_of, is_named
from nc_lightning.did_you_mean import nearest

_LOGGED = (
    *("loss/train", "loss/bound", "loss/optimality_gap", "loss/collapsed", "loss/neural_collapse"),
    *("loss/skipped_steps", "negatives/hardness", "negatives/effective", "negatives/fraction"),
    *("negatives/false_share", "probe/train_accuracy", "probe/train_loss"),
)
_LOGGED_BY_VALIDATION = ("loss/val", "probe/val_accuracy")
_COUNTS = ("epoch", "step")
"""Values that ModelCheckpoint adds itself."""


def check_monitors(trainer: Trainer, module: LightningModule) -> None:
    """Refuse an EarlyStopping, ModelCheckpoint or ReduceLROnPlateau that watches a key which is not logged.

    Lightning would find out after an epoch. Nothing is refused if a module or callback of others, which may log any
    key, takes part. Keys of a measurement are left to the `GeometryMonitor`.

    Raises:
        ValueError: If a key is not logged; the message has the nearest ones.
    """
    monitor = next((each for each in callbacks_of(trainer) if isinstance(each, GeometryMonitor)), None)
    validation = _LOGGED_BY_VALIDATION if trainer.enable_validation else ()
    known = [*_LOGGED, *validation, *(measured_keys(trainer, monitor.layers) if monitor is not None else ())]
    if not all(map(_logs_nothing_else, (module, *callbacks_of(trainer)))):
        return
    for name, key in _watched(trainer):
        left_to_monitor = monitor is not None and key.startswith(PREFIXES)
        if not left_to_monitor and re.sub(r"/val_[1-9]\d*", "/val", key) not in (*known, *_COUNTS):
            raise ValueError(f"{name}: got monitor {key!r}, expected a logged key such as {_such_as(key, known)}")


def _watched(trainer: Trainer) -> list[tuple[str, str]]:
    named = [each for each in callbacks_of(trainer) if is_named(each, "EarlyStopping", "ModelCheckpoint")]
    plateaus = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    return [
        (type(getattr(watcher, "scheduler", watcher)).__name__, str(watcher.monitor))
        for watcher in (*named, *plateaus)
        if watcher.monitor is not None
    ]


def _logs_nothing_else(part: Any) -> bool:
    known = type(part).__module__.startswith(("nc_lightning.", "lightning.pytorch."))
    return known and not is_named(part, "LambdaCallback")


def _such_as(key: str, known: list[str]) -> str:
    """Return the keys that were probably meant: of the same words, with the same ending, or the most similar ones.

    Example:
        >>> keys = ["loss/train", "loss/val", "geometry/train/nc1", "geometry/val/nc1"]
        >>> _such_as("val_loss", keys), _such_as("nc1", keys), _such_as("los/val", keys)
        ('loss/val', 'geometry/train/nc1, geometry/val/nc1', 'loss/val')
    """
    words = set(re.split("[/_]", key.lower()))
    same = [each for each in known if set(re.split("[/_]", each)) == words]
    ending = [each for each in known if each.endswith(f"/{key}")]
    return ", ".join(same or ending or nearest(key, known, count=3, cutoff=0.6) or ["loss/val", "geometry/val/nc1"])
