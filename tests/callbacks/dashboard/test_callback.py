import errno
import os
import re
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL, HUCL, SCL
from nc_lightning.callbacks import GeometryMonitor, HardNegativeSampler, OnlineLinearProbe, TensorBoardDashboard
from nc_lightning.callbacks.dashboard import callback as tensorboard_dashboard
from nc_lightning.callbacks.dashboard import image_loggers as figure_loggers
from nc_lightning.callbacks.dashboard.charts import dashboard_layout
from nc_lightning.callbacks.dashboard.overview import OVERVIEW
from nc_lightning.data import DigitPairsDataModule, DigitsDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.geometry import Ideal
from nc_lightning.losses import HSCLLoss
from nc_lightning.reports.record import RunRecord
from tests.on_processes import on_processes

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}
FIGURES = {"cosines", "spectrum", "plane", "similarities", "trajectory"}


def trainer(tmp_path, *callbacks, **kwargs):
    defaults = {"max_epochs": 2, "enable_checkpointing": False, "default_root_dir": tmp_path}
    return Trainer(callbacks=list(callbacks), **(QUIET | defaults | kwargs))


def model(objective=HSCL, **kwargs):
    return objective(encoder=MLP((32,), (24,)), num_classes=10, **kwargs)


def fit(tmp_path, *callbacks, module=None, data=None, **kwargs):
    """Train with monitor and dashboard; returns the dashboard and the trainer."""
    dashboard = TensorBoardDashboard(every_n_epochs=1)
    run = trainer(tmp_path, *callbacks, GeometryMonitor(), dashboard, **kwargs)
    run.fit(module or model(), data or LatentClassDataModule())
    return dashboard, run


def events(folder):
    return EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "scalars": 0}).Reload()


def layout_of(accumulator):
    (event,) = accumulator.Tensors("custom_scalars__config__")
    return layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])


def session_of(accumulator):
    summaries = accumulator.SummaryMetadata
    content = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(summaries(tag).plugin_data.content)
        for tag in ("_hparams_/experiment", "_hparams_/session_start_info")
    }
    start = content["_hparams_/session_start_info"].session_start_info.hparams
    values = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.items()}
    return values, [metric.name.tag for metric in content["_hparams_/experiment"].experiment.metric_infos]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    torch.manual_seed(0)
    module = HSCL(beta=3.0, encoder=MLP((1, 8, 8), (24,)), num_classes=10)
    data = DigitsDataModule(batch_size=100)
    return fit(tmp_path_factory.mktemp("run"), OnlineLinearProbe(), module=module, data=data)


@pytest.fixture(scope="module")
def log(digits):
    return events(digits[1].log_dir)


def test_every_chart_of_the_layout_has_curves(log):
    tags = log.Tags()["scalars"]
    layout = layout_of(log)
    titles = [chart.title for category in layout.category for chart in category.chart]
    for part in (
        "NC1",
        "NC2",
        "NC3",
        "NC4",
        "zero sum",
        "unit norm",
        "equal inner product",
        "effective rank of cl",
    ):
        assert any(title.startswith(part) for title in titles), part
    for category in layout.category:
        for chart in category.chart:
            for pattern in chart.multiline.tag:
                shown = [tag for tag in tags if re.match(pattern, tag)]
                assert len(shown) == 1, (chart.title, pattern, shown)


def test_a_run_has_one_curve_in_a_chart_and_the_loss_a_band_from_its_bound(log):
    charts = [chart for category in layout_of(log).category for chart in category.chart]
    curves = {chart.title: list(chart.multiline.tag) for chart in charts if chart.HasField("multiline")}
    assert all(len(tags) == 1 for tags in curves.values()), "TensorBoard has one color for all curves of a run"
    for name, words in (("train", "training"), ("val", "validation")):
        assert curves[f"effective rank of class means, {words} (ideal 9)"] == [f"^geometry/{name}/effective_rank$"]
        assert curves[f"accuracy of a linear probe, {words} (ideal 1)"] == [f"^probe/{name}_accuracy$"]
    assert curves["loss, validation"] == ["^loss/val$"]
    (band,) = [chart.margin.series for chart in charts if chart.HasField("margin")]
    assert [(s.value, s.lower, s.upper) for s in band] == [("loss/train", "loss/bound", "loss/collapsed")]
    assert {"loss/train", "loss/bound", "loss/collapsed"} <= set(log.Tags()["scalars"])


