"""What callbacks ask of the other processes of a run."""

from typing import Any, TypeVar

import torch.distributed as dist
from torch.utils.data import DistributedSampler

T = TypeVar("T")


def of_all_processes(value: T) -> list[T]:
    """Return the value that each process has, in the order of their ranks; tensors should be on the CPU.

    Example:
        >>> of_all_processes("mine")
        ['mine']
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def own_samples(loader: Any) -> int | None:
    """Return how many samples of a loader are this process's own; those after them repeat others to even out shares.

    None where a loader repeats none.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loaders = [DataLoader(range(7), sampler=DistributedSampler(range(7), 3, rank)) for rank in range(3)]
        >>> [len(loader.sampler) for loader in loaders], [own_samples(loader) for loader in loaders]
        ([3, 3, 3], [3, 2, 2])
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or getattr(sampler, "drop_last", False):
        return None
    dataset: Any = sampler.dataset
    return len(range(sampler.rank, len(dataset), sampler.num_replicas))
