"""Samples of a data set that training uses, under any sampler or batch sampler."""

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from nc_lightning.data.samplers import EpochSampler
from nc_lightning.private_apis.lightning import wrapped_sampler


def trained_samples(loader: DataLoader[Any], of_epoch: float) -> Sequence[int]:
    """Return the indices of the samples that training uses, each once and in order.

    For samplers of torch and of `nc_lightning.data` they are known; any other is copied, and one epoch is drawn from
    the copy: at most ``of_epoch`` batches.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> import torch
        >>> dataset = TensorDataset(torch.zeros(6, 2))
        >>> trained_samples(DataLoader(dataset, sampler=SubsetRandomSampler([4, 1, 2])), of_epoch=3)
        [1, 2, 4]
    """
    dataset: Any = loader.dataset
    every = range(len(dataset))
    batch_sampler: Any = loader.batch_sampler
    # Exact classes of torch: a subclass may choose other samples.
    plain = batch_sampler is None or type(batch_sampler) is BatchSampler
    sampler = _unwrapped(getattr(batch_sampler, "sampler", loader.sampler) if plain else batch_sampler)
    if type(sampler) is SubsetRandomSampler:
        return sorted({int(index) for index in sampler.indices})
    if type(sampler) is WeightedRandomSampler:
        return sampler.weights.nonzero().flatten().tolist()
    if type(sampler) in (RandomSampler, SequentialSampler):
        return range(len(sampler.data_source))
    if isinstance(sampler, EpochSampler) or type(sampler) is DistributedSampler:
        return every
    drawn = one_epoch(sampler, dataset)
    if drawn is None:
        rank_zero_warn(
            f"GeometryMonitor: could not copy the sampler {type(sampler).__name__} to find the samples that "
            f"training uses; measuring all {len(dataset)} samples of the data set"
        )
        return every
    # From an endless sampler, as many samples as training reads.
    ends = hasattr(sampler, "__len__") or np.isinf(of_epoch)
    limit = None if ends else int(of_epoch) * (loader.batch_size or 1)
    found = {index for item in itertools.islice(drawn, limit) for index in _indices(item, len(dataset))}
    return sorted(found)


def spread(count: int, size: int) -> list[int]:
    """Return ``count`` of ``size`` positions in order, one in each of ``count`` equal stretches, always the same.

    The position within a stretch is random, because sets are often sorted by class, or cycle through the classes.

    Example:
        >>> spread(3, 12), spread(12, 3)
        ([3, 6, 9], [0, 1, 2])
    """
    if count >= size:
        return list(range(size))
    starts = torch.arange(count + 1) * size // count
    within = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * starts.diff()
    return (starts[:-1] + within.long()).tolist()


def num_batches(loader: Any) -> int | None:
    """Return the length of a loader, or None if it has none.

    Example:
        >>> num_batches([1, 2]), num_batches(iter([1, 2]))
        (2, None)
    """
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def trained_count(loader: Any, of_epoch: float, size: int) -> int:
    """Return how many of ``size`` samples an epoch of ``of_epoch`` batches reads from this process's training loader.

    An epoch of all batches reads all of them, even if the loader drops some. If the batch size is unknown, the share of
    samples is the share of batches.

    Example:
        >>> loader = DataLoader(range(9), batch_size=2)
        >>> [trained_count(loader, of_epoch, size=9) for of_epoch in (5, 3, 1)]
        [9, 6, 2]
    """
    length = num_batches(loader)
    if length is None or of_epoch >= length:
        return size
    batches = int(of_epoch) * (_batch_size(loader) or size / length)
    return max(1, min(size, int(batches)))


def _batch_size(loader: Any) -> int | None:
    sampler = getattr(loader, "sampler", None)
    if isinstance(sampler, EpochSampler):
        return sampler.global_batch_size // sampler.num_replicas
    of_both = (getattr(part, "batch_size", None) for part in (loader, getattr(loader, "batch_sampler", None)))
    return next((size for size in of_both if isinstance(size, int)), None)


def _unwrapped(sampler: Any) -> Any:
    """Return the user's sampler, which Lightning may have wrapped for several processes."""
    inner = wrapped_sampler(sampler)
    return sampler if inner is None else _unwrapped(inner)


def one_epoch(sampler: Iterable[Any], dataset: Any) -> Iterator[Any] | None:
    """Return an epoch of a copy of the sampler, which leaves the sampler of training as it is.

    None if the sampler cannot be copied.

    Example:
        >>> list(one_epoch([3, 1], dataset=None))
        [3, 1]
    """
    if isinstance(sampler, Iterator):
        return None
    try:
        return iter(copy.deepcopy(sampler, {id(dataset): dataset}))
    except Exception:  # a third-party class may raise anything when it is copied
        return None


def _indices(item: Any, size: int) -> list[Any]:
    """Return the indices in an item of a sampler: one, or a batch in any form that a data set may accept."""
    if isinstance(item, slice):
        return list(range(*item.indices(size)))
    if isinstance(item, (Tensor, np.ndarray)):
        item = item.tolist()
    return list(item) if isinstance(item, (list, tuple, set, range)) else [item]