def test_the_overview_repeats_what_decides_and_comes_first(log):
    tags = log.Tags()["scalars"]
    assert min(tags).startswith("Overview/")
    assert {tag.partition("/")[2] for tag in tags if tag.startswith("Overview/")} == set(OVERVIEW)
    for title, key in OVERVIEW.items():
        shown, logged = (log.Scalars(tag) for tag in (f"Overview/{title}", key))
        assert [(s.step, s.value) for s in shown] == [(s.step, s.value) for s in logged]


def test_figures_have_more_than_one_color(log):
    assert set(log.Tags()["images"]) == {f"figures/{name}" for name in FIGURES}
    for name in FIGURES:
        images = log.Images(f"figures/{name}")
        assert [image.step for image in images] == [12, 24]
        for image in images:
            picture = Image.open(BytesIO(image.encoded_image_string))
            assert picture.size == (image.width, image.height)
            assert len(picture.convert("RGB").getcolors(2**24)) > 10


def test_the_table_of_runs_has_settings_and_final_geometry(log):
    values, metrics = session_of(log)
    assert values["objective"] == "HSCL"
    assert (values["beta"], values["temperature"], values["batch_size"]) == (3.0, 1.0, 100)
    assert (values["normalization"], values["eta"]) == ("unit_ball", "Exponential")
    assert values["psi"].startswith("InfoNCE")
    assert values["encoder"].startswith("MLP, ")
    assert values["projector"].startswith("Linear, ")
    assert (values["optimizer"], values["augmentation"], values["views"]) == ("Adam", "none", 1)
    assert {"geometry/train/nc1", "geometry/train/effective_rank", "geometry/val/ncc_accuracy"} <= set(metrics)
    assert set(metrics) <= set(log.Tags()["scalars"])
    assert "hp_metric" not in log.Tags()["scalars"]


def test_the_table_of_runs_has_the_columns_of_the_report(log, digits):
    values, _ = session_of(log)
    described = RunRecord.read(Path(digits[1].log_dir)).described()
    assert values.keys() == {key for key, value in described.items() if value is not None} | {"resumed_from"}
    assert values["resumed_from"] == "-", "the first run decides which columns TensorBoard has"
    assert values["epochs"] == 2
    assert values["lr"] == described["lr"] == pytest.approx(digits[1].optimizers[0].param_groups[0]["lr"])


def test_the_projector_has_names_and_images(digits):
    folder = Path(digits[1].log_dir)
    assert "features" in (folder / "projector_config.pbtxt").read_text()
    (sprite,) = folder.rglob("sprite.png")
    rows = np.loadtxt(sprite.parent / "tensors.tsv", delimiter="\t")
    names = (sprite.parent / "metadata.tsv").read_text().splitlines()
    assert rows.shape == (len(names), 9)
    assert set(names) == set("0123456789")
    side = 16 * int(np.ceil(len(names) ** 0.5))
    assert Image.open(sprite).size == (side, side)


def test_the_report_is_in_the_run_folder(digits):
    dashboard, fitted = digits
    assert dashboard.report == Path(fitted.log_dir) / "report.html"
    record = RunRecord.read(Path(fitted.log_dir))
    assert set(record.figures) == FIGURES
    assert {path.stem for path in (Path(fitted.log_dir) / "figures").glob("*.pdf")} == FIGURES
    assert [(entry["epoch"], entry["step"]) for entry in record.history] == [(1, 12), (2, 24)]
    for key in ("loss/train", "loss/bound", "geometry/val/nc1"):
        assert record.latest("")[key] == pytest.approx(fitted.callback_metrics[key].item(), rel=1e-6)
    losses = [entry["loss/train"] for entry in record.history]
    assert losses == pytest.approx([e.value for e in events(fitted.log_dir).Scalars("loss/train")], rel=1e-5)
    assert "effective_rank" in dashboard.report.read_text()


