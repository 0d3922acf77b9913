"""The global batch: the sizes of its shards on all processes, and gathering their rows."""

from typing import Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nc_lightning.distributed.collectives import rank_and_world_size

Sync = Literal["global", "local"]


class Shares(NamedTuple):
    """Sizes of the shards of the global batch, in rank order.

    Attributes:
        sizes: Number of rows on each process.
        rank: Rank of this process.
        learns: Whether the rows of any process get a gradient.
    """

    sizes: tuple[int, ...]
    rank: int
    learns: bool = False

    @property
    def own(self) -> slice:
        """Slice of the global batch that is on this process."""
        start = sum(self.sizes[: self.rank])
        return slice(start, start + self.sizes[self.rank])

    def number(self, instances: Tensor | None, device: torch.device) -> Tensor:
        """Number the samples (n,) of this process uniquely across processes; views of a sample share a number."""
        if instances is None:
            return torch.arange(self.own.start, self.own.stop, device=device)
        numbers: Tensor = numbered(instances).to(device) + self.own.start
        return numbers

    @torch.no_grad()
    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows (n, ...) of all processes, detached; all processes must call this."""
        filled = rows.new_zeros(max(self.sizes), *rows.shape[1:])
        filled[: len(rows)] = rows
        parts = [torch.empty_like(filled) for _ in self.sizes]
        dist.all_gather(parts, filled)
        return torch.cat([part[:size] for part, size in zip(parts, self.sizes, strict=True)])

    @torch.no_grad()
    def sum_of_own(self, rows: Tensor) -> Tensor:
        """Sum the rows (N, ...) of the global batch over processes, and return the sums (n, ...) of this process's own.

        Detached; all processes must call this. A row is only sent to the process that it belongs to.
        """
        own = rows.new_empty(len(self.sizes) * self.sizes[self.rank], *rows.shape[1:])
        dist.all_to_all_single(own, rows.contiguous(), [self.sizes[self.rank]] * len(self.sizes), list(self.sizes))
        return own.view(len(self.sizes), -1, *rows.shape[1:]).sum(0)


def share_rows(z: Tensor) -> Shares | None:
    """Gather the numbers of rows of features (n, d) on all processes; None on a single process.

    Raises:
        ValueError: On every process, if their features differ in dimension or dtype.

    Example:
        >>> share_rows(torch.zeros(4, 2)) is None
        True
    """
    rank, world_size = rank_and_world_size()
    if world_size == 1:
        return None
    learns = z.requires_grad and torch.is_grad_enabled()
    mine = torch.tensor([len(z), learns, z.shape[1], z.element_size()]).to(z.device, non_blocking=True)
    parts = [torch.empty_like(mine) for _ in range(world_size)]
    dist.all_gather(parts, mine)
    sizes, anyone, *kinds = torch.stack(parts).T.tolist()
    if any(len(set(kind)) > 1 for kind in kinds):
        found = ", ".join(f"{dim} of {8 * size} bits" for dim, size in zip(*kinds, strict=True))
        raise ValueError(f"z: got features of different kinds on the processes ({found} dimensions), expected one kind")
    return Shares(tuple(sizes), rank, any(anyone))


def numbered(ids: Tensor) -> Tensor:
    """Number the distinct ids (N,) from 0 in ascending order, like `torch.unique`, but without synchronization.

    Example:
        >>> numbered(torch.tensor([7, 3, 7, 12])).tolist()
        [1, 0, 1, 2]
    """
    ascending, order = ids.sort()
    number = (ascending.diff(prepend=ascending[:1]) != 0).cumsum(0)
    return torch.empty_like(number).index_copy_(0, order, number)
