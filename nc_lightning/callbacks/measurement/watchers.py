"""Callbacks and schedules of Lightning that watch a geometry key, restricted to epochs that measured it."""

import functools
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from lightning.pytorch import Trainer

from nc_lightning.callbacks.lent import Lent
from nc_lightning.callbacks.measurement.layers import OUTPUT
from nc_lightning.callbacks.measurement.readers import layers_to_read
from nc_lightning.callbacks.sources import callbacks_of, is_named
from nc_lightning.did_you_mean import nearest
from nc_lightning.geometry.measures import MEASURES
from nc_lightning.private_apis.lightning import SAVE_AT_EPOCH_END, SAVE_BEST, STOP_AT_EPOCH_END, saves_by_epochs

PREFIXES = ("geometry/", "knn/")
"""Beginnings of the keys that a measurement logs."""


def wait_for_measurements(trainer: Trainer, lent: Lent, layers: Sequence[str] = ()) -> list[str]:
    """Make callbacks and schedules that watch ``geometry/...`` wait for measurements; return the keys they watch.

    ``layers`` are the layers that the monitor measures next to the module's own features.

    Lightning keeps a logged value for all later epochs, and EarlyStopping and ModelCheckpoint refuse a key that is not
    there yet. During a fit, the keys of a measurement are removed when the next epoch starts. A watcher checks its key
    at the end of an epoch and skips epochs without it, so that its patience counts measurements.

    Raises:
        ValueError: If a key is not measured, or is watched by steps.
    """
    watchers = _watchers(trainer)
    for watcher in watchers:
        _check(watcher, trainer, layers)
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
            warnings.filterwarnings("ignore", message=f"ReduceLROnPlateau conditioned on metric ({'|'.join(PREFIXES)})")
    return [str(watcher.monitor) for watcher in watchers]


def nearest_keys(key: str, known: Iterable[str]) -> str:
    """Return the known keys that are most similar to a key, at most four, the nearest first.

    Example:
        >>> nearest_keys("geometry/val/nc11", ["geometry/train/nc1", "geometry/val/nc1"])
        'geometry/val/nc1, geometry/train/nc1'
    """
    return ", ".join(nearest(key, known, count=4, cutoff=0.0))


def _watchers(trainer: Trainer) -> list[Any]:
    """Return the callbacks, and the configs of schedules, that watch a geometry key."""
    named = [c for c in callbacks_of(trainer) if is_named(c, "EarlyStopping", "ModelCheckpoint")]
    plateaus = [config for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    return [watcher for watcher in (*named, *plateaus) if str(watcher.monitor).startswith(PREFIXES)]


def _check(watcher: Any, trainer: Trainer, layers: Sequence[str]) -> None:
    key, name = watcher.monitor, type(getattr(watcher, "scheduler", watcher)).__name__
    if key.startswith("knn/"):
        known = ["knn/val" if layer == OUTPUT else f"knn/{layer}/val" for layer in layers_to_read(trainer)]
        if re.sub("_[1-9][0-9]*$", "", key) not in known or not trainer.enable_validation:
            shown = " or ".join(known) if trainer.enable_validation else "a validation set"
            raise ValueError(f"{name}: got monitor {key!r}, expected {shown or 'an OnlineKNN'}")
    elif re.sub("/val_[1-9][0-9]*/([^/]*)$", r"/val/\1", key) not in (known := measured_keys(trainer, layers)):
        raise ValueError(f"{name}: got monitor {key!r}, expected a measured key such as {nearest_keys(key, known)}")
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


def measured_keys(trainer: Trainer, layers: Sequence[str]) -> list[str]:
    """Return the keys that a measurement logs, for the first validation set."""
    of_layers = [key for key, measure in MEASURES.items() if measure.of in ("statistics", "centers")]
    measures = {"": _measures(trainer)} | {f"{layer}/": of_layers for layer in layers}
    sets = ("train", "val") if trainer.enable_validation else ("train",)
    return [f"geometry/{layer}{name}/{key}" for layer, keys in measures.items() for name in sets for key in keys]


def _measures(trainer: Trainer) -> list[str]:
    """Return the keys of the measures of the module's own features."""
    probe = any(is_named(callback, "OnlineLinearProbe") for callback in callbacks_of(trainer))
    # Whether there is an optimum can be unknown before training; a key that is then not measured is refused.
    sources = ("statistics", "centers", "optimum", *(["classifier"] if probe else []))
    return [key for key, measure in MEASURES.items() if measure.of in sources]


def _save_if_measured(save: Any, key: str, trainer: Trainer, monitor_candidates: dict[str, Any]) -> None:
    if key in monitor_candidates:
        save(trainer, monitor_candidates)