def test_charts_follow_the_objective(tmp_path):
    titles = {}
    for objective in (SCL, HSCL, HUCL):
        options = {"beta": 1.0} if objective is HUCL else {}  # below the critical hardness, where titles are the same
        _, run = fit(tmp_path, module=model(objective, **options), max_epochs=1)
        layout = layout_of(events(run.log_dir))
        titles[objective] = {chart.title for category in layout.category for chart in category.chart}
        tags = {tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag}
        assert ("^loss/neural_collapse$" in tags) == (objective is HUCL)
    assert titles[SCL] < titles[HSCL] < titles[HUCL]
    assert not any("NC3" in title for title in titles[HUCL])  # without a probe
    assert "share of weight on the own class" in titles[HUCL] - titles[HSCL]


def test_a_loss_with_another_minimum_has_its_ideals_in_charts_and_report(tmp_path):
    hucl = HUCL(encoder=MLP((1, 8, 8), (24,)), num_classes=10, beta=5.0, feature_dim=12)
    dashboard, run = fit(tmp_path, module=hucl, data=DigitsDataModule(batch_size=100), max_epochs=1)
    titles = [chart.title for c in layout_of(events(run.log_dir)).category for chart in c.chart]
    zero_sum = hucl.loss.hucl_optimum(10, 100).zero_sum
    assert f"zero sum, training (ideal 0; this loss {zero_sum:.4g})" in titles
    assert "NC2, distance to the minimum of the loss, validation (this loss 0)" in titles
    assert "effective rank of class means, training (ideal 9)" in titles
    record = RunRecord.read(Path(run.log_dir))
    assert record.own_ideals["zero_sum"].value == pytest.approx(zero_sum, abs=1e-5)
    assert "geometry/val/distance_to_optimum" in record.history[-1]
    assert "this loss" in dashboard.report.read_text()


def test_titles_leave_out_a_minimum_that_a_schedule_moves():
    own = {"zero_sum": Ideal(0.56, 0.02, "0.56")}
    titles = {}
    for schedule in ("constant", "adaptive"):
        layout = dashboard_layout(10, 9, None, [HardNegativeSampler(beta=5.0, schedule=schedule)], own=own)
        titles[schedule] = {title for charts in layout.values() for title in charts}
    both = "training", "validation"
    expected = {f"zero sum, {words} (ideal 0; this loss 0.56)" for words in both}
    assert titles["constant"] - titles["adaptive"] == expected
    assert titles["adaptive"] - titles["constant"] == {f"zero sum, {words} (ideal 0)" for words in both}
    assert "NC2, distance to the minimum of the loss, training" in titles["adaptive"]


class Watched(MLP):
    def __init__(self):
        super().__init__((32,), (24,))
        self.seen = 0

    def forward(self, x):
        self.seen += len(x)
        return super().forward(x)


def test_the_dashboard_adds_no_second_pass_and_leaves_training_unchanged(tmp_path):
    def run(*callbacks):
        torch.manual_seed(0)
        module = HSCL(encoder=Watched(), num_classes=10)
        trainer(tmp_path, GeometryMonitor(), *callbacks).fit(module, LatentClassDataModule())
        return module.encoder.seen, module.state_dict(), torch.rand(3)

    with_dashboard, without = run(TensorBoardDashboard(every_n_epochs=1)), run()
    assert with_dashboard[0] == without[0]
    assert all(torch.equal(with_dashboard[1][key], without[1][key]) for key in without[1])
    assert torch.equal(with_dashboard[2], without[2])


