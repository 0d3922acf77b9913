"""Collectives of the processes of a run, and their shards of data."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DistributedSampler

T = TypeVar("T")


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and the number of processes.

    Example:
        >>> rank_and_world_size()
        (0, 1)
    """
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def all_gather_objects(value: T) -> list[T]:
    """Gather the values of all processes in rank order; tensors should be on the CPU.

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


def add_over_processes(tensor: Tensor, group: Any = None) -> Tensor:
    """Return the sum of a tensor over all processes, or over those of a group; itself on a single process.

    Unlike gathering, it takes the memory of one tensor for any number of processes.

    Example:
        >>> import torch
        >>> add_over_processes(torch.ones(2))
        tensor([1., 1.])
    """
    if rank_and_world_size()[1] == 1:
        return tensor
    total = tensor.clone()
    dist.all_reduce(total, group=group)
    return total


def num_unpadded_samples(loader: Any) -> int | None:
    """Return the number of samples of a loader on this process without the padding of `DistributedSampler`.

    The padding repeats samples at the end, so that all shards have the same size. None for a loader without padding.

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
    """Split this process's shard of indices into batches, the same number on every process.

    The forward pass of a sharded module is a collective, so all processes need the same number of batches: the last
    batch takes any extra index, even beyond ``batch_size``.

    Example:
        >>> own_batches(range(5), batch_size=2)
        [[0, 1], [2, 3], [4]]
    """
    rank, replicas = rank_and_world_size()
    own = list(indices[rank::replicas])
    starts = range(0, max(1, len(indices) // replicas), batch_size)
    return [own[start : start + batch_size] for start in starts[:-1]] + [own[starts[-1] :]]


def own_share(tensor: Tensor) -> Tensor:
    """Return the local shard of a sharded tensor, or any other tensor unchanged.

    Operations on a sharded tensor (a DTensor) itself are collectives, which all processes would have to run.

    Example:
        >>> import torch
        >>> own_share(torch.ones(2))
        tensor([1., 1.])
    """
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor
