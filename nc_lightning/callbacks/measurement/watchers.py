"""Callbacks and schedules of Lightning that watch a geometry key, restricted to epochs that measured it."""

import functools
import re
import warnings
from typing import Any

from lightning.pytorch import Trainer

from nc_lightning.callbacks.lent import Lent
from nc_lightning.callbacks.sources import callbacks_of, is_named
from nc_lightning.geometry.measures import MEASURES
from nc_lightning.private_apis.lightning import SAVE_AT_EPOCH_END, SAVE_BEST, STOP_AT_EPOCH_END, saves_by_epochs

PREFIX = "geometry/"


def wait_for_measurements(trainer: Trainer, lent: Lent) -> list[str]:
    """Make callbacks and schedules that watch ``geometry/...`` wait for measurements; return the keys they watch.

    Lightning keeps a logged value for all later epochs, and EarlyStopping and ModelCheckpoint refuse a key that is not
    there yet. During a fit, the keys of a measurement are removed when the next epoch starts. A watcher checks its key
    at the end of an epoch and skips epochs without it, so that its patience counts measurements.

    Raises:
        ValueError: If a key is not measured, or is watched by steps.
    """
    watchers = _watchers(trainer)
    for watcher in watchers:
        _check(watcher, trainer)
    for watcher in watchers:
        if is_named(watcher, "ModelCheckpoint"):
            lent.lend(watcher, SAVE_AT_EPOCH_END, True)
            save = functools.partial(_save_if_measured, getattr(watcher, SAVE_BEST), watcher.monitor)
            lent.lend(watcher, SAVE_BEST, save)
            continue
        lent.lend(watcher, "strict", False)
        if is_named(watcher, "EarlyStopping"):
            lent.lend(watcher, STOP_AT_EPOCH_END, True)
        else:  # Lightning would warn about each skipped epoch.
            warnings.filterwarnings("ignore", message=f"ReduceLROnPlateau conditioned on metric {PREFIX}")
    return [str(watcher.monitor) for watcher in watchers]


def _watchers(trainer: Trainer) -> list[Any]:
    """Return the callbacks, and the configs of schedules, that watch a geometry key."""
    named = [c for c in callbacks_of(trainer) if is_named(c, "EarlyStopping", "ModelCheckpoint")]
    plateaus = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    return [watcher for watcher in (*named, *plateaus) if str(watcher.monitor).startswith(PREFIX)]


def _check(watcher: Any, trainer: Trainer) -> None:
    key, name = watcher.monitor, type(getattr(watcher, "scheduler", watcher)).__name__
    sets = "train|val(_[1-9][0-9]*)?" if trainer.enable_validation else "train"
    probe = any(is_named(callback, "OnlineLinearProbe") for callback in callbacks_of(trainer))
    keys = [key for key, m in MEASURES.items() if m.of in ("statistics", "centers") or (probe and m.of == "classifier")]
    if not re.fullmatch(f"{PREFIX}({sets})/({'|'.join(keys)})", key):
        sets_there = "geometry/train/ or geometry/val/" if trainer.enable_validation else "geometry/train/"
        raise ValueError(f"{name}: got monitor {key!r}, expected {sets_there} and one of {', '.join(keys)}")
    if is_named(watcher, "ModelCheckpoint") and not saves_by_epochs(watcher):
        raise ValueError(
            f"ModelCheckpoint: got monitor {key!r}, measured at the end of epochs, and a period in steps or in time; "
            "expected every_n_epochs"
        )
    if getattr(watcher, "reduce_on_plateau", False) and watcher.interval != "epoch":
        raise ValueError(
            f"ReduceLROnPlateau: got monitor {key!r}, measured at the end of epochs, and interval "
            f"{watcher.interval!r}; expected interval 'epoch'"
        )


def _save_if_measured(save: Any, key: str, trainer: Trainer, monitor_candidates: dict[str, Any]) -> None:
    if key in monitor_candidates:
        save(trainer, monitor_candidates)
