"""Columns of a table that may be labels or numbers of rows rather than features."""

from collections.abc import Sequence

import torch
from torch import Tensor


class WholeColumns:
    """Find the columns of whole numbers, not all equal, in a table whose other columns have fractions.

    Args:
        columns: Name of each dimension; empty if the dimensions have no names, and then nothing is found.

    Example:
        >>> table = WholeColumns(["id", "a", "b"])
        >>> table.update(torch.tensor([[0, 0.5, 1.0], [1, 1.5, 1.0]]))
        >>> table.names
        ['id']
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._whole = torch.ones(len(columns), dtype=torch.bool)
        self._range = torch.tensor([[torch.inf], [-torch.inf]], dtype=torch.float64).repeat(1, len(columns))

    def update(self, features: Tensor) -> None:
        """Add features (n, d)."""
        if self._columns and len(features):
            self._whole &= (features == features.round()).all(0)
            lowest, highest = torch.aminmax(features.double(), dim=0)
            self._range = torch.stack([self._range[0].minimum(lowest), self._range[1].maximum(highest)])

    @property
    def names(self) -> list[str]:
        """Names of the columns that were found."""
        if self._whole.all():
            return []
        found = self._whole & (self._range[0] < self._range[1])
        return [name for name, one in zip(self._columns, found.tolist(), strict=True) if one]


def shortened(names: Sequence[str]) -> str:
    """Return names as a list of at most five.

    Example:
        >>> shortened(["f0", "class"]), shortened([f"f{i}" for i in range(16)] + ["kind"])
        ('f0, class', 'f0, f1, f2, ..., f15, kind')
    """
    return ", ".join(names if len(names) <= 5 else [*names[:3], "...", *names[-2:]])
