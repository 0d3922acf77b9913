"""Every logger gets charts, figures, projector and table under its prefix, or there is one warning."""

import importlib
import re
import shutil
import sys
from pathlib import Path

import lightning.pytorch
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter

from nc_lightning import HSCL
from nc_lightning.callbacks import CollapseWatch, GeometryMonitor, OnlineLinearProbe, TensorBoardDashboard
from nc_lightning.callbacks.dashboard.image_loggers import tag_prefix
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from tests.callbacks.dashboard.test_callback import events

QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
FIGURES = {"cosines", "spectrum", "plane", "similarities", "trajectory"}


def fit(tmp_path, *loggers, **options):
    dashboard = TensorBoardDashboard(every_n_epochs=1)
    trainer = Trainer(
        callbacks=[GeometryMonitor(), dashboard], logger=list(loggers), default_root_dir=tmp_path, **QUIET, **options
    )
    module = HSCL(encoder=MLP((32,), (8,)), num_classes=4)
    trainer.fit(module, LatentClassDataModule(num_classes=4, samples_per_class=10, batch_size=20))
    return trainer, module, dashboard


def check(folder, prefix=""):
    """Assert that nothing is missing and that every chart and every column of the table has its curve."""
    log = events(folder)
    scalars = log.Tags()["scalars"]
    (event,) = log.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = [chart for category in layout.category for chart in category.chart]
    assert len(charts) > 10
    for chart in charts:
        for pattern in chart.multiline.tag:
            assert [tag for tag in scalars if re.match(pattern, tag)], pattern
    content = log.SummaryMetadata("_hparams_/experiment").plugin_data.content
    table = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.metric_infos
    columns = [info.name.tag for info in table]
    assert f"{prefix}geometry/train/nc1" in columns
    assert set(columns) <= set(scalars)
    assert {tag for tag in log.Tags()["images"] if "figures" in tag} == {f"{prefix}figures/{name}" for name in FIGURES}
    assert not any("hp_metric" in tag for tag in scalars)
    assert f'"{prefix}features:' in (Path(folder) / "projector_config.pbtxt").read_text()


class Renamed(TensorBoardLogger):
    LOGGER_JOIN_CHAR = "+"


class Theirs(Logger):
    """A logger that shares only the writer with Lightning's."""

    name, version, save_dir, log_dir = "theirs", 0, None, None

    def __init__(self, folder):
        self.log_dir = str(folder)
        self.experiment = SummaryWriter(folder)

    def log_metrics(self, metrics, step=None):
        for key, value in metrics.items():
            self.experiment.add_scalar(key, value, step)

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def test_every_logger_gets_everything_under_its_prefix(tmp_path):
    loggers = [
        TensorBoardLogger(tmp_path / "plain"),
        TensorBoardLogger(tmp_path / "prefix", prefix="exp"),
        TensorBoardLogger(tmp_path / "odd", prefix="a (b)"),
        Renamed(tmp_path / "renamed", prefix="x"),
        Theirs(tmp_path / "theirs"),
    ]
    fit(tmp_path, *loggers, max_epochs=2)
    for logger, prefix in zip(loggers, ["", "exp-", "a (b)-", "x+", ""], strict=True):
        assert tag_prefix(logger) == prefix
        check(logger.log_dir, prefix)


class Silent(Logger):
    name, version, save_dir = "silent", 0, None

    def log_metrics(self, metrics, step=None):
        pass

    def log_hyperparams(self, params, *args, **kwargs):
        pass


def test_a_logger_without_charts_is_one_warning(tmp_path, caplog):
    caplog.set_level("INFO", "lightning.pytorch.utilities.rank_zero")
    fit(tmp_path, CSVLogger(tmp_path), Silent(), max_epochs=1)
    lines = [record.getMessage() for record in caplog.records if "TensorBoardDashboard" in record.getMessage()]
    assert lines == ["TensorBoardDashboard: CSVLogger, Silent accepts no charts or figures; the report has them"]
    caplog.clear()
    fit(tmp_path, TensorBoardLogger(tmp_path), Silent(), max_epochs=1)
    assert "TensorBoardDashboard" not in caplog.text


