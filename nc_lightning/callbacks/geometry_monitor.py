"""Geometry monitor: the distance of the representation from neural collapse, epoch by epoch."""

from collections.abc import Callable, Sequence
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
from nc_lightning.callbacks.measurement.features import Measured
from nc_lightning.callbacks.measurement.first_batches import FirstBatches
from nc_lightning.callbacks.measurement.layers import OUTPUT, check_layers
from nc_lightning.callbacks.measurement.loaders import Source, in_evaluation, test_sources, validation_sources
from nc_lightning.callbacks.measurement.passes import measure_sets, undisturbed
from nc_lightning.callbacks.measurement.readers import readers_of
from nc_lightning.callbacks.measurement.watchers import PREFIXES, nearest_keys, wait_for_measurements
from nc_lightning.callbacks.sources import callbacks_of, find_num_classes
from nc_lightning.checks import check_choice, check_count, separated_names
from nc_lightning.geometry import ClassStatistics, Ideal, caveats, optimal_ideals
from nc_lightning.private_apis.lightning import attached_datamodule, can_stop_early
from nc_lightning.reports.tables import losses_of


class GeometryMonitor(Callback):
    """Measure the geometry of the training and validation features, and log it as ``geometry/<set>/<key>``.

    The module is called in eval mode and must return features (N, d): a tensor, or the only one in a tuple or dict. For
    a classifier, ``features`` or ``classifier`` names the layer. Afterwards the mode of every submodule, BatchNorm's
    running statistics and all random generators are restored. The training set comes without augmentation from the data
    module's ``geometry_dataloader()``, or else from the data set of the training loader, each sample once and in order.
    ``limit_train_batches`` reduces it to as many samples as an epoch trains on, spread over the set and the same ones
    each time; ``overfit_batches`` reduces it to those batches. Validation loaders are the sets ``val``, ``val_1`` and
    so on; held-out samples are classified by the centers of the *training* classes if they were measured. For a set
    without labels, all -1, only the spectrum is measured. Each set takes one forward pass, or two if its features
    exceed `nc_lightning.callbacks.measurement.passes.KEPT_BYTES`, and memory for C d + d^2 numbers. Processes share the
    work, and all get the values of the whole set; samples that `DistributedSampler` duplicates count once.

    ``layers`` are measured in the same passes, by forward hooks, and logged as ``geometry/<layer>/<set>/<key>``; maps
    are averaged over positions, and tokens over the sequence. They have every measure except those that belong to the
    output: ``nc3``, ``nc4`` and ``distance_to_optimum``. Compiled modules run uncompiled in these passes. The memory
    above is that of each layer, whose d is at most 4,096.

    The first batch of each set is checked before training or evaluation starts; then, as in a measurement, batch hooks
    see an evaluation stage. A fit measures at the end of each due epoch, with the weights that a checkpoint holds: the
    averaged ones of `WeightAveraging`. Values are logged through the module, so every logger works, and stay in
    ``trainer.callback_metrics`` for that epoch only: `EarlyStopping`, `ModelCheckpoint` and `ReduceLROnPlateau` on
    ``geometry/...`` skip the other epochs, so that ``patience`` counts measurements. With an `OnlineLinearProbe`, its
    classifier is compared with the class means (``nc3``), and its decisions with those of the nearest center (``nc4``).
    If the module has an attribute ``optimal_gram``, the Gram matrix of the class means at the minimum of its loss, the
    distance from it is measured too (``distance_to_optimum``; NaN for sets without all classes of the training set).
    After each measurement, ``on_geometry_measured(trainer, pl_module, monitor)`` is called on every callback that
    defines it, on all processes.

    Args:
        every_n_epochs: Number of epochs between measurements; the last epoch is always measured.
        num_classes: C; None to take it from the module or the data module.
        features: Name of the submodule whose output is measured, such as ``encoder``, or a callable (module, x) -> z.
            None for the output of the module or, with a ``classifier``, for the classifier's input.
        classifier: Linear layer that ``nc3`` and ``nc4`` compare with the class means instead of the probe's: a module,
            or the name of a submodule such as ``fc``.
        batch: Callable (batch) -> (x, labels) for batch formats that `nc_lightning.batch.read_batch` does not know.
        measures: Measures that the table of ``nc-train`` shows; all of them are logged, and in the report.
        layers: Names of submodules to measure as well, such as ``encoder`` or ``projector.0``; as a list or separated
            by commas.

    Attributes:
        num_classes: C, once it is known.
        epoch: Number of epochs that had been trained at the latest measurement.
        results: Latest measurement, by set (``train``, ``val`` or ``test``) and key.
        by_layer: Latest measurement by layer in the order of execution, the last being ``z``; by set, and by key.
        feature_dims: Dimension d of each layer.
        statistics: Class statistics of the latest measurement, by set; sets without labels have none.
        sample_size: Number of training features to keep of a measurement, 0 for none; `TensorBoardDashboard` sets it.
        sample: Those features, equally many of each class; every process has its own.

    Raises:
        ValueError: If an argument is out of its range, the number of classes is unknown, a label does not fit it, a
            feature is NaN (the message names the batch), or a callback watches a geometry key that is not measured, or
            watches one by steps.

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
        layers: Sequence[str] | str = (),
    ) -> None:
        check_count("every_n_epochs", every_n_epochs)
        if num_classes is not None:
            check_count("num_classes", num_classes, at_least=2)
        self.every_n_epochs = every_n_epochs
        check_choice("measures", measures, Literal["headline", "all"])
        names = separated_names("layers", layers) if layers else ()
        if OUTPUT in names:
            raise ValueError(f"layers: got {OUTPUT!r}, the output of the module, which is measured in any case")
        self.measures = measures
        self.num_classes = num_classes
        self.sample_size = 0
        self._asked_num_classes = num_classes
        self._measured = Measured(features, classifier, batch, names)
        self._lent = Lent()
        self._watched: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self.epoch = 0
        self.results: dict[str, dict[str, float]] = {}
        self.by_layer: dict[str, dict[str, dict[str, float]]] = {}
        self.feature_dims: dict[str, int] = {}
        self.statistics: dict[str, ClassStatistics] = {}
        self.sample: FeatureSample | None = None
        self._measured_step = -1
        self._validated_step: int | None = None  # also where other processes trained
        self._read: dict[str, float] = {}
        self._warned: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop the results of an earlier run; find the number of classes, on which module and data must agree."""
        of_data = getattr(attached_datamodule(trainer), "num_classes", None)
        of_module = getattr(pl_module, "num_classes", None)
        if of_data is not None and of_module is not None and of_data != of_module:
            raise ValueError(f"num_classes: got {of_module} in the model, expected {of_data}, the classes of the data")
        self._num_classes = find_num_classes(self._asked_num_classes, trainer, pl_module, "GeometryMonitor")
        self.num_classes = self._num_classes
        self._first = FirstBatches(self._measured, self._num_classes)
        self._lent.close()
        if stage != "predict":
            self._forget()
        averaged_weights.place_after_averaging(trainer, self)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse layers that the module does not have."""
        check_layers("layers", pl_module, self.layers)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make watchers of geometry keys wait for measurements; check the first batch of each set."""
        self._watched = wait_for_measurements(trainer, self._lent, self.layers)
        self._first.restart()
        loaders.tell_of_streams(trainer)
        with undisturbed(pl_module):
            self._first.check_unread(trainer, pl_module, validation_sources(trainer))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Check the first training batch, if no other loader provides the training set."""
        self._first.check(trainer, pl_module, "train", batch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the values of the previous epoch from the metrics."""
        forget_logged(trainer, *PREFIXES)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Update epoch-wise weight averages before validation; outside a fit, check the first batches."""
        if trainer.state.fn == TrainerFn.FITTING:
            averaged_weights.finish_averages(trainer, pl_module)
        else:
            self._first.check_unread(trainer, pl_module, validation_sources(trainer))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Check the first batch of a set that is not yet checked, outside a fit."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._first.check(trainer, pl_module, set_name("val", dataloader_idx), batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, outside a fit; in a fit, note that the current weights were validated."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._measure_and_log(trainer, pl_module, validation_sources(trainer))
        elif not trainer.sanity_checking:
            self._validated_step = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure all sets if the epoch is due."""
        if self._due(trainer):
            self.epoch = trainer.current_epoch + 1
            self._measure_and_log(trainer, pl_module, validation_sources(trainer))
            keys = self.by_key().keys()
            for key in self._watched:
                if key not in keys and key.startswith("geometry/"):
                    near = nearest_keys(key, keys)
                    raise ValueError(f"monitor: got {key!r}, which is not measured here, expected a key such as {near}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the final weights if the last epoch was not due, or the weights were replaced since."""
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
        """Check the first batch of each test set."""
        self._first.check_unread(trainer, pl_module, test_sources(trainer))

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Check the first batch of a test set that is not yet checked."""
        self._first.check(trainer, pl_module, set_name("test", dataloader_idx), batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the test sets, and the training set if there is one."""
        self._measure_and_log(trainer, pl_module, test_sources(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the callbacks that watch a geometry key."""
        self._lent.close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the callbacks that watch a geometry key."""
        self._lent.close()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that are measured next to the module's own features."""
        return self._measured.layers

    def by_key(self) -> dict[str, float]:
        """Return the latest measurement by its logged keys, ``geometry/<set>/<key>``, and what others read from it."""
        measured = {
            f"geometry/{name if layer == OUTPUT else f'{layer}/{name}'}/{key}": value
            for layer in (OUTPUT, *self.layers)
            for name, values in self.by_layer.get(layer, {}).items()
            for key, value in values.items()
        }
        return measured | self._read

    def losses(self, trainer: Trainer) -> dict[str, float]:
        """Return the losses logged in the latest epoch; in a fit, only those of the current weights."""
        losses = losses_of(trainer.callback_metrics)
        if trainer.state.fn == TrainerFn.FITTING and self._validated_step not in (None, trainer.global_step):
            losses = {key: value for key, value in losses.items() if not key.startswith("loss/val")}
        return losses

    def own_ideals(self, pl_module: LightningModule) -> dict[str, Ideal]:
        """Return the ideals at the minimum of the module's loss; none where that is neural collapse or unknown."""
        gram = self._measured.optimal_gram(pl_module)
        return {} if gram is None else optimal_ideals(gram, getattr(pl_module, "feature_dim", len(gram) - 1))

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
            readers = readers_of(trainer, self.epoch)
            args = self._num_classes, self.sample_size, self._measured, readers
            measured = measure_sets(sets, trainer, pl_module, *args)
        self.by_layer, self.feature_dims, self.statistics, self.sample, self._read = measured
        self.results = self.by_layer.get(OUTPUT, {})
        self._measured_step = trainer.global_step
        for name, stats in self.statistics.items():
            self._first.warn_of_logits(pl_module, stats.feature_dim)
            if caveats(stats) and name not in self._warned:
                self._warned.add(name)
                rank_zero_warn(f"geometry of the {name} set: {caveats(stats)}")
