"""The geometry monitor: how near the representation is to neural collapse, epoch by epoch."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from nc_lightning.callbacks.feature_sample import FeatureSample
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.callbacks.random_states import random_states, set_random_states
from nc_lightning.callbacks.sources import find_num_classes
from nc_lightning.data.views import UNLABELLED, concatenate_views
from nc_lightning.geometry import (
    ClassStatistics,
    caveats,
    nc3,
    nc4_mismatches,
    ncc_accuracy,
    statistics_measures,
    within_class_variation,
)
from nc_lightning.geometry.centres import CentreDistances
from nc_lightning.geometry.checks import check_count
from nc_lightning.geometry.measures import LABEL_FREE_MEASURES
from nc_lightning.processes import of_all_processes, own_samples

DEFAULT_BATCH_SIZE = 256
"""Batch size of a measurement where the training loader does not name one."""


class GeometryMonitor(Callback):
    """Measure the geometry of the training and validation features, and log it as ``geometry/<set>/<key>``.

    The module is called on inputs and must return features (N, d). It is in eval mode meanwhile, and the mode of every
    submodule, BatchNorm's running statistics and all random number generators are as before when it is done. The
    training set comes from the data module's ``geometry_dataloader()`` if it has one, without augmentation; else from
    the training loader's data set, each sample once and in order.

    Features are streamed, never kept: memory is C d + d^2 numbers. With several processes each takes its share, and all
    have the values of the whole set; samples that a `DistributedSampler` repeats count once. A set is read twice, first
    for its class statistics, then for the distances to the class means, which cannot be told before these are known.
    Held-out samples are classified by the centres of the *training* classes where there is a training set. With an
    `OnlineLinearProbe`, its classifier is compared with the class means of the set (``nc3``), and its decisions with
    those of the nearest centre (``nc4``). Of a set without labels, all -1, the spectrum alone is measured. An epoch
    that is not due costs nothing.

    Values are logged through the module, so `ModelCheckpoint(monitor="geometry/val/nc1")` and every logger work. After
    each measurement every callback that has it is called as ``on_geometry_measured(trainer, pl_module, monitor)``, on
    all processes.

    Args:
        every_n_epochs: Measure after every n-th epoch, and after the last one.
        num_classes: C; None to take it from the module or the data module.

    Attributes:
        results: Latest measurement, by set (``train``, ``val`` or ``test``) and key.
        statistics: The class statistics it was made of, by set; none of a set without labels.
        sample_size: How many training features to keep of a measurement, 0 for none; `TensorBoardDashboard` sets it.
        sample: Those features, with equally many of each class; of several processes each has its own.

    Raises:
        ValueError: If an argument is out of its range, the number of classes is nowhere to be found, a label does not
            fit it, or a feature is NaN; the message says in which batch.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GeometryMonitor(every_n_epochs=5)], logger=False)
    """

    def __init__(self, every_n_epochs: int = 1, num_classes: int | None = None) -> None:
        check_count("every_n_epochs", every_n_epochs)
        if num_classes is not None:
            check_count("num_classes", num_classes, at_least=2)
        self.every_n_epochs = every_n_epochs
        self.num_classes = num_classes
        self.results: dict[str, dict[str, float]] = {}
        self.statistics: dict[str, ClassStatistics] = {}
        self.sample_size = 0
        self.sample: FeatureSample | None = None
        self._measured_step = -1
        self._warned: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out the number of classes, and that module and data agree on it."""
        of_data = getattr(getattr(trainer, "datamodule", None), "num_classes", None)
        of_module = getattr(pl_module, "num_classes", None)
        if of_data is not None and of_module is not None and of_data != of_module:
            raise ValueError(f"num_classes: got {of_module} in the model, expected {of_data}, the classes of the data")
        self.num_classes = find_num_classes(self.num_classes, trainer, pl_module, "GeometryMonitor")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the measurements of an earlier run."""
        self.results, self.statistics, self.sample, self._warned = {}, {}, None, set()
        self._measured_step = -1

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure with the validation set: at the end of a due epoch, or whenever only validation runs."""
        if trainer.sanity_checking or (trainer.state.fn == TrainerFn.FITTING and not self._due(trainer)):
            return
        self._measure_and_log(trainer, pl_module, {"val": trainer.val_dataloaders})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure at the end of a due epoch in which no validation ran."""
        if self._due(trainer) and self._measured_step != trainer.global_step:
            self._measure_and_log(trainer, pl_module, {})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what training has ended with if it stopped in mid-epoch, by ``max_steps`` or ``max_time``."""
        if self._measured_step != trainer.global_step > 0:
            self._measure(trainer, pl_module, {"val": trainer.val_dataloaders})
            for logger in trainer.loggers:
                logger.log_metrics(self.by_key(), step=trainer.global_step)
            self._tell(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure with the test set."""
        self._measure_and_log(trainer, pl_module, {"test": trainer.test_dataloaders})

    def _due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        return epoch % self.every_n_epochs == 0 or epoch == trainer.max_epochs or trainer.should_stop

    def _measure_and_log(self, trainer: Trainer, pl_module: LightningModule, held_out: dict[str, Any]) -> None:
        self._measure(trainer, pl_module, held_out)
        pl_module.log_dict(self.by_key(), batch_size=1, sync_dist=True)
        self._tell(trainer, pl_module)

    def by_key(self) -> dict[str, float]:
        """The latest measurement by the keys that it is logged with, ``geometry/<set>/<key>``."""
        return {f"geometry/{name}/{key}": v for name, values in self.results.items() for key, v in values.items()}

    def _tell(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if hasattr(callback, "on_geometry_measured"):
                callback.on_geometry_measured(trainer, pl_module, self)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, held_out: dict[str, Any]) -> None:
        loaders = {"train": _training_loader(trainer), **held_out}
        with _undisturbed(pl_module):
            self.results = self._read({k: v for k, v in loaders.items() if v is not None}, trainer, pl_module)
        self._measured_step = trainer.global_step

    def _read(
        self, loaders: dict[str, Any], trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, dict[str, float]]:
        results: dict[str, dict[str, float]] = {}
        centres: ClassStatistics | None = None
        self.statistics, self.sample = {}, None
        for name, loader in loaders.items():
            stats = self._statistics(name, _features(trainer, pl_module, loader), pl_module.device)
            if stats is None:
                continue
            if stats.num_classes == 1:
                values = statistics_measures(stats)
                results[name] = {key: float(values[key]) for key in LABEL_FREE_MEASURES}
                continue
            self.statistics[name] = stats
            if caveats(stats) and name not in self._warned:
                self._warned.add(name)
                rank_zero_warn(f"geometry of the {name} set: {caveats(stats)}")
            centres = centres or stats
            own, given = CentreDistances(stats), CentreDistances(centres)
            classifier, disagree = _classifier(trainer, stats), stats.counts.new_zeros(1)
            for _, z, labels, _ in _features(trainer, pl_module, loader):
                own.update(z, labels)
                if centres is not stats:
                    given.update(z, labels)
                if classifier is not None:
                    disagree += nc4_mismatches(z, classifier.weight, classifier.bias, given).sum()
            _add_up(own.counts, own.distances, own.correct, disagree)
            _add_up(given.counts, given.distances, given.correct)
            values = statistics_measures(stats)
            values["within_class_variation"] = within_class_variation(own)
            values["ncc_accuracy"] = ncc_accuracy(own if centres is stats else given)
            if classifier is not None:
                values |= {"nc3": nc3(stats, classifier.weight), "nc4": disagree[0] / stats.num_samples}
            results[name] = {key: float(value) for key, value in values.items()}
        return results

    def _statistics(
        self, name: str, features: Iterator[tuple[int, Tensor, Tensor, Tensor]], device: torch.device
    ) -> ClassStatistics | None:
        stats = None
        for index, z, labels, x in features:
            try:
                if stats is None:
                    assert self.num_classes is not None
                    unlabelled = bool((labels == UNLABELLED).all())
                    stats = ClassStatistics(1 if unlabelled else self.num_classes, z.shape[-1], z.device)
                stats.update(z, labels - UNLABELLED if stats.num_classes == 1 else labels)
                if name == "train" and self.sample_size > 0 and stats.num_classes > 1:
                    if self.sample is None:
                        self.sample = FeatureSample(stats.num_classes, self.sample_size)
                    self.sample.update(z, labels, x)
            except (TypeError, ValueError) as error:
                raise ValueError(f"geometry of the {name} set, batch {index}: {error}") from error
        shares = of_all_processes(None if stats is None else stats.to("cpu"))
        if len(shares) == 1:
            return stats
        known = [share for share in shares if share is not None]
        return reduce(ClassStatistics.merge, known).to(device) if known else None


def _features(
    trainer: Trainer, pl_module: LightningModule, loaders: Any
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """Yield (batch index, features, labels, inputs) of one loader, or of several one after another."""
    limit: int | None = getattr(trainer, "fast_dev_run", False) or None
    index = itertools.count()
    for loader in loaders if isinstance(loaders, (list, tuple)) else [loaders]:
        left = own_samples(loader)
        for batch in loader:
            number = next(index)
            if number == limit:
                return
            batch = trainer.strategy.batch_to_device(batch, pl_module.device)
            x, labels, _ = concatenate_views(batch)
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                z = pl_module(trainer.precision_plugin.convert_input(x))
            yield number, z[:left], labels[:left], x[:left]
            left = None if left is None else max(0, left - len(labels))


def _add_up(*shares: Tensor) -> None:
    """Add what the other processes have counted, in place."""
    for share, *all_shares in zip(shares, *of_all_processes([share.cpu() for share in shares]), strict=True):
        share.copy_(torch.stack(all_shares).sum(0))


def _classifier(trainer: Trainer, stats: ClassStatistics) -> torch.nn.Linear | None:
    """The online probe's classifier, where there is one that sees the same features."""
    probes = (callback for callback in getattr(trainer, "callbacks", []) if isinstance(callback, OnlineLinearProbe))
    classifier = next((probe.classifier for probe in probes), None)
    if classifier is None or classifier.weight.shape != stats.means.shape:
        return None
    return classifier


def _training_loader(trainer: Trainer) -> Any:
    """The training set without augmentation where the data module offers it, else the training data in order."""
    datamodule: Any = getattr(trainer, "datamodule", None)
    if hasattr(datamodule, "geometry_dataloader"):
        return datamodule.geometry_dataloader()
    loader = trainer.train_dataloader
    if not isinstance(loader, DataLoader):
        return loader
    batch_size = loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or DEFAULT_BATCH_SIZE
    dataset = loader.dataset
    if trainer.world_size > 1:
        dataset = Subset(dataset, range(trainer.global_rank, len(dataset), trainer.world_size))  # type: ignore[arg-type]
    return DataLoader(dataset, batch_size=batch_size, collate_fn=loader.collate_fn, num_workers=loader.num_workers)


@contextmanager
def _undisturbed(module: LightningModule) -> Iterator[None]:
    """Put a module into eval mode; leave every mode and every random number generator as it was."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    states = random_states(module.device)
    module.eval()
    try:
        yield
    finally:
        set_random_states(states, module.device)
        for submodule, training in modes:
            submodule.training = training