def test_the_history_holds_only_values_of_its_own_epoch(tmp_path):
    dashboard = TensorBoardDashboard()
    heard = {}

    class Notes(Callback):
        def on_validation_end(self, trainer, pl_module):
            heard[trainer.current_epoch + 1] = trainer.callback_metrics["loss/val"].item()

    callbacks = [dashboard, GeometryMonitor(), Notes()]
    run = trainer(tmp_path, *callbacks, max_epochs=5, check_val_every_n_epoch=2, num_sanity_val_steps=0)
    run.fit(model(), LatentClassDataModule())
    history = RunRecord.read(Path(run.log_dir)).history
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4, 5]
    assert [entry.get("loss/val") for entry in history] == [None, heard[2], None, heard[4], None]
    assert all({"loss/train", "geometry/val/nc1", "geometry/train/nc1"} <= entry.keys() for entry in history)


def test_losses_are_recorded_for_each_epoch(tmp_path):
    for epochs, resumed in ((3, None), (5, tmp_path / "third.ckpt")):
        callbacks = GeometryMonitor(every_n_epochs=4), TensorBoardDashboard()
        run = trainer(tmp_path, *callbacks, max_epochs=epochs, check_val_every_n_epoch=2, num_sanity_val_steps=0)
        run.fit(model(), LatentClassDataModule(), ckpt_path=resumed)
        run.save_checkpoint(tmp_path / "third.ckpt")
    record = RunRecord.read(Path(run.log_dir))
    assert [entry["epoch"] for entry in record.history] == [3, 4, 5]
    assert [entry["epoch"] for entry in record.losses] == [1, 2, 3, 4, 5]
    assert ["loss/val" in entry for entry in record.losses] == [False, True, False, True, False]
    assert [record.losses[int(entry["epoch"]) - 1]["loss/train"] for entry in record.history] == [
        entry["loss/train"] for entry in record.history
    ]


@pytest.mark.slow
def test_figures_come_every_n_epochs_and_at_the_end(tmp_path):
    def steps(every, measured, **kwargs):
        dashboard = TensorBoardDashboard(every_n_epochs=every)
        run = trainer(tmp_path, dashboard, GeometryMonitor(every_n_epochs=measured), **kwargs)  # in any order
        run.fit(model(), LatentClassDataModule())
        return [image.step // run.num_training_batches for image in events(run.log_dir).Images("figures/cosines")]

    assert steps(2, 1, max_epochs=5) == [2, 4, 5]
    assert steps(2, 3, max_epochs=7) == [3, 6, 7]
    assert steps(50, 1, max_epochs=3) == [3]
    assert steps(50, 50, max_epochs=-1, max_steps=30) == [2]


@pytest.mark.parametrize("order", ["first", "last"])
def test_the_order_of_callbacks_does_not_matter(tmp_path, order):
    callbacks = [TensorBoardDashboard(), GeometryMonitor()]
    run = trainer(tmp_path, *(callbacks if order == "first" else callbacks[::-1]), max_epochs=-1, max_steps=6)
    run.fit(model(), LatentClassDataModule())
    assert [entry["step"] for entry in RunRecord.read(Path(run.log_dir)).history][-1] == 6


class TakesImages(Logger):
    """Stands in for the logger of W&B."""

    def __init__(self):
        self.images, self.scalars = [], {}

    name, version, save_dir = "taker", 0, None

    def log_metrics(self, metrics, step=None):
        self.scalars |= metrics

    def log_hyperparams(self, params, *args, **kwargs):
        pass

    def log_image(self, key, images, step=None):
        self.images.append((key, images[0].size, step))


class FakeMLFlow(MLFlowLogger):
    """Replaces the package and its server."""

    def __init__(self):
        self.taken, self.scalars = [], {}

    name, version, save_dir, run_id = "mlflow", 0, None, "abc"

    @property
    def experiment(self):
        return self

    def log_image(self, run_id, image, artifact_file):
        self.taken.append((run_id, image.size, artifact_file))

    def log_metrics(self, metrics, step=None):
        self.scalars |= metrics

    def log_hyperparams(self, params):
        pass

    def finalize(self, status="success"):
        pass


def test_each_of_several_loggers_gets_what_it_supports(tmp_path):
    loggers = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path, name="csv"), TakesImages(), FakeMLFlow()]
    fit(tmp_path, logger=loggers)
    tensorboard, csv, images, mlflow = loggers
    assert set(events(tensorboard.log_dir).Tags()["images"]) == {f"figures/{name}" for name in FIGURES}
    assert "geometry/train/nc1" in (Path(csv.log_dir) / "metrics.csv").read_text().splitlines()[0]
    assert {key for key, _, _ in images.images} == {f"figures/{name}" for name in FIGURES}
    assert len({step for _, _, step in images.images}) == 2
    assert all(size[0] > 500 for _, size, _ in images.images)
    assert (mlflow.taken[0][0], mlflow.taken[0][2]) == ("abc", "figures/cosines/step_00000012.png")
    assert len({path for _, _, path in mlflow.taken}) == 10
    for logger in (images, mlflow):
        assert "geometry/val/nc1" in logger.scalars
    assert (Path(tensorboard.log_dir) / "report.html").is_file()


