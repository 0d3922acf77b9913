"""The batch of all processes, of which each holds a share: how many rows are where, and how they are gathered."""

from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nc_lightning.distributed.collectives import rank_and_world_size

Sync = Literal["global", "local"]


class Shares(NamedTuple):
    """How many rows of the whole batch each process holds, in the order of ranks.

    Attributes:
        sizes: Number of rows of each process.
        rank: Rank of this process.
    """

    sizes: tuple[int, ...]
    rank: int

    @property
    def own(self) -> slice:
        """Where the rows of this process are in the whole batch."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def number(self, instances: Tensor | None, device: torch.device) -> Tensor:
        """Number the samples of this process (n,), views of one alike, as no other process numbers its own."""
        if instances is None:
            return torch.arange(self.own.start, self.own.stop, device=device)
        numbers: Tensor = numbered(instances).to(device) + self.own.start
        return numbers

    @torch.no_grad()
    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows (n, ...) of all processes, without gradient; each of them has to call this."""
        filled = rows.new_zeros(max(self.sizes), *rows.shape[1:])
        filled[: len(rows)] = rows
        parts = [torch.empty_like(filled) for _ in self.sizes]
        dist.all_gather(parts, filled)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])


def share_rows(z: Tensor) -> Shares | None:
    """Ask all processes how many rows of features (n, d) they hold; None on one process.

    Raises:
        ValueError: On every process, if their features differ in dimension or dtype.

    Example:
        >>> share_rows(torch.zeros(4, 2)) is None
        True
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return None
    mine = torch.tensor([len(z), z.shape[1], z.element_size()]).to(z.device, non_blocking=True)
    parts = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(parts, mine)
    sizes, *kinds = torch.stack(parts).T.tolist()
    if any(len(set(kind)) > 1 for kind in kinds):
        found = ", ".join(f"{dim} of {8 * size} bits" for dim, size in zip(*kinds, strict=True))
        raise ValueError(f"z: got features of different kinds on the processes ({found} dimensions), expected one kind")
    return Shares(tuple(sizes), rank)


def numbered(ids: Tensor) -> Tensor:
    """Number the different ids (N,) from 0 in ascending order, as `torch.unique` does, which waits for a device.

    Example:
        >>> numbered(torch.tensor([7, 3, 7, 12])).tolist()
        [1, 0, 1, 2]
    """
    ascending, order = ids.sort()
    number = (ascending.diff(prepend=ascending[:1]) != 0).cumsum(0)
    return torch.empty_like(number).index_copy_(0, order, number)
