"""Which batches a measurement reads: each training sample once and in order, and the held-out sets as they are."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from nc_lightning.batch import set_name
from nc_lightning.callbacks.measured_features import Measured
from nc_lightning.callbacks.sources import is_named
from nc_lightning.callbacks.trained_samples import num_batches, one_epoch, spread, trained_count, trained_samples
from nc_lightning.data.loader import BatchLoader
from nc_lightning.distributed.collectives import num_unpadded_samples
from nc_lightning.objectives.training_data import training_datamodule

DEFAULT_BATCH_SIZE = 256
"""Batch size of a measurement where the training loader does not name one."""


class Source(NamedTuple):
    """A loader and how many of its batches to read.

    Attributes:
        loader: An iterable of batches that can be read more than once.
        limit: Number of batches; infinity for all.
    """

    loader: Any
    limit: float = math.inf


def training_sources(trainer: Trainer) -> list[Source]:
    """Return the training set without augmentation where the data module offers it, else the training data in order.

    Looking at a sampler may draw random numbers: call it within `undisturbed`.
    """
    if getattr(trainer, "overfit_batches", 0) and (overfitted := _overfitted(trainer)):
        return overfitted
    if own := own_training_sources(trainer):
        return own
    leaves = _leaves(trainer.train_dataloader)
    return [_source(loader, [loader], trainer) for loader in leaves]


def _overfitted(trainer: Trainer) -> list[Source]:
    """The batches, in a fixed order, that are all that ``overfit_batches`` trains on; without a fit those it would."""
    if trainer.train_dataloader is not None:
        return [Source(loader, trainer.num_training_batches) for loader in _leaves(trainer.train_dataloader)]
    datamodule: Any = getattr(trainer, "datamodule", None)
    if not is_overridden("train_dataloader", datamodule, LightningDataModule):
        return []
    limit = trainer.overfit_batches  # type: ignore[attr-defined]
    lengths = [(loader, num_batches(loader)) for loader in _leaves(datamodule.train_dataloader())]
    return [
        Source(loader, limit if isinstance(limit, int) else int(limit * length))
        for loader, length in lengths
        if length is not None
    ]


def own_training_sources(trainer: Trainer) -> list[Source]:
    """Return the data module's own loader of the training set for measuring, if there is one and training uses it."""
    fitting = trainer.state.fn == TrainerFn.FITTING
    datamodule: Any = training_datamodule(trainer) if fitting else getattr(trainer, "datamodule", None)
    if getattr(trainer, "overfit_batches", 0) or not hasattr(datamodule, "geometry_dataloader"):
        return []
    training, leaves = _leaves(trainer.train_dataloader), _leaves(datamodule.geometry_dataloader())
    if not any(_reads_less(loader, trainer) for loader in training):
        return [Source(loader) for loader in leaves]
    return [_source(loader, training, trainer) for loader in leaves]


def _reads_less(loader: Any, trainer: Trainer) -> bool:
    """Whether an epoch ends before a training loader does."""
    length = num_batches(loader)
    return length is None or trainer.num_training_batches < length


def _source(loader: Any, training: Sequence[Any], trainer: Trainer) -> Source:
    """The samples of a loader in order, no more than an epoch of the training loaders has."""
    cut = any(_reads_less(part, trainer) for part in training)
    ordered = _in_order(loader, training if cut else [], trainer)
    by_batches = ordered is loader or isinstance(getattr(ordered, "dataset", None), IterableDataset)
    return Source(ordered, trainer.num_training_batches if cut and by_batches else math.inf)


def is_trained_on(trainer: Trainer, loader: Any) -> bool:
    """Return whether a loader is one that training reads: with persistent workers, reading it restarts its epoch."""
    return any(loader is leaf for leaf in _leaves(trainer.train_dataloader))


def single_batches(trainer: Trainer, batch: Any) -> list[Any]:
    """Return the batches that training takes at once: one, or one of each loader."""
    if isinstance(trainer.train_dataloader, Mapping):
        return [one for one in batch.values() if one is not None]
    if isinstance(trainer.train_dataloader, (list, tuple)):
        return [one for one in batch if one is not None]
    return [batch]


def validation_sources(trainer: Trainer) -> dict[str, list[Source]]:
    """Return the validation sets by name, loading them first if training has not validated yet."""
    if trainer.val_dataloaders is None and trainer.training and trainer.enable_validation:
        stage = trainer.state.stage
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
        trainer.state.stage = stage
    return _held_out("val", trainer.val_dataloaders, trainer.num_val_batches)


def test_sources(trainer: Trainer) -> dict[str, list[Source]]:
    """Return the test sets by name."""
    return _held_out("test", trainer.test_dataloaders, trainer.num_test_batches)