@pytest.mark.slow
def test_without_a_logger_a_report_is_written_and_nothing_overwritten(tmp_path):
    reports = [fit(tmp_path, logger=False)[0].report for _ in range(2)]
    assert reports == [tmp_path / "report.html", tmp_path / "report-1.html"]
    assert (tmp_path / "report.json").is_file()
    assert (tmp_path / "report-1.json").is_file()
    assert set(RunRecord.read(tmp_path).figures) == FIGURES


@pytest.mark.parametrize("logger", [CSVLogger, TakesImages])
def test_loggers_other_than_tensorboard_work_alone(tmp_path, logger):
    dashboard, _ = fit(tmp_path, logger=logger(tmp_path) if logger is CSVLogger else logger())
    assert dashboard.report.is_file()


def test_fast_dev_run_leaves_nothing_behind(tmp_path):
    dashboard, _ = fit(tmp_path, fast_dev_run=2)
    assert dashboard.report is None
    assert not list(tmp_path.rglob("*"))


def test_validate_draws_nothing(tmp_path):
    run = trainer(tmp_path, GeometryMonitor(), TensorBoardDashboard())
    run.validate(model(), LatentClassDataModule(), verbose=False)
    assert not list(tmp_path.rglob("report.*"))


def warned(records):
    return [str(r.message) for r in records if "TensorBoardDashboard" in str(r.message)]


