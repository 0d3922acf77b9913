"""Dashboard of the measured geometry: charts, figures, projector, sortable table and report."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from matplotlib.figure import Figure
from torch.utils.tensorboard.summary import hparams

from nc_lightning.callbacks.dashboard import image_loggers, overview
from nc_lightning.callbacks.dashboard.charts import dashboard_layout
from nc_lightning.callbacks.dashboard.figures import geometry_figures, measured_cosines, no_collection, write_pdfs
from nc_lightning.callbacks.dashboard.projector import write_projector
from nc_lightning.callbacks.dashboard.settings import configuration, run_settings
from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.lent import Lent
from nc_lightning.callbacks.sources import callbacks_of, find_num_classes, run_folder
from nc_lightning.checks import check_count
from nc_lightning.geometry import class_mean_spectrum
from nc_lightning.geometry.measures import HEADLINES
from nc_lightning.io.atomic import replace_file, unused_path
from nc_lightning.plots import to_png
from nc_lightning.private_apis.lightning import HP_METRIC, attached_datamodule
from nc_lightning.private_apis.torch import add_summary
from nc_lightning.reports.curves import SETS
from nc_lightning.reports.html import report_html
from nc_lightning.reports.record import FILE_NAME, RunRecord
from nc_lightning.reports.tables import accuracies_of

FINAL_METRICS = (
    *(f"geometry/train/{key}" for key in HEADLINES),
    *(f"geometry/val/{key}" for key in ("nc1", "effective_rank", "ncc_accuracy")),
    "geometry/train/distance_to_optimum",  # measured where the minimum of the loss is not neural collapse
    "loss/optimality_gap",
    "probe/val_accuracy",
    "knn/val",
)
"""Metrics for sorting runs in the HPARAMS tab."""


class TensorBoardDashboard(Callback):
    """Show the geometry of training: charts, figures, features, a table of runs, and a report in the run's folder.

    All is drawn from the measurements of the Trainer's `GeometryMonitor`, without another pass over the data:

    - TIME SERIES: the values that decide, in the group ``Overview``, which comes first;
    - CUSTOM SCALARS: NC1 to NC4, the paper's conditions, effective ranks, the loss with its bound, and the effect of
      hardness on the negatives, with a chart each for training and validation;
    - IMAGES: cosines of the class means, their singular values, features next to the simplex, similarities, and the
      path to neural collapse, every n epochs and at the end;
    - PROJECTOR: at the end, a sample of the features with class names and images;
    - HPARAMS: at the end, objective, hardness and other settings against the final geometry. Lightning's placeholder
      ``hp_metric`` is switched off;
    - ``report.html`` in the run's folder, with ``report.json``, from which ``nc-report`` can rebuild it.

    Scalars reach every logger, figures those that accept images (TensorBoard, W&B, MLflow); charts, projector and table
    need TensorBoard, and carry the prefix of each logger. Only rank 0 draws. An error here becomes a warning, once per
    cause, and training continues; under ``fast_dev_run`` nothing is written.

    Args:
        every_n_epochs: Number of epochs between figures, which are also drawn at the end of training.
        max_points: Largest number of features shown, equally many of each class.

    Attributes:
        report: Path of the report of the latest fit, or None.

    Raises:
        ValueError: If an argument is out of its range, or the trainer has no `GeometryMonitor`.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> callbacks = [GeometryMonitor(every_n_epochs=5), TensorBoardDashboard(every_n_epochs=20)]
        >>> trainer = Trainer(callbacks=callbacks, logger=False)
    """

    def __init__(self, every_n_epochs: int = 100, max_points: int = 2000) -> None:
        check_count("every_n_epochs", every_n_epochs)
        check_count("max_points", max_points)
        self.every_n_epochs = every_n_epochs
        self.max_points = max_points
        self.report: Path | None = None
        self._history: list[dict[str, float]] = []
        self._losses: list[dict[str, float]] = []
        self._record: RunRecord | None = None
        self._record_path = Path(FILE_NAME)
        self._has_charts = False
        self._drawn: tuple[int, int] = (0, -1)
        self._warned: set[str] = set()
        self._lent = Lent()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Request a sample of features from the monitor; switch off Lightning's placeholder metric."""
        self._lent.close()
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            if hasattr(logger, HP_METRIC):
                self._lent.lend(logger, HP_METRIC, False)
        if stage != "fit":
            return
        monitor = _monitor(trainer)
        self._lent.lend(monitor, "sample_size", max(monitor.sample_size, self.max_points))
        self.report, self._record, self._drawn, self._warned = None, None, (0, -1), set()
        self._history, self._losses = [], []

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements and losses so far, so that a resumed run shows its whole path."""
        return {"history": self._history, "losses": self._losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the measurements and losses so far."""
        self._history = list(state_dict["history"])
        self._losses = list(state_dict.get("losses", []))  # checkpoints of earlier versions have none

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the file names of the report, and record the configuration."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = run_folder(trainer)
        self._drawn = (trainer.current_epoch, -1)
        self._figures: dict[str, Figure] = {}
        if not trainer.is_global_zero:
            self._history, self._losses = [], []  # a checkpoint has those of rank 0
            return
        self._record_path = unused_path(folder / FILE_NAME)
        num_classes = find_num_classes(_monitor(trainer).num_classes, trainer, pl_module, "GeometryMonitor")
        feature_dim = getattr(pl_module, "feature_dim", num_classes - 1)
        name = f"{type(pl_module).__name__}, {folder.name}"
        self._record = RunRecord(name, num_classes, feature_dim, history=self._history, losses=self._losses)
        self._has_charts = False
        with self._only_a_warning(trainer, "configuration in the report"):
            self._record.config = configuration(trainer, pl_module, folder)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lay out the charts after the first step, from which on the minimum of the loss is known."""
        if self._record is None or self._has_charts:
            return
        self._has_charts = True
        sizes, loss = (self._record.num_classes, self._record.feature_dim), getattr(pl_module, "loss", None)
        with self._only_a_warning(trainer, "charts"):
            own = _monitor(trainer).own_ideals(pl_module)
            for writer, prefix in _writers(trainer):
                writer.add_custom_scalars(dashboard_layout(*sizes, loss, callbacks_of(trainer), prefix, own))
            if trainer.loggers and not any(image_loggers.takes_figures(logger) for logger in trainer.loggers):
                names = ", ".join(type(logger).__name__ for logger in trainer.loggers)
                rank_zero_info(f"TensorBoardDashboard: {names} accepts no charts or figures; the report has them")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove loggers that a full disk has broken, before Lightning logs the validation to them."""
        if self._record is not None and trainer.state.fn == TrainerFn.FITTING:
            with self._only_a_warning(trainer, "charts"):
                for writer, _ in _writers(trainer):
                    image_loggers.check_writable(writer, trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the losses of the epoch, also where the geometry is not measured."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        losses = _monitor(trainer).losses(trainer)  # on every process, as below
        if self._record is not None:
            self._losses.append({"epoch": trainer.current_epoch + 1.0, **losses})

    def on_geometry_measured(self, trainer: Trainer, pl_module: LightningModule, monitor: GeometryMonitor) -> None:
        """Record the measurement with the losses of the epoch, and draw it if due."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        # On every process: only now does Lightning average over all of them.
        losses = monitor.losses(trainer) | accuracies_of(trainer.callback_metrics)
        if self._record is None:
            return
        when = {"epoch": float(monitor.epoch), "step": float(trainer.global_step)}
        self._history.append({**when, **monitor.by_key(), **losses})
        with self._only_a_warning(trainer, "overview"):
            # Lightning logs what is measured at the end of an epoch at the step before.
            step = trainer.global_step - (monitor.epoch > trainer.current_epoch)
            overview.write_overview(_writers(trainer), self._history[-1], step)
        if monitor.epoch - self._drawn[0] >= self.every_n_epochs:
            self._draw(self._record, trainer, pl_module, monitor)
            with self._only_a_warning(trainer, "record of the run"):
                self._record.write(self._record_path)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the final state, and write features, table and report."""
        accuracies = accuracies_of(trainer.callback_metrics)
        if self._record is None:
            return
        if self._history and self._history[-1]["step"] == trainer.global_step:
            self._history[-1] |= accuracies  # the probe may log that of training after the measurement
        monitor = _monitor(trainer)
        if self._drawn[1] != trainer.global_step:
            self._draw(self._record, trainer, pl_module, monitor)
        with self._only_a_warning(trainer, "projector"):
            if monitor.sample is not None:
                for writer, prefix in _writers(trainer):
                    write_projector(writer, monitor.sample, _class_names(trainer), trainer.global_step, prefix)
        with self._only_a_warning(trainer, "table of runs"):
            final = {key: v for key in FINAL_METRICS if (v := self._record.latest("").get(key)) is not None}
            settings = self._record.described()
            settings["resumed_from"] = settings["resumed_from"] or "-"  # the first run decides which columns there are
            for writer, prefix in _writers(trainer):
                for summary in hparams(settings, {prefix + key: v for key, v in final.items()}):
                    add_summary(writer, summary, trainer.global_step)
                writer.flush()
        self._write_report(self._record, trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Write a report of the measurements so far, also when training is interrupted."""
        self._lent.close()
        if self._record is not None and self._history:
            if self._drawn[1] != self._history[-1]["step"]:
                self._draw(self._record, trainer, pl_module, _monitor(trainer))
            self._write_report(self._record, trainer)

    def _write_report(self, record: RunRecord, trainer: Trainer) -> None:
        with self._only_a_warning(trainer, "report"):
            path = self._record_path.with_suffix(".html")
            record.write(self._record_path)
            replace_file(path, report_html([record]))
            self.report = path
        with self._only_a_warning(trainer, "figures for papers"):
            number = self._record_path.stem.removeprefix("report")
            write_pdfs(self._figures, self._record_path.with_name(f"figures{number}"))
        self._record, self._figures = None, {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the monitor and the loggers."""
        self._lent.close()

    def _draw(self, record: RunRecord, trainer: Trainer, pl_module: LightningModule, monitor: GeometryMonitor) -> None:
        self._drawn = (monitor.epoch, trainer.global_step)
        figures: dict[str, bytes] = {}
        with self._only_a_warning(trainer, "figures"):
            record.settings = run_settings(trainer, pl_module)
            record.own_ideals = monitor.own_ideals(pl_module)
            record.layers = {layer: monitor.feature_dims[layer] for layer in monitor.by_layer}
            if "train" in monitor.statistics:
                record.spectrum = class_mean_spectrum(monitor.statistics["train"]).tolist()
            paths = {name: path for name in SETS if (path := record.path(name))}
            names = _class_names(trainer)
            self._figures = geometry_figures(monitor, getattr(pl_module, "loss", None), paths, names)
            with no_collection():
                figures = {name: to_png(figure) for name, figure in self._figures.items()}
            record.figures, record.cosines = figures, measured_cosines(monitor, names)
        for logger in trainer.loggers:
            with self._only_a_warning(trainer, f"figures for {type(logger).__name__}"):
                tagged = {f"figures/{name}": png for name, png in figures.items()}
                image_loggers.log_figures(logger, tagged, trainer.global_step)

    @contextmanager
    def _only_a_warning(self, trainer: Trainer, what: str) -> Iterator[None]:
        """Turn any error while drawing into a warning, once per cause, so that training continues."""
        try:
            yield
        except Exception as error:
            cause = f"{type(error).__name__}: {error}"
            key = str(getattr(error, "errno", None) or cause)
            if key not in self._warned:
                self._warned.add(key)
                rank_zero_warn(f"TensorBoardDashboard: no {what}, training continues without: {cause}")
            _leave_out_broken_writers(trainer)


def _monitor(trainer: Trainer) -> GeometryMonitor:
    for callback in callbacks_of(trainer):
        if isinstance(callback, GeometryMonitor):
            return callback
    raise ValueError(
        "TensorBoardDashboard: got no GeometryMonitor among the callbacks, expected one whose measurements to show: "
        "callbacks=[GeometryMonitor(), TensorBoardDashboard()]"
    )


def _class_names(trainer: Trainer) -> list[str] | None:
    return getattr(attached_datamodule(trainer), "class_names", None)


def _writers(trainer: Trainer) -> list[tuple[Any, str]]:
    """Return the writers of TensorBoard loggers, each with the tag prefix of its logger."""
    writers = ((image_loggers.tensorboard_writer(each), image_loggers.tag_prefix(each)) for each in trainer.loggers)
    return [(writer, prefix) for writer, prefix in writers if writer is not None]


def _leave_out_broken_writers(trainer: Trainer) -> None:
    """Remove TensorBoard loggers broken by a full disk: any later call would raise, also the Trainer's."""
    sound = []
    for logger in trainer.loggers:
        try:
            if (writer := image_loggers.tensorboard_writer(logger)) is not None:
                writer.flush()
            sound.append(logger)
        except OSError:
            continue
    if len(sound) < len(trainer.loggers):
        trainer.loggers = sound
