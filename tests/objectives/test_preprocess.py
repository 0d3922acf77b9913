"""Mean and standard deviation of the training images go where the encoder goes."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, TensorBoardDashboard
from nc_lightning.data import ArrayDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.reports.record import RunRecord

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
IMAGES = np.random.default_rng(0).integers(0, 200, (80, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(80) % 4


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "mine.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_test=LABELS)
    return ArrayDataModule(path=str(tmp_path / "mine.npz"), batch_size=20)


def model(shape=(3, 8, 8)):
    return HSCL(encoder=MLP(shape, (6,)), num_classes=4)


def fit(module, data, tmp_path, *callbacks, **options):
    options = {**QUIET, "max_epochs": 1, "default_root_dir": tmp_path, "enable_checkpointing": False, **options}
    trainer = Trainer(callbacks=list(callbacks), **options)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    return trainer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("averaged", [False, True])
def test_a_loaded_encoder_gets_what_training_got(data, tmp_path, averaged):
    fit(model(), data, tmp_path, *([EMAWeightAveraging()] if averaged else []))
    module = HSCL.load_from_checkpoint(tmp_path / "mine.ckpt", encoder=MLP((3, 8, 8), (6,)))
    loader = data.geometry_dataloader()
    raw = torch.cat([loader.images[batch][0] for batch in loader.sampler])
    assert raw.dtype == torch.uint8
    standardised = torch.cat([x for x, _ in loader])
    assert torch.equal(module.preprocess(raw), standardised)
    assert torch.equal(module.preprocess(raw.float() / 255), standardised)
    assert module.preprocess(raw.double() / 255).dtype == torch.float64
    values = raw.double() / 255  # whatever the loader says
    expected = (values - values.mean((0, 2, 3), keepdim=True)) / values.std((0, 2, 3), keepdim=True)
    assert torch.allclose(module.preprocess(raw).double(), expected, atol=0.02)


@pytest.mark.filterwarnings("ignore")
def test_steps_standardise_once(data, tmp_path):
    seen = []

    class Seen(HSCL):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    module = Seen(encoder=MLP((3, 8, 8), (6,)), num_classes=4)
    module.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    trainer = fit(module, data, tmp_path)
    seen.clear()
    trainer.predict(module, data)
    assert seen[0] is seen[1]
    assert torch.equal(seen[0], next(iter(data.predict_dataloader()))[0])


def test_without_a_mean_it_does_nothing(tmp_path):
    module = HSCL(encoder=MLP((32,), (6,)), num_classes=10)
    fit(module, LatentClassDataModule(), tmp_path)
    x = torch.randn(3, 32)
    assert torch.equal(module.preprocess(x), x)
    assert not any(key.startswith("preprocess") for key in module.state_dict())
    assert module.preprocess(torch.tensor([[51]], dtype=torch.uint8)).item() == pytest.approx(0.2)


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_before_and_fits_of_other_data(data, tmp_path):
    module = model()
    trainer = fit(module, data, tmp_path)
    state = torch.load(tmp_path / "mine.ckpt", weights_only=True)
    mean = state["state_dict"]["preprocess.mean"]
    assert mean.tolist() == data.mean.tolist()
    old = {key: value for key, value in state["state_dict"].items() if not key.startswith("preprocess")}
    torch.save({**state, "state_dict": old}, tmp_path / "old.ckpt")
    loaded = HSCL.load_from_checkpoint(tmp_path / "old.ckpt", encoder=MLP((3, 8, 8), (6,)))
    assert loaded.preprocess.mean is None

    # Loaders say nothing of it; other data do, also where a checkpoint is resumed, but not where they are judged.
    class Others(LightningDataModule):
        num_classes = 4
        mean, std = torch.full((3,), 0.25), torch.full((3,), 0.5)

        def train_dataloader(self):
            return DataLoader(TensorDataset(torch.zeros(20, 3, 8, 8), torch.arange(20) % 4), 20)

        val_dataloader = train_dataloader

    trainer = Trainer(max_epochs=2, enable_checkpointing=False, **QUIET)
    trainer.validate(module, Others(), verbose=False)
    assert torch.equal(module.preprocess.mean, mean)
    trainer.fit(module, Others().train_dataloader())
    assert torch.equal(module.preprocess.mean, mean)
    trainer = Trainer(max_epochs=3, enable_checkpointing=False, **QUIET)
    trainer.fit(module, Others(), ckpt_path=tmp_path / "mine.ckpt")
    assert module.preprocess.mean.tolist() == [0.25] * 3


@pytest.mark.filterwarnings("ignore")
def test_the_report_shows_it(data, tmp_path):
    trainer = fit(model(), data, tmp_path, GeometryMonitor(), TensorBoardDashboard())
    (path,) = tmp_path.rglob("report.json")
    settings = RunRecord.read(path).settings
    assert [float(v) for v in settings["mean"].split(", ")] == pytest.approx(data.mean.tolist(), rel=1e-3)
    assert [float(v) for v in settings["std"].split(", ")] == pytest.approx(data.std.tolist(), rel=1e-3)
    (page,) = tmp_path.rglob("report.html")
    assert settings["mean"] in page.read_text()
    assert trainer.datamodule is data
