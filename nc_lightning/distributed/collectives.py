"""What one process of a run asks of the others."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler

T = TypeVar("T")


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and how many there are.

    Example:
        >>> rank_and_world_size()
        (0, 1)
    """
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def all_gather_objects(value: T) -> list[T]:
    """Return the value that each process has, in the order of their ranks; tensors should be on the CPU.

    Example:
        >>> all_gather_objects("mine")
        ['mine']
    """
    world_size = rank_and_world_size()[1]
    if world_size == 1:
        return [value]
    values: list[Any] = [None] * world_size
    dist.all_gather_object(values, value)
    return values


def num_unpadded_samples(loader: Any) -> int | None:
    """Return how many samples of a loader are this process's own; those after them repeat others to even out shares.

    None where a loader repeats none.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loaders = [DataLoader(range(7), sampler=DistributedSampler(range(7), 3, rank)) for rank in range(3)]
        >>> [len(loader.sampler) for loader in loaders], [num_unpadded_samples(loader) for loader in loaders]
        ([3, 3, 3], [3, 2, 2])
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or getattr(sampler, "drop_last", False):
        return None
    dataset: Any = sampler.dataset
    return len(range(sampler.rank, len(dataset), sampler.num_replicas))


def own_batches(indices: Sequence[int], batch_size: int) -> list[list[int]]:
    """Return this process's share of indices in batches, as many of them on every process.

    The last batch takes what others do not have, be it one more than ``batch_size``: the forward pass of a sharded
    module is a collective.

    Example:
        >>> own_batches(range(5), batch_size=2)
        [[0, 1], [2, 3], [4]]
    """
    rank, replicas = rank_and_world_size()
    own = list(indices[rank::replicas])
    starts = range(0, max(1, len(indices) // replicas), batch_size)
    return [own[start : start + batch_size] for start in starts[:-1]] + [own[starts[-1] :]]


def own_share(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor that this process holds; any other tensor is returned as it is.

    Operations on a sharded tensor itself (a DTensor) are collectives: all processes would have to run them.

    Example:
        >>> import torch
        >>> own_share(torch.ones(2))
        tensor([1., 1.])
    """
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
