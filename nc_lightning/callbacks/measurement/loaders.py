"""Batches that a measurement reads: each training sample once and in order, and the held-out sets unchanged."""

import copy
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from nc_lightning.batch import set_name
from nc_lightning.callbacks.measurement.features import Measured
from nc_lightning.callbacks.measurement.layers import OUTPUT, caught_layers, features_of_call
from nc_lightning.callbacks.measurement.trained_samples import (
    num_batches,
    one_epoch,
    spread,
    trained_count,
    trained_samples,
)
from nc_lightning.callbacks.sources import is_named
from nc_lightning.data.loader import BatchLoader
from nc_lightning.distributed.collectives import all_gather_objects, num_unpadded_samples, own_batches
from nc_lightning.private_apis import lightning as of_lightning

DEFAULT_BATCH_SIZE = 256
"""Batch size of a measurement if the training loader has none."""


class Source(NamedTuple):
    """Loader that can be read repeatedly, the number of batches to read, and its ``dataloader_idx`` for hooks."""

    loader: Any
    limit: float = math.inf
    position: int = 0


class Batch(NamedTuple):
    """Features (N, d) by layer, in the order of execution and ``z`` last; labels (N,) and inputs (N, ...)."""

    features: dict[str, Tensor]
    labels: Tensor
    inputs: Tensor


class Training(NamedTuple):
    """What an epoch of training reads; no loaders if only held-out sets are given or, outside a fit, without limits."""

    loaders: list[Any]
    num_batches: float

    def reads_less(self) -> bool:
        """Return whether an epoch ends before one of the loaders does."""
        lengths = [num_batches(loader) for loader in self.loaders]
        return any(length is None or self.num_batches < length for length in lengths)


def training_sources(trainer: Trainer) -> list[Source]:
    """Return the training set without augmentation if the data module offers it, else the training data in order.

    Inspecting a sampler may draw random numbers: call it within `undisturbed`.
    """
    if trainer.limit_train_batches == 0:
        return []
    training = _training(trainer)
    if getattr(trainer, "overfit_batches", 0) and training.loaders:
        return [Source(loader, training.num_batches) for loader in training.loaders]
    if own := own_training_sources(trainer, training):
        return own
    if trainer.train_dataloader is None:
        return []
    return [_source(loader, training._replace(loaders=[loader]), trainer) for loader in training.loaders]


def own_training_sources(trainer: Trainer, training: Training | None = None) -> list[Source]:
    """Return the data module's own loader of the training set for measuring, if there is one and training uses it."""
    datamodule = of_lightning.attached_datamodule(trainer)
    if getattr(trainer, "overfit_batches", 0) or not hasattr(datamodule, "geometry_dataloader"):
        return []
    training = training or _training(trainer)
    combined = CombinedLoader(of_lightning.loader_from_hook(datamodule, "geometry_dataloader"))
    leaves = _prepared(combined, RunningStage.VALIDATING, trainer)
    if not training.reads_less():
        return [Source(loader) for loader in leaves]
    return [_source(loader, training, trainer) for loader in leaves]


def _training(trainer: Trainer) -> Training:
    """Return what an epoch of this fit reads; outside a fit, what one would read if limits apply."""
    if trainer.train_dataloader is not None:
        batches: float = trainer.num_training_batches
        if math.isinf(batches):  # a stream, which may not end: measure as many batches as training has read
            batches = trainer.fit_loop.epoch_loop.batch_progress.total.ready or math.inf
        return Training(_leaves(trainer.train_dataloader), batches)
    limit = trainer.limit_train_batches
    requested = None if isinstance(limit, float) and limit == 1 else of_lightning.requested_loader(trainer)
    if requested is None:
        return Training([], math.inf)
    combined = CombinedLoader(requested)
    if getattr(trainer, "overfit_batches", 0):
        of_lightning.overfit(combined)
    loaders = _prepared(combined, RunningStage.TRAINING, trainer)
    limits = [of_lightning.limited_batches(num_batches(loader), limit) for loader in loaders]
    return Training(loaders, max(limits, default=0))


def tell_of_streams(trainer: Trainer) -> None:
    """Log that an epoch of training or validation never ends if it reads an endless stream without a limit."""
    counts = {"train": [trainer.num_training_batches], "val": trainer.num_val_batches}
    for name in (name for name, batches in counts.items() if math.inf in batches):
        rank_zero_info(
            f"GeometryMonitor: the {name} set has no length, so an epoch ends only where its data do; if they are an "
            f"endless stream, set limit_{name}_batches"
        )


def _prepared(loaders: CombinedLoader, stage: RunningStage, trainer: Trainer) -> list[Any]:
    """Prepare loaders as Lightning does for a stage: with several processes, each reads its shard."""
    return [of_lightning.prepare_loader(trainer, loader, stage) for loader in _leaves(loaders)]


def _source(loader: Any, training: Training, trainer: Trainer) -> Source:
    """Return the samples of a loader in order, at most as many as an epoch of the training loaders has."""
    cut = training.reads_less()
    ordered = _in_order(loader, training, cut, trainer)
    by_batches = ordered is loader or isinstance(getattr(ordered, "dataset", None), IterableDataset)
    return Source(ordered, training.num_batches if cut and by_batches else math.inf)


@contextmanager
def in_evaluation(trainer: Trainer, stage: RunningStage) -> Iterator[None]:
    """Put a training Trainer into an evaluation stage, so that hooks that count or augment ignore the batches."""
    before = trainer.state.stage
    trainer.state.stage = stage if before == RunningStage.TRAINING else before
    try:
        yield
    finally:
        trainer.state.stage = before


