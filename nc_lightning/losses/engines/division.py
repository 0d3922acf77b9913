"""How processes or threads divide the work on a batch: each computes some tiles and anchors, and sums are exchanged."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from nc_lightning.distributed.global_batch import Shares
from nc_lightning.losses.engines.sorted_batch import SortedBatch, Tile
from nc_lightning.losses.engines.threads import Team

TILES_OF_EACH = 8
"""Least number of tiles of a process or thread, so that their work differs by few percent."""

LEAST_ROWS = 64
"""Least number of rows of a tile, where there are enough samples: smaller products are slow."""


Item = TypeVar("Item")


class Division(NamedTuple):
    """The part of the work that is done by this process, or by one of its threads; all of it if there is only one.

    Attributes:
        rank: Rank of this process, or number of the thread.
        world_size: Number of processes, or of threads.
        team: The threads; None for processes.
    """

    rank: int
    world_size: int
    team: Team | None = None

    @property
    def threads(self) -> int:
        """Number of threads in this process."""
        return 1 if self.team is None else self.team.size

    @classmethod
    def among(cls, shares: Shares | None) -> "Division":
        """Return the part of this process; without shares it has no others."""
        return cls(0, 1) if shares is None else cls(shares.rank, len(shares.sizes))

    def tiles(self, batch: SortedBatch, num_rows: int, num_columns: int) -> list[Tile]:
        """Return this part's tiles of the upper triangle: consecutive ones, with an equal share of the elements."""
        if self.world_size == 1:
            return list(batch.tiles(num_rows, num_columns))
        wanted = TILES_OF_EACH * self.world_size
        height = min(num_rows, max(LEAST_ROWS, len(batch.order) // wanted))
        width = min(num_columns, max(height, len(batch.order) * len(batch.label) // (2 * wanted * height)))
        tiles = list(batch.tiles(height, width))
        elements = [elements_of(tile) for tile in tiles]
        middles = (end - size / 2 for end, size in zip(itertools.accumulate(elements), elements, strict=True))
        share = sum(elements) / self.world_size
        return [tile for tile, middle in zip(tiles, middles, strict=True) if int(middle / share) == self.rank]

    def anchors(self, batch: SortedBatch) -> slice:
        """Return this part's anchors, with an equal share of the positives."""
        windows = (batch.windows.end - batch.windows.first).cumsum(0)
        bounds = windows[-1] * torch.tensor([self.rank, self.rank + 1]) // self.world_size
        return slice(*torch.searchsorted(windows, bounds, right=True).tolist())

    def rows(self, batch: SortedBatch) -> slice:
        """Return this part's equal share of the anchors."""
        n = len(batch.order)
        return slice(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def steps(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield what this part has to do one after another, until another thread has failed."""
        for item in items:
            if self.team is not None:
                self.team.check()
            yield item

    def sum_(self, values: Tensor) -> None:
        """Sum a tensor over processes or threads in place; all must call this."""
        if self.team is not None:
            self.team.sum_(values, self.rank)
        elif self.world_size > 1:
            dist.all_reduce(values)

    def largest(self, value: Tensor) -> float:
        """Return the largest value () of any process, so that all take the same path; all must call this."""
        if self.world_size > 1:
            dist.all_reduce(value, dist.ReduceOp.MAX)
        return float(value)


def elements_of(tile: Tile) -> int:
    """Return the number of elements of a tile.

    Example:
        >>> elements_of((slice(0, 2), slice(4, 7)))
        6
    """
    rows, columns = tile
    count: int = (rows.stop - rows.start) * (columns.stop - columns.start)
    return count
