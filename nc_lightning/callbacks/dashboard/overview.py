"""The values that decide, in a group of their own: the first one of TensorBoard's first tab."""

from collections.abc import Iterable, Mapping
from typing import Any

OVERVIEW = {
    "NC1, training": "geometry/train/nc1",
    "NC1, validation": "geometry/val/nc1",
    "NCC accuracy, validation": "geometry/val/ncc_accuracy",
    "effective rank, training": "geometry/train/effective_rank",
    "effective rank, validation": "geometry/val/effective_rank",
    "loss over its bound": "loss/optimality_gap",
}
"""Logged keys by the titles that TensorBoard shows; TIME SERIES and SCALARS sort groups, capital letters first."""


def write_overview(writers: Iterable[tuple[Any, str]], values: Mapping[str, float], step: int) -> None:
    """Add the values that decide, as ``Overview/...``, to each `SummaryWriter` with its prefix.

    Values are those of a measurement; those not measured are left out.
    """
    for writer, prefix in writers:
        for title, key in OVERVIEW.items():
            if key in values:
                writer.add_scalar(f"{prefix}Overview/{title}", values[key], step)