def is_being_read(trainer: Trainer, name: str, source: Source) -> bool:
    """Return whether a loop has started to read a loader: with persistent workers, reading it would restart it."""
    if trainer.state.fn == TrainerFn.FITTING:
        return any(source.loader is leaf for leaf in _leaves(trainer.train_dataloader))
    return name != "train" and (source.position == 0 or getattr(source.loader, "persistent_workers", False))


def single_batches(trainer: Trainer, batch: Any) -> list[Any]:
    """Return the batches of a training step: one, or one per loader."""
    loaders = trainer.train_dataloader
    several = batch.values() if isinstance(loaders, Mapping) else batch
    return [one for one in several if one is not None] if isinstance(loaders, (Mapping, list, tuple)) else [batch]


def validation_sources(trainer: Trainer) -> dict[str, list[Source]]:
    """Return the validation sets by name, loading them first if training has not validated yet."""
    if trainer.val_dataloaders is None and trainer.state.fn == TrainerFn.FITTING and trainer.enable_validation:
        with in_evaluation(trainer, RunningStage.VALIDATING):
            trainer.fit_loop.epoch_loop.val_loop.setup_data()
    return _held_out("val", trainer.val_dataloaders, trainer.num_val_batches)


def test_sources(trainer: Trainer) -> dict[str, list[Source]]:
    """Return the test sets by name."""
    return _held_out("test", trainer.test_dataloaders, trainer.num_test_batches)


def features(
    trainer: Trainer, pl_module: LightningModule, sources: Sequence[Source], measured: Measured
) -> Iterator[Batch]:
    """Yield each batch of the sources, one source after another, without the samples that fill up the last batches."""
    for loader, limit, position in sources:
        left = num_unpadded_samples(loader)
        for batch in itertools.islice(loader, None if math.isinf(limit) else int(limit)):
            batch = trainer.precision_plugin.convert_input(batch)
            batch = of_lightning.before_batch_transfer(pl_module, batch, position)
            batch = trainer.strategy.batch_to_device(batch, pl_module.device, position)
            by_layer, labels, x = batch_features(trainer, pl_module, batch, measured)
            yield Batch({layer: z[:left] for layer, z in by_layer.items()}, labels[:left], x[:left])
            left = None if left is None else max(0, left - len(labels))


def batch_features(trainer: Trainer, pl_module: LightningModule, batch: Any, measured: Measured) -> Batch:
    """Return features, labels and inputs of a batch that is on the device; the features are copies that may be kept."""
    x, labels = measured.read(batch)
    layers = measured.layers
    with torch.no_grad(), trainer.precision_plugin.forward_context():
        with caught_layers(pl_module, layers, len(x)) as caught:
            z = measured.of(pl_module, trainer.precision_plugin.convert_input(x))
        found = features_of_call(pl_module, caught, None, layers, len(x))
    return Batch({layer: found[layer] for layer in caught} | {OUTPUT: z.clone()}, labels, x)


def _held_out(name: str, loaders: Any, limits: Sequence[float]) -> dict[str, list[Source]]:
    leaves = _leaves(loaders)
    pairs = zip(leaves, limits, strict=False)  # without a loader, Lightning has a limit of 0
    return {set_name(name, i): [Source(loader, limit, i)] for i, (loader, limit) in enumerate(pairs)}


def _leaves(loaders: Any) -> list[Any]:
    """Return the loaders of a nested list, tuple or dict, in the order in which Lightning counts them."""
    if loaders is None:
        return []
    if is_named(loaders, "CombinedLoader"):
        return _leaves(loaders.iterables if hasattr(loaders, "iterables") else loaders.loaders)
    if isinstance(loaders, (Mapping, list, tuple)):
        several = loaders.values() if isinstance(loaders, Mapping) else loaders
        return [leaf for loader in several for leaf in _leaves(loader)]
    if isinstance(loaders, Iterator):
        rank_zero_warn(
            "GeometryMonitor: got an iterator as a loader, which can be read only once and is not measured; "
            "pass a DataLoader, or a data module with geometry_dataloader()"
        )
        return []
    return [loaders]


def _in_order(loader: Any, training: Training, cut: bool, trainer: Trainer) -> Any:
    """Return a loader of this process's shard of the data set, each sample once and in order, if one can be made.

    With ``cut``, it has at most as many samples as an epoch of training, spread over the data set.
    """

    def chosen(indices: Sequence[int]) -> Sequence[int]:
        if not cut:
            return indices
        own = len(indices) // trainer.world_size
        count = trainer.world_size * sum(trained_count(part, training.num_batches, own) for part in training.loaders)
        return [indices[i] for i in spread(count, len(indices))]

    if isinstance(loader, BatchLoader) and isinstance(loader.sampler, list):
        shares = all_gather_objects([index for batch in loader.sampler for index in batch])
        thinned, whole = copy.copy(loader), sorted({index for share in shares for index in share})
        thinned.sampler = own_batches(chosen(whole), len(loader.sampler[0]))
        return thinned
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        return loader
    # Its own workers: those of the training loader may be persistent, and in the middle of an epoch.
    kept = ("collate_fn", "num_workers", "worker_init_fn", "timeout", "multiprocessing_context")
    options: dict[str, Any] = {name: getattr(loader, name) for name in kept} | {"generator": torch.Generator()}
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, batch_size=loader.batch_size, **options)
    if not hasattr(dataset, "__len__"):
        return loader
    indices = chosen(trained_samples(loader, training.num_batches))
    if loader.batch_sampler is not None:
        batch_size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None)
        batch_size = batch_size if isinstance(batch_size, int) else DEFAULT_BATCH_SIZE
        return DataLoader(dataset, batch_sampler=own_batches(indices, batch_size), **options)
    indices = indices[trainer.global_rank :: trainer.world_size]
    # batch_size=None: the data set gets the items of the sampler unchanged, each an index or a batch of them.
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
