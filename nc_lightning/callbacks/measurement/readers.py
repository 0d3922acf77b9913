"""Readers of the features that a measurement computes, so that no other callback needs a pass of its own."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from lightning.pytorch import Trainer
from torch import Tensor

from nc_lightning.callbacks.sources import callbacks_of


class FeatureReader(Protocol):
    """Reader of one measurement: it sees each batch of each set once, and then returns its values.

    Attributes:
        layers: Names of the layers it reads, ``z`` for the output of the module.
    """

    @property
    def layers(self) -> Sequence[str]:
        """Return the names of the layers."""

    def update(self, name: str, features: Mapping[str, Tensor], labels: Tensor) -> None:
        """Read a batch of the set ``name``: features (N, d) by layer, which may be kept, and labels (N,)."""

    def compute(self) -> dict[str, float]:
        """Return values by their logged keys; a collective, which every process calls."""


def readers_of(trainer: Trainer, epoch: int) -> list[FeatureReader]:
    """Return the readers of a measurement after ``epoch`` epochs, from the callbacks with a ``feature_reader``."""
    found = [callback.feature_reader(trainer, epoch) for callback in _reading(trainer)]
    return [reader for reader in found if reader is not None]


def layers_to_read(trainer: Trainer) -> list[str]:
    """Return the names of the layers that readers of any measurement use."""
    return [layer for callback in _reading(trainer) for layer in callback.layers]


def _reading(trainer: Trainer) -> list[Any]:
    return [callback for callback in callbacks_of(trainer) if hasattr(callback, "feature_reader")]
