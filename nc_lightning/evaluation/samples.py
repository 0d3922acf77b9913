"""Checks of features and labels that are evaluated, with one-line errors."""

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, as_labels, check_features, check_finite, check_labels


def check_samples(z: Tensor, labels: Tensor | None, num_classes: int, name: str) -> None:
    """Raise unless features are finite and there is at least one, and each has a label in [0, num_classes).

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If a shape does not fit, a value is not finite, or a label lies outside.

    Example:
        >>> check_samples(torch.zeros(0, 2), None, 3, "bank")
        Traceback (most recent call last):
        ...
        ValueError: bank: got no samples, expected at least one
    """
    check_features(z, name)
    if len(z) == 0:
        raise ValueError(f"{name}: got no samples, expected at least one")
    if not torch.isfinite(z.sum()):  # a sum takes a tenth of the time, and overflows at worst
        check_finite(z, name)
    if labels is not None:
        check_labels(labels, len(z), num_classes, f"{name}_labels")


def as_samples(z: Array, labels: Array, name: str) -> tuple[Tensor, Tensor]:
    """Return features and their labels as tensors, see `as_features` and `as_labels`."""
    return as_features(z, name), as_labels(labels, f"{name}_labels")


def check_dimensions(queries: Tensor, bank: Tensor) -> None:
    """Raise unless both have the same number of dimensions.

    Raises:
        ValueError: If they differ.

    Example:
        >>> check_dimensions(torch.zeros(1, 3), torch.zeros(1, 2))
        Traceback (most recent call last):
        ...
        ValueError: queries: got 3 dimensions, expected 2 as in the bank
    """
    if queries.shape[1] != bank.shape[1]:
        raise ValueError(f"queries: got {queries.shape[1]} dimensions, expected {bank.shape[1]} as in the bank")
