"""Which samples of a data set training sees, whatever sampler or batch sampler chooses them."""

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from nc_lightning.data.samplers import EpochSampler


def trained_samples(loader: DataLoader[Any], num_batches: float) -> Sequence[int]:
    """Return the indices of the samples that training sees, each once and in order.

    Samplers of torch and of `nc_lightning.data` say it themselves; of any other, one epoch is drawn from a copy.

    Args:
        loader: Loader of a data set with a length.
        num_batches: Number of batches of an epoch, at most as many are drawn.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> import torch
        >>> dataset = TensorDataset(torch.zeros(6, 2))
        >>> trained_samples(DataLoader(dataset, sampler=SubsetRandomSampler([4, 1, 2])), num_batches=3)
        [1, 2, 4]
    """
    dataset: Any = loader.dataset
    every = range(len(dataset))
    batch_sampler: Any = loader.batch_sampler
    sampler = _unwrapped(loader.sampler if batch_sampler is None else getattr(batch_sampler, "sampler", batch_sampler))
    if isinstance(sampler, SubsetRandomSampler):
        return sorted({int(index) for index in sampler.indices})
    if isinstance(sampler, WeightedRandomSampler):
        return sampler.weights.nonzero().flatten().tolist()
    if isinstance(sampler, EpochSampler) or type(sampler) in (RandomSampler, SequentialSampler, DistributedSampler):
        return every
    drawn = one_epoch(sampler, dataset)
    if drawn is None:
        rank_zero_warn(
            f"GeometryMonitor: could not copy the sampler {type(sampler).__name__}, to see which samples training "
            f"sees, and measures all {len(dataset)} samples of the data set"
        )
        return every
    # Of a sampler that never ends, as many samples as training reads.
    limit = None if np.isinf(num_batches) else int(num_batches) * (loader.batch_size or 1)
    limit = None if hasattr(sampler, "__len__") or limit is None else limit
    found = {index for item in itertools.islice(drawn, limit) for index in _indices(item)}
    return sorted(found)


def _unwrapped(sampler: Any) -> Any:
    """The user's sampler, where Lightning has wrapped it for several processes."""
    inner = getattr(getattr(sampler, "dataset", None), "_sampler", None)
    return sampler if inner is None else _unwrapped(inner)


def one_epoch(sampler: Iterable[Any], dataset: Any) -> Iterator[Any] | None:
    """Return what a sampler yields in an epoch, drawn from a copy so that training draws what it would have drawn.

    Returns:
        The epoch; None where the sampler cannot be copied.

    Example:
        >>> list(one_epoch([3, 1], dataset=None))
        [3, 1]
    """
    if isinstance(sampler, Iterator):
        return None
    try:
        return iter(copy.deepcopy(sampler, {id(dataset): dataset}))
    except Exception:  # whatever a class of somebody else's does when it is copied
        return None


def _indices(item: Any) -> list[Any]:
    if isinstance(item, (Tensor, np.ndarray)):
        item = item.tolist()
    return list(item) if isinstance(item, (list, tuple)) else [item]
