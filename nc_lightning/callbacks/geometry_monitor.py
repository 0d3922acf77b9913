"""The geometry monitor: how near the representation is to neural collapse, epoch by epoch."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage, TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.batch import set_name
from nc_lightning.callbacks.lent import Lent
from nc_lightning.callbacks.logged_values import forget_logged
from nc_lightning.callbacks.measurement import averaged_weights, loaders
from nc_lightning.callbacks.measurement.feature_sample import FeatureSample
from nc_lightning.callbacks.measurement.features import Measured, look_like_logits
from nc_lightning.callbacks.measurement.loaders import Source, in_evaluation, test_sources, validation_sources
from nc_lightning.callbacks.measurement.passes import check_batches, measure_sets, undisturbed
from nc_lightning.callbacks.measurement.watchers import PREFIX, wait_for_measurements
from nc_lightning.callbacks.sources import callbacks_of, find_num_classes
from nc_lightning.checks import check_choice, check_count
from nc_lightning.data.preprocess import Preprocess
from nc_lightning.geometry import ClassStatistics, caveats
from nc_lightning.private_apis.lightning import attached_datamodule, can_stop_early
from nc_lightning.reports.tables import losses_of


class GeometryMonitor(Callback):
    """Measure the geometry of the training and validation features, and log it as ``geometry/<set>/<key>``.

    The module is called on inputs and returns features (N, d): a tensor, or the only one in a tuple or dict; in a
    classifier, ``features`` or ``classifier`` say which layer has them. It is in eval mode meanwhile, the trainer in a
    stage of evaluation, also for hooks of batches; the mode of every submodule, BatchNorm's running statistics and all
    random number generators are as before afterwards. The first batch of each set is read and mapped before training,
    or evaluation, starts: what cannot be measured is refused there. The training set comes from the data module's
    ``geometry_dataloader()`` if it has one, without augmentation; else from the training loader's data set, each sample
    once and in order. With ``limit_train_batches`` it is as many samples as an epoch trains on, the same ones each
    time, spread over the whole set; with ``overfit_batches`` it is those batches. These hold for validation and tests
    too. Several validation loaders are the sets ``val``, ``val_1`` and so on.

    A set is looked at twice, first for its class statistics, then for the distances to the class means, which cannot be
    told before these are known. Features of at most `nc_lightning.callbacks.measurement.passes.KEPT_BYTES` are kept for
    the second look, so that a measurement costs one forward pass over each set; those of larger sets are
    computed twice, and memory is C d + d^2 numbers. With several processes each takes its share, and all have the
    values of the whole set; samples that a `DistributedSampler` repeats count once. Held-out samples are classified by
    the centers of the *training* classes where there is a training set. With an `OnlineLinearProbe`, its classifier is
    compared with the class means of the set (``nc3``), and its decisions with those of the nearest center (``nc4``). Of
    a set without labels, all -1, the spectrum alone is measured. An epoch that is not due costs nothing.

    In a fit all sets are measured together at the end of a due epoch, with the weights that a checkpoint holds: the
    averaged ones of `WeightAveraging`. Values are logged through the module, so every logger works, and are in
    ``trainer.callback_metrics`` in that epoch only: `EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` on
    ``geometry/...`` skip the other epochs, and a ``patience`` counts measurements. After each measurement every
    callback that has it is called as ``on_geometry_measured(trainer, pl_module, monitor)``, on all processes.

    Args:
        every_n_epochs: Measure after every n-th epoch, and after the last one.
        num_classes: C; None to take it from the module or the data module.
        features: What to measure of a module that does not return features: the name of a submodule, whose output it
            is, such as ``encoder``, or a callable (module, x) -> z. None for what the module returns, or with a
            ``classifier`` for its input.
        classifier: The linear layer that ``nc3`` and ``nc4`` compare with the class means instead of the probe's: the
            name of a submodule, such as ``fc``, or a module.
        batch: A callable (batch) -> (x, labels) for batches of a form that `nc_lightning.batch.read_batch` does not
            know.
        measures: Which measures the table of ``nc-train`` shows; all of them are logged, and in the report.

    Attributes:
        num_classes: C, once it is found.
        epoch: Number of epochs that were trained when it was measured last.
        results: Latest measurement, by set (``train``, ``val`` or ``test``) and key.
        statistics: The class statistics it was made of, by set; none of a set without labels.
        sample_size: How many training features to keep of a measurement, 0 for none; `TensorBoardDashboard` sets it.
        sample: Those features, with equally many of each class; of several processes each has its own.

    Raises:
        ValueError: If an argument is out of its range, the number of classes is nowhere to be found, a label does not
            fit it, or a feature is NaN, where the message says in which batch; if a callback watches a geometry key
            that is not measured, or watches it by steps.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GeometryMonitor(every_n_epochs=5)], logger=False)
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        num_classes: int | None = None,
        features: str | Callable[..., Any] | None = None,
        classifier: str | Callable[..., Any] | None = None,
        batch: Callable[..., Any] | None = None,
        measures: Literal["headline", "all"] = "headline",
    ) -> None:
        check_count("every_n_epochs", every_n_epochs)
        if num_classes is not None:
            check_count("num_classes", num_classes, at_least=2)
        self.every_n_epochs = every_n_epochs
        check_choice("measures", measures, Literal["headline", "all"])
        self.measures = measures
        self.num_classes = num_classes
        self.sample_size = 0
        self._asked_num_classes = num_classes
        self._measured = Measured(features, classifier, batch)
        self._lent = Lent()
        self._watched: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self.epoch = 0
        self.results: dict[str, dict[str, float]] = {}
        self.statistics: dict[str, ClassStatistics] = {}
        self.sample: FeatureSample | None = None
        self._measured_step = -1
        self._validated_step = -1
        self._warned: set[str] = set()
        self._checked: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier run; find out the number of classes, and that module and data agree on it."""
        of_data = getattr(attached_datamodule(trainer), "num_classes", None)
        of_module = getattr(pl_module, "num_classes", None)
        if of_data is not None and of_module is not None and of_data != of_module:
            raise ValueError(f"num_classes: got {of_module} in the model, expected {of_data}, the classes of the data")
        self._num_classes = find_num_classes(self._asked_num_classes, trainer, pl_module, "GeometryMonitor")
        self.num_classes = self._num_classes
        self._lent.close()
        if stage != "predict":
            self._forget()
        averaged_weights.place_after_averaging(trainer, self)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let callbacks and schedules that watch a geometry key wait; read and map the first batch of each set."""
        self._watched = wait_for_measurements(trainer, self._lent)
        self._checked = set()
        with undisturbed(pl_module):
            self._check_first(trainer, pl_module, validation_sources(trainer))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Map the first batch of training, where no other loader has the training set."""
        self._check_batch(trainer, pl_module, "train", batch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the values of an earlier epoch from the metrics."""
        forget_logged(trainer, PREFIX)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the validation that ends an epoch see averages that are updated once an epoch; or check first batches."""
        if trainer.state.fn == TrainerFn.FITTING:
            averaged_weights.finish_averages(trainer, pl_module)
        else:
            self._check_first(trainer, pl_module, validation_sources(trainer))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Map the first batch of a set that was not checked before, where only validation runs."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._check_batch(trainer, pl_module, set_name("val", dataloader_idx), batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure with the validation sets where only validation runs."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._measure_and_log(trainer, pl_module, validation_sources(trainer))
        elif not trainer.sanity_checking:
            self._validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure all sets at the end of a due epoch."""
        if self._due(trainer):
            self.epoch = trainer.current_epoch + 1
            self._measure_and_log(trainer, pl_module, validation_sources(trainer))
            keys = self.by_key().keys()
            for key in self._watched:
                if key not in keys:
                    there = sorted(keys)
                    raise ValueError(f"monitor: got {key!r}, which is not measured here, expected one of {there}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure what training has ended with if its last epoch was not due, or its weights were replaced."""
        replaced = averaged_weights.weights_change_at_end(trainer, pl_module)
        if trainer.global_step > 0 and (replaced or self._measured_step != trainer.global_step):
            self._validated_step = -1 if replaced else self._validated_step
            self.epoch = trainer.current_epoch
            self._measure(trainer, pl_module, validation_sources(trainer))
            for metrics in (trainer.callback_metrics, trainer.logged_metrics):
                metrics.update({key: torch.tensor(value) for key, value in self.by_key().items()})
            for logger in trainer.loggers:
                logger.log_metrics(self.by_key(), step=trainer.global_step)
            self._tell(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read and map the first batches."""
        self._check_first(trainer, pl_module, test_sources(trainer))

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Map the first batch of a set that was not checked before."""
        self._check_batch(trainer, pl_module, set_name("test", dataloader_idx), batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure with the test sets."""
        self._measure_and_log(trainer, pl_module, test_sources(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the callbacks that watch a geometry key."""
        self._lent.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the callbacks that watch a geometry key."""
        self._lent.close()

    def by_key(self) -> dict[str, float]:
        """The latest measurement by the keys that it is logged with, ``geometry/<set>/<key>``."""
        return {f"geometry/{name}/{key}": v for name, values in self.results.items() for key, v in values.items()}

    def losses(self, trainer: Trainer) -> dict[str, float]:
        """Return the logged losses of the latest measurement's epoch: in a fit, those of its own weights only."""
        losses = losses_of(trainer.callback_metrics)
        if trainer.state.fn == TrainerFn.FITTING and self._validated_step != self._measured_step:
            losses = {key: value for key, value in losses.items() if not key.startswith("loss/val")}
        return losses

    def _check_first(self, trainer: Trainer, pl_module: LightningModule, held_out: dict[str, list[Source]]) -> None:
        """Read and map the first batch of each set, except where a loop is reading its loader."""
        with undisturbed(pl_module):
            sets = {"train": loaders.own_training_sources(trainer), **held_out}
            # As in Lightning's own sanity check.
            with in_evaluation(trainer, RunningStage.SANITY_CHECKING):
                for name, sources in sets.items():
                    unread = [source for source in sources if not loaders.is_being_read(trainer, name, source)]
                    first = [source._replace(limit=min(source.limit, 1)) for source in unread]
                    if first:
                        self._check(pl_module, name, loaders.features(trainer, pl_module, first, self._measured))

    def _check_batch(self, trainer: Trainer, pl_module: LightningModule, name: str, batch: Any) -> None:
        """Map a batch of a set that was not checked before."""
        if name in self._checked:
            return
        batches = loaders.single_batches(trainer, batch) if name == "train" else [batch]
        with undisturbed(pl_module):
            mapped = (loaders.batch_features(trainer, pl_module, one, self._measured) for one in batches)
            self._check(pl_module, name, mapped)

    def _check(self, pl_module: LightningModule, name: str, batches: Iterable[Any]) -> None:
        self._checked.add(name)
        width = check_batches(name, batches, pl_module, self._num_classes, self._measured)
        self._warn_of_logits(pl_module, width)

    def _warn_of_logits(self, pl_module: LightningModule, width: int | None) -> None:
        chosen = self._measured.features is not None or self._measured.classifier is not None
        ours = isinstance(getattr(pl_module, "preprocess", None), Preprocess)  # an objective, whose forward returns z
        if width is None or chosen or ours or "logits" in self._warned:
            return
        if (advice := look_like_logits(pl_module, width, self._num_classes)) is not None:
            self._warned.add("logits")
            rank_zero_warn(advice)

    def _due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        stops = trainer.should_stop and can_stop_early(trainer)
        ends = stops or epoch == trainer.max_epochs or 0 <= trainer.max_steps <= trainer.global_step
        return epoch % self.every_n_epochs == 0 or ends

    def _measure_and_log(self, trainer: Trainer, pl_module: LightningModule, held_out: dict[str, list[Source]]) -> None:
        self._measure(trainer, pl_module, held_out)
        pl_module.log_dict(self.by_key(), batch_size=1, sync_dist=True)
        self._tell(trainer, pl_module)

    def _tell(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in callbacks_of(trainer):
            if hasattr(callback, "on_geometry_measured"):
                callback.on_geometry_measured(trainer, pl_module, self)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, held_out: dict[str, list[Source]]) -> None:
        with undisturbed(pl_module):
            sets = {"train": loaders.training_sources(trainer), **held_out}
        with averaged_weights.evaluated_weights(trainer, pl_module), in_evaluation(trainer, RunningStage.VALIDATING):
            measured = measure_sets(sets, trainer, pl_module, self._num_classes, self.sample_size, self._measured)
        self.results, self.statistics, self.sample = measured
        self._measured_step = trainer.global_step
        for name, stats in self.statistics.items():
            self._warn_of_logits(pl_module, stats.feature_dim)
            if caveats(stats) and name not in self._warned:
                self._warned.add(name)
                rank_zero_warn(f"geometry of the {name} set: {caveats(stats)}")