def test_borrowed_attributes_are_restored(tmp_path):
    board, off = TensorBoardLogger(tmp_path / "on"), TensorBoardLogger(tmp_path / "off", default_hp_metric=False)
    trainer, module, dashboard = fit(tmp_path, board, off, max_epochs=1)
    (monitor,) = (c for c in trainer.callbacks if isinstance(c, GeometryMonitor))
    assert (board._default_hp_metric, off._default_hp_metric, monitor.sample_size) == (True, False, 0)
    assert monitor.sample is not None
    trainer.validate(module, LatentClassDataModule(num_classes=4, samples_per_class=10), verbose=False)
    assert "hp_metric" not in events(board.log_dir).Tags()["scalars"]
    assert board._default_hp_metric

    class Fails(lightning.pytorch.Callback):
        def on_train_batch_end(self, *args):
            raise RuntimeError("enough")

    again = Trainer(callbacks=[monitor, dashboard, Fails()], logger=board, max_epochs=1, **QUIET)
    with pytest.raises(RuntimeError, match="enough"):
        again.fit(module, LatentClassDataModule(num_classes=4, samples_per_class=10))
    assert (board._default_hp_metric, monitor.sample_size) == (True, 0)


@pytest.fixture
def twin(tmp_path, monkeypatch):
    """``lightning.pytorch`` imported a second time under another name, like the package ``pytorch_lightning``."""
    source, copy = Path(lightning.pytorch.__file__).parent, tmp_path / "packages" / "twin_lightning"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for path in copy.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        text = text.replace("import lightning.pytorch as pl", "import twin_lightning as pl")
        path.write_text(text.replace("lightning.pytorch", "twin_lightning"), encoding="utf-8")
    monkeypatch.syspath_prepend(copy.parent)
    yield importlib.import_module("twin_lightning")
    for name in [name for name in sys.modules if name.split(".")[0] == "twin_lightning"]:
        del sys.modules[name]


@pytest.mark.filterwarnings("ignore")
def test_it_works_with_the_trainer_of_pytorch_lightning(twin, tmp_path):
    class Module(twin.LightningModule):
        num_classes = 4

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x)

        def training_step(self, batch, batch_idx):
            z = self(batch[0])
            return {"loss": z.square().mean(), "z": z.detach(), "labels": batch[1]}

        def validation_step(self, batch, batch_idx):
            return {"z": self(batch[0]), "labels": batch[1]}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    callbacks = importlib.import_module("twin_lightning.callbacks")
    checkpoint = callbacks.ModelCheckpoint(tmp_path, "{epoch}", "geometry/val/nc1", save_top_k=-1)
    stopping = callbacks.EarlyStopping("geometry/val/nc1", min_delta=1e9, patience=1)
    monitor = GeometryMonitor(every_n_epochs=2)
    ours = [
        monitor,
        callbacks.EMAWeightAveraging(decay=0.5),
        TensorBoardDashboard(),
        OnlineLinearProbe(),
        CollapseWatch(),
    ]
    options = {"enable_progress_bar": False, "enable_model_summary": False, "max_epochs": 9}
    trainer = twin.Trainer(callbacks=[*ours, checkpoint, stopping], default_root_dir=tmp_path, **options)
    loader = DataLoader(TensorDataset(torch.randn(40, 6), torch.arange(40) % 4), 10)
    module = Module()
    trainer.fit(module, loader, loader)
    assert trainer.current_epoch == 4
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"epoch=1.ckpt", "epoch=3.ckpt"}
    assert trainer.callbacks.index(monitor) == 1  # behind the average
    check(trainer.log_dir)
