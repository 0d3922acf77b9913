"""Lightning's callbacks and schedules that watch a geometry key: they act in epochs in which it was measured."""

import functools
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from lightning.pytorch import Trainer

from nc_lightning.callbacks.sources import is_named
from nc_lightning.geometry.measures import MEASURES
from nc_lightning.private_apis.lightning import SAVE_AT_EPOCH_END, SAVE_BEST, STOP_AT_EPOCH_END, saves_by_epochs

PREFIX = "geometry/"
_NOTHING = object()


class GeometryWatchers:
    """EarlyStopping, ModelCheckpoint and ReduceLROnPlateau on ``geometry/...``, whatever the period of the monitor.

    Lightning keeps a logged value for all later epochs, and EarlyStopping and ModelCheckpoint refuse a key that is not
    there yet. During a fit the keys of a measurement are removed when the next epoch starts, and whoever watches one
    skips epochs without it, checks it at the end of an epoch, and so counts measurements.

    Args:
        trainer: Trainer of the fit that starts; `give_back` restores its callbacks.

    Raises:
        ValueError: If a key is none of a measurement, or is watched by steps.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._lent: list[tuple[Any, str, Any]] = []
        self.keys = [key for _, key in _watchers(trainer)]
        for name, key in _watchers(trainer):
            _check_key(name, key, trainer)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if not _is_geometry(getattr(callback, "monitor", None)):
                continue
            if is_named(callback, "EarlyStopping"):
                self._lend(callback, "strict", False)
                self._lend(callback, STOP_AT_EPOCH_END, True)
            elif is_named(callback, "ModelCheckpoint"):
                if not saves_by_epochs(callback):
                    raise ValueError(
                        f"ModelCheckpoint: got monitor {callback.monitor!r}, measured at the end of epochs, and a "
                        "period in steps or in time; expected every_n_epochs"
                    )
                self._lend(callback, SAVE_AT_EPOCH_END, True)
                save = functools.partial(_save_if_measured, getattr(callback, SAVE_BEST), callback.monitor)
                self._lend(callback, SAVE_BEST, save)
        for config in trainer.lr_scheduler_configs:
            if config.reduce_on_plateau and _is_geometry(config.monitor):
                if config.interval != "epoch":
                    raise ValueError(
                        f"ReduceLROnPlateau: got monitor {config.monitor!r}, measured at the end of epochs, and "
                        f"interval {config.interval!r}; expected interval 'epoch'"
                    )
                self._lend(config, "strict", False)
                # Lightning would warn of each epoch that is skipped.
                warnings.filterwarnings("ignore", message=f"ReduceLROnPlateau conditioned on metric {PREFIX}")

    def check(self, measured: Iterable[str]) -> None:
        """Raise where a key that is watched was not measured.

        Raises:
            ValueError: If there is one; the message names it.
        """
        there = set(measured)
        for key in self.keys:
            if key not in there:
                raise ValueError(f"monitor: got {key!r}, which is not measured here, expected one of {sorted(there)}")

    def give_back(self) -> None:
        """Restore what was changed."""
        for instance, name, value in reversed(self._lent):
            if value is _NOTHING:
                delattr(instance, name)
            else:
                setattr(instance, name, value)
        self._lent = []

    def _lend(self, instance: Any, name: str, value: Any) -> None:
        self._lent.append((instance, name, vars(instance).get(name, _NOTHING)))
        setattr(instance, name, value)


def _watchers(trainer: Trainer) -> Iterator[tuple[str, str]]:
    """(class name, key) of all that watches a geometry key."""
    named = [c for c in trainer.callbacks if is_named(c, "EarlyStopping", "ModelCheckpoint")]  # type: ignore[attr-defined]
    for callback in named:
        if _is_geometry(callback.monitor):
            yield type(callback).__name__, callback.monitor
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and _is_geometry(config.monitor):
            yield type(config.scheduler).__name__, str(config.monitor)


def _check_key(name: str, key: str, trainer: Trainer) -> None:
    sets = "train|val(_[1-9][0-9]*)?" if trainer.enable_validation else "train"
    probe = any(is_named(callback, "OnlineLinearProbe") for callback in trainer.callbacks)  # type: ignore[attr-defined]
    keys = [key for key, m in MEASURES.items() if m.of in ("statistics", "centers") or (probe and m.of == "classifier")]
    if not re.fullmatch(f"{PREFIX}({sets})/({'|'.join(keys)})", key):
        sets_there = "geometry/train/ or geometry/val/" if trainer.enable_validation else "geometry/train/"
        raise ValueError(f"{name}: got monitor {key!r}, expected {sets_there} and one of {', '.join(keys)}")


def _is_geometry(key: object) -> bool:
    return isinstance(key, str) and key.startswith(PREFIX)


def _save_if_measured(save: Any, key: str, trainer: Trainer, monitor_candidates: dict[str, Any]) -> None:
    if key in monitor_candidates:
        save(trainer, monitor_candidates)