def features(
    trainer: Trainer, pl_module: LightningModule, sources: Sequence[Source], measured: Measured
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (features, labels, inputs) of each batch of the sources, one source after another."""
    for loader, limit in sources:
        left = num_unpadded_samples(loader)
        for batch in itertools.islice(loader, None if math.isinf(limit) else int(limit)):
            batch = trainer.strategy.batch_to_device(batch, pl_module.device)
            z, labels, x = batch_features(trainer, pl_module, batch, measured)
            yield z[:left], labels[:left], x[:left]
            left = None if left is None else max(0, left - len(labels))


def batch_features(
    trainer: Trainer, pl_module: LightningModule, batch: Any, measured: Measured
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (features, labels, inputs) of a batch that is on the device."""
    x, labels = measured.read(batch)
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        z = measured.of(pl_module, trainer.precision_plugin.convert_input(x))
    return z, labels, x


def _held_out(name: str, loaders: Any, limits: Sequence[float]) -> dict[str, list[Source]]:
    leaves = _leaves(loaders)
    pairs = zip(leaves, limits, strict=False)  # of no loader Lightning has a limit of 0
    return {set_name(name, i): [Source(loader, limit)] for i, (loader, limit) in enumerate(pairs)}


def _leaves(loaders: Any) -> list[Any]:
    """The loaders of a nested list, tuple or dict, in the order in which Lightning counts them."""
    if loaders is None:
        return []
    if is_named(loaders, "CombinedLoader"):
        return _leaves(loaders.iterables if hasattr(loaders, "iterables") else loaders.loaders)
    if isinstance(loaders, Mapping):
        return [leaf for loader in loaders.values() for leaf in _leaves(loader)]
    if isinstance(loaders, (list, tuple)):
        return [leaf for loader in loaders for leaf in _leaves(loader)]
    if isinstance(loaders, Iterator):
        rank_zero_warn(
            "GeometryMonitor: got an iterator as a loader, which can be read only once, and leaves it to training; "
            "give a DataLoader, or a data module with geometry_dataloader()"
        )
        return []
    return [loaders]


def _in_order(loader: Any, training: Sequence[Any], trainer: Trainer) -> Any:
    """Return a loader of this process's share of the same data set, each sample once and in order, if there is one.

    Where there are ``training`` loaders it has no more samples than an epoch of these, spread over the data set.
    """

    def chosen(indices: Sequence[int], processes: int = 1) -> Sequence[int]:
        if not training:
            return indices
        own = len(indices) // processes
        count = processes * sum(trained_count(part, trainer.num_training_batches, own) for part in training)
        return [indices[i] for i in spread(count, len(indices))]

    if isinstance(loader, BatchLoader) and isinstance(loader.sampler, list):
        indices = chosen([index for batch in loader.sampler for index in batch])
        thinned, size = copy.copy(loader), len(loader.sampler[0])
        thinned.sampler = [list(indices[start : start + size]) for start in range(0, len(indices), size)]
        return thinned
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return loader
    # Workers of its own: those of the training loader may persist, and be in the middle of an epoch.
    options: dict[str, Any] = {
        "collate_fn": loader.collate_fn,
        "num_workers": loader.num_workers,
        "worker_init_fn": loader.worker_init_fn,
        "timeout": loader.timeout,
        "multiprocessing_context": loader.multiprocessing_context,
        "generator": torch.Generator(),
    }
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, batch_size=loader.batch_size, **options)
    if not hasattr(dataset, "__len__"):
        return loader
    indices = chosen(trained_samples(loader, trainer.num_training_batches), trainer.world_size)
    indices = indices[trainer.global_rank :: trainer.world_size]
    if loader.batch_sampler is not None:
        batch_size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        batch_size = batch_size if isinstance(batch_size, int) else DEFAULT_BATCH_SIZE
        return DataLoader(dataset, batch_size=batch_size, sampler=indices, **options)
    # batch_size=None: what the sampler yields goes to the data set as it is, be it an index or a batch of them.
    first = next(one_epoch(loader.sampler, dataset) or iter(()), None)
    if isinstance(first, (list, tuple, np.ndarray, Tensor)) and np.ndim(first) == 1:
        starts = range(0, len(indices), len(first))
        batches = [_like(first, indices[start : start + len(first)]) for start in starts]
        return DataLoader(dataset, batch_size=None, sampler=batches, **options)
    if isinstance(first, (int, np.integer)):
        return DataLoader(dataset, batch_size=None, sampler=indices, **options)
    return loader


def _like(first: Any, indices: Sequence[int]) -> Any:
    if isinstance(first, Tensor):
        return torch.tensor(indices)
    return np.asarray(indices) if isinstance(first, np.ndarray) else type(first)(indices)
