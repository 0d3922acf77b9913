"""The batch of all processes, of which each holds a share: how losses are of the whole of it.

DistributedDataParallel averages the gradients of W processes. The gradient of a loss l of the whole batch is the sum
over processes of what reaches the parameters through the share z_r of each; so each has to send back W dl / dz_r, and
does not have to know what the others send. Here every process works out all of dl / dz_r in its forward pass, where
all of them meet: in the backward pass there is nothing to wait for. The value is that of the whole batch on each.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from nc_lightning.distributed.collectives import rank_and_world_size

Sync = Literal["global", "local"]


class Shares(NamedTuple):
    """How many rows of the whole batch each process holds, in the order of ranks.

    Attributes:
        sizes: Of each process.
        rank: Of this one.
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
        return numbered(instances).to(device) + self.own.start

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


def sum_over_processes(
    z: Tensor, temperature: float | Tensor, shares: Shares, part: Callable[[Tensor, float | Tensor], Tensor]
) -> Tensor:
    """Add up what each process works out of a sum over the whole batch; the gradient is for averaging, see above.

    Args:
        z: (n, d) features of this process.
        temperature: A number, or a tensor of shape () to learn.
        shares: Who holds what.
        part: This process's part of the sum, differentiable in the features (N, d) of all and in the temperature.

    Returns:
        0-dimensional sum, on every process. First derivatives only.
    """
    total: Tensor = _SumOverProcesses.apply(z, temperature, shares, part)
    return total


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        temperature: float | Tensor,
        shares: Shares,
        part: Callable[[Tensor, float | Tensor], Tensor],
    ) -> Tensor:
        everyone, wanted = shares.gather(z), any(ctx.needs_input_grad)
        with torch.set_grad_enabled(wanted):
            everyone.requires_grad_(wanted)
            tau = temperature.detach().requires_grad_(wanted) if isinstance(temperature, Tensor) else temperature
            total = part(everyone, tau)
        if wanted:
            sources = [everyone, tau] if isinstance(tau, Tensor) else [everyone]
            gradient, *of_temperature = torch.autograd.grad(total, sources, materialize_grads=True)
            dist.all_reduce(gradient)
            world = len(shares.sizes)
            ctx.save_for_backward(world * gradient[shares.own], *(world * g for g in of_temperature))
        total = total.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        gradient, *of_temperature = ctx.saved_tensors
        return gradient * grad_output, of_temperature[0] * grad_output if of_temperature else None, None, None


def numbered(ids: Tensor) -> Tensor:
    """Number the different ids (N,) from 0 in ascending order, as `torch.unique` does, which waits for a device.

    Example:
        >>> numbered(torch.tensor([7, 3, 7, 12])).tolist()
        [1, 0, 1, 2]
    """
    ascending, order = ids.sort()
    number = (ascending.diff(prepend=ascending[:1]) != 0).cumsum(0)
    return torch.empty_like(number).index_copy_(0, order, number)