@pytest.mark.some(2)
@pytest.mark.slow
@pytest.mark.parametrize("part", ["geometry_figures", "write_projector", "hparams", "report_html", "dashboard_layout"])
def test_a_failure_of_the_dashboard_is_one_warning_and_training_continues(tmp_path, monkeypatch, part):
    def fail(*args, **kwargs):
        raise RuntimeError(f"no {part} today")

    monkeypatch.setattr(tensorboard_dashboard, part, fail)
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        dashboard, run = fit(tmp_path, max_epochs=3)
    (message,) = warned(records)
    assert "training continues without: RuntimeError: no " + part in message
    assert run.current_epoch == 3
    assert (dashboard.report is None) == (part == "report_html")
    assert "geometry/train/nc1" in events(run.log_dir).Tags()["scalars"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_run_that_ends_early_writes_a_report(tmp_path, error):
    class Stop(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise error("enough")

    dashboard = TensorBoardDashboard()
    run = trainer(tmp_path, Stop(), GeometryMonitor(), dashboard, max_epochs=5)
    with pytest.raises((error, SystemExit)):
        run.fit(model(), LatentClassDataModule())
    record = RunRecord.read(Path(run.log_dir))
    assert [entry["epoch"] for entry in record.history] == [1, 2]
    assert set(record.figures) == FIGURES
    assert dashboard.report.is_file()


def test_a_figure_that_fails_is_not_replaced_by_an_older_one(tmp_path, monkeypatch):
    draw = tensorboard_dashboard.geometry_figures
    calls = []

    def fail_later(*args, **kwargs):
        calls.append(args)
        if len(calls) > 1:
            raise RuntimeError("no figures any more")
        return draw(*args, **kwargs)

    monkeypatch.setattr(tensorboard_dashboard, "geometry_figures", fail_later)
    with pytest.warns(UserWarning, match="no figures any more"):
        _, run = fit(tmp_path, max_epochs=3)
    assert len(events(run.log_dir).Images("figures/cosines")) == 1


def test_a_logger_that_refuses_images_does_not_stop_the_others(tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(TakesImages, "log_image", refuse)
    board = TensorBoardLogger(tmp_path)
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        fit(tmp_path, logger=[TakesImages(), board])
    assert len(warned(records)) == 1
    assert set(events(board.log_dir).Tags()["images"]) == {f"figures/{name}" for name in FIGURES}


@pytest.mark.slow
def test_a_full_disk_is_one_warning_and_training_continues(tmp_path, monkeypatch):
    """In the middle of training, writing to the event file and to every other file starts to fail."""
    from tensorboard.compat.tensorflow_stub.io.gfile import GFile

    full = {"now": False}
    write, write_bytes = GFile.write, Path.write_bytes

    def limited(original):
        def write(self, *args, **kwargs):
            if full["now"]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(self, *args, **kwargs)

        return write

    monkeypatch.setattr(GFile, "write", limited(write))
    monkeypatch.setattr(Path, "write_bytes", limited(write_bytes))

    class Fill(GeometryMonitor):
        def on_train_epoch_start(self, trainer, pl_module):
            full["now"] = trainer.current_epoch >= 2

    dashboard = TensorBoardDashboard(every_n_epochs=1)
    run = trainer(tmp_path, Fill(), dashboard, max_epochs=6)
    monkeypatch.setattr("threading.excepthook", lambda arguments: None)  # TensorBoard's thread raises when it dies
    with warnings.catch_warnings(record=True) as records:
        warnings.simplefilter("always")
        run.fit(model(), LatentClassDataModule())
    assert run.current_epoch == 6
    (message,) = warned(records)
    assert "No space left on device" in message
    assert dashboard.report is None


class TheirModule(LightningModule):
    """A third-party module: none of our losses, no number of classes, no hyperparameters."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 5)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_dashboard_works_with_a_third_party_module(tmp_path):
    loader = DataLoader(TensorDataset(torch.randn(60, 32), torch.arange(60) % 4), batch_size=20)
    dashboard = TensorBoardDashboard()
    run = trainer(tmp_path, GeometryMonitor(num_classes=4), dashboard)
    run.fit(TheirModule(), loader)
    record = RunRecord.read(Path(run.log_dir))
    assert set(record.figures) == FIGURES
    assert record.settings["objective"] == "TheirModule"
    assert "Loss" not in {category.title for category in layout_of(events(run.log_dir)).category}


def test_data_without_labels_get_scalars_and_a_report(tmp_path):
    x = torch.randn(60, 32)
    loader = DataLoader(TensorDataset(x, torch.full((60,), -1)), batch_size=20)
    dashboard = TensorBoardDashboard()
    run = trainer(tmp_path, GeometryMonitor(num_classes=4), dashboard)
    run.fit(TheirModule(), loader)
    assert "geometry/train/rankme" in events(run.log_dir).Tags()["scalars"]
    assert dashboard.report.is_file()
    assert RunRecord.read(Path(run.log_dir)).figures == {}


def test_non_square_images_are_not_cropped_in_the_projector(tmp_path):
    module = SCL(encoder=MLP((1, 8, 16), (8,)), num_classes=100)
    dashboard = TensorBoardDashboard(max_points=300)
    run = trainer(tmp_path, GeometryMonitor(), dashboard, max_epochs=1)
    run.fit(module, DigitPairsDataModule(pairs_per_class=10))
    (names,) = tmp_path.rglob("metadata.tsv")
    assert len(names.read_text().splitlines()) == 300
    (sprite,) = tmp_path.rglob("sprite.png")
    image = np.asarray(Image.open(sprite))[:16, :16, 0]
    assert image[:4].max() == image[12:].max() == image.min()  # two digits side by side, padded above and below
    assert image[4:12].max() > image.min()


@pytest.mark.slow
def test_a_resumed_run_shows_its_whole_history(tmp_path):
    _, run = fit(tmp_path, max_epochs=2, enable_checkpointing=True)
    checkpoint = run.checkpoint_callback.best_model_path
    dashboard = TensorBoardDashboard()
    again = trainer(tmp_path, GeometryMonitor(), dashboard, max_epochs=4)
    again.fit(model(), LatentClassDataModule(), ckpt_path=checkpoint)
    record = RunRecord.read(Path(again.log_dir))
    assert [entry["epoch"] for entry in record.history] == [1, 2, 3, 4]
    assert len(record.path("train")) == 4
    bare = trainer(tmp_path, max_epochs=3)
    bare.fit(model(), LatentClassDataModule(), ckpt_path=checkpoint)  # a checkpoint also loads without a dashboard


def test_the_logged_hardness_is_that_of_the_loss(tmp_path):
    _, run = fit(tmp_path, HardNegativeSampler(beta=7.0))
    assert session_of(events(run.log_dir))[0]["beta"] == 7.0


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="every_n_epochs: got 0"):
        TensorBoardDashboard(every_n_epochs=0)
    with pytest.raises(ValueError, match="max_points: got 0"):
        TensorBoardDashboard(max_points=0)
    with pytest.raises(
        ValueError, match=r"TensorBoardDashboard: got no GeometryMonitor .* callbacks=\[GeometryMonitor"
    ):
        trainer(tmp_path, TensorBoardDashboard()).fit(model(), LatentClassDataModule())


def test_wrong_labels_are_visible_in_the_figures():
    from nc_lightning.callbacks.dashboard.figures import geometry_figures
    from nc_lightning.geometry import ClassStatistics, simplex_etf
    from nc_lightning.plots import to_png

    labels = torch.arange(4).repeat(6)
    pictures = []
    for given in (labels, labels.sort().values):
        monitor = GeometryMonitor()
        monitor.statistics = {"train": ClassStatistics(4, 3).update(simplex_etf(4, 3)[labels], given)}
        figures = geometry_figures(monitor, HSCLLoss(5.0))
        pictures.append({name: to_png(figure) for name, figure in figures.items()})
    assert pictures[0].keys() == pictures[1].keys()
    assert all(pictures[0][name] != pictures[1][name] for name in pictures[0])


def _dashboard(rank, folder):
    dashboard = TensorBoardDashboard(every_n_epochs=1)
    options = {"devices": 2, "strategy": "ddp", "accelerator": "cpu", "default_root_dir": folder}
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=2, callbacks=[GeometryMonitor(), dashboard], **options, **quiet)
    trainer.fit(HSCL(encoder=MLP((1, 8, 8), [12]), num_classes=10), DigitsDataModule(batch_size=100))
    return dashboard.report


@pytest.mark.slow
def test_only_rank_0_draws(gloo, tmp_path):
    first, second = on_processes(2, _dashboard, tmp_path)
    assert first is not None
    assert second is None
    assert len(list(tmp_path.rglob("events*"))) == len(list(tmp_path.rglob("report.html"))) == 1
    assert set(RunRecord.read(tmp_path / "lightning_logs/version_0").figures) == FIGURES


def test_a_png_reaches_tensorboard_unchanged(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    file = BytesIO()
    Image.new("P", (7, 5)).save(file, "PNG")
    with SummaryWriter(tmp_path) as writer:
        figure_loggers.add_png(writer, "mine", file.getvalue(), 3)
    (image,) = events(tmp_path).Images("mine")
    assert (image.encoded_image_string, image.width, image.height, image.step) == (file.getvalue(), 7, 5, 3)
