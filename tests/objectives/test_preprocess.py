"""Mean and standard deviation of the training images are stored with the encoder."""

import re

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, TensorBoardDashboard
from nc_lightning.data import ArrayDataModule, LatentClassDataModule
from nc_lightning.data.preprocess import Preprocess
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
def test_a_loaded_encoder_gets_the_inputs_of_training(data, tmp_path, averaged):
    fit(model(), data, tmp_path, *([EMAWeightAveraging()] if averaged else []))
    module = HSCL.load_from_checkpoint(tmp_path / "mine.ckpt", encoder=MLP((3, 8, 8), (6,)))
    loader = data.geometry_dataloader()
    raw = torch.cat([loader.images[batch][0] for batch in loader.sampler])
    assert raw.dtype == torch.uint8
    standardized = torch.cat([x for x, _ in loader])
    assert torch.equal(module.preprocess(raw), standardized)
    assert torch.equal(module.preprocess(raw.float() / 255), standardized)
    assert module.preprocess(raw.double() / 255).dtype == torch.float64
    values = raw.double() / 255  # for any loader
    expected = (values - values.mean((0, 2, 3), keepdim=True)) / values.std((0, 2, 3), keepdim=True)
    assert torch.allclose(module.preprocess(raw).double(), expected, atol=0.02)


@pytest.mark.filterwarnings("ignore")
def test_steps_standardize_once(data, tmp_path):
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


def test_preprocess_without_a_mean_does_nothing(tmp_path):
    module = HSCL(encoder=MLP((32,), (6,)), num_classes=10)
    fit(module, LatentClassDataModule(), tmp_path)
    x = torch.randn(3, 32)
    assert torch.equal(module.preprocess(x), x)
    assert not any(key.startswith("preprocess") for key in module.state_dict())
    assert module.preprocess(torch.tensor([[51]], dtype=torch.uint8)).item() == pytest.approx(0.2)


@pytest.mark.filterwarnings("ignore")
def test_checkpoints_of_earlier_versions_load(data, tmp_path):
    module = model()
    fit(module, data, tmp_path)
    state = torch.load(tmp_path / "mine.ckpt", weights_only=True)
    mean = state["state_dict"]["preprocess.mean"]
    assert mean.tolist() == data.mean.tolist()
    state["state_dict"] = {k: v for k, v in state["state_dict"].items() if not k.startswith("preprocess")}
    torch.save({k: v for k, v in state.items() if k != "standardized"}, tmp_path / "old.ckpt")
    loaded = HSCL.load_from_checkpoint(tmp_path / "old.ckpt", encoder=MLP((3, 8, 8), (6,)))
    assert loaded.preprocess.mean is None
    trainer = Trainer(max_epochs=2, enable_checkpointing=False, **QUIET)
    seen = []
    module.encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    trainer.validate(module, others := other(tmp_path), ckpt_path=tmp_path / "old.ckpt")
    assert module.preprocess.mean is None  # not that of the previous fit
    assert torch.equal(seen[0], next(iter(others.val_dataloader()))[0])
    trainer.fit(module, others, ckpt_path=tmp_path / "old.ckpt")
    assert module.preprocess.mean.tolist() == others.mean.tolist()


class Own(LightningDataModule):
    """A third-party data module that standardizes its images itself."""

    num_classes = 4

    def __init__(self, mean, std):
        super().__init__()
        self.mean, self.std = mean, std

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(20, 3, 8, 8), torch.arange(20) % 4), 20)

    val_dataloader = train_dataloader


def statistics(module):
    mean, std = module.preprocess.mean, module.preprocess.std
    return None if mean is None else (mean.tolist(), std.tolist())


@pytest.mark.filterwarnings("ignore")
def test_each_fit_uses_the_mean_and_std_of_its_data(data, tmp_path):
    module = model()
    fit(module, data, tmp_path)
    of_data = data.mean.tolist(), data.std.tolist()
    own = [0.25] * 3, [0.5] * 3
    for given in (data, data.train_dataloader()):  # our loaders also have it
        fit(module, Own(torch.full((3,), 0.25), torch.full((3,), 0.5)), tmp_path)
        assert statistics(module) == own
        fit(module, given, tmp_path)
        assert statistics(module) == of_data
    for says_nothing in (Own(None, None).train_dataloader(), Own(None, None), Own("mean", lambda: 1)):
        fit(module, data, tmp_path)
        fit(module, says_nothing, tmp_path)
        assert statistics(module) is None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "form", [list, tuple, np.array, lambda v: np.array(v, dtype=np.float32), lambda v: torch.tensor(v).view(1, 3, 1, 1)]
)
def test_mean_and_std_may_have_any_usual_form(form, tmp_path):
    module = model()
    fit(module, Own(form([0.25, 0.5, 0.75]), form([0.5, 0.25, 0.125])), tmp_path)
    assert statistics(module) == ([0.25, 0.5, 0.75], [0.5, 0.25, 0.125])
    x = torch.tensor([0.5, 0.5, 0.5]).view(1, 3, 1, 1)
    assert module.preprocess(x).flatten().tolist() == [0.5, 0.0, -2.0]
    loaded = HSCL.load_from_checkpoint(tmp_path / "mine.ckpt", encoder=MLP((3, 8, 8), (6,)))
    assert statistics(loaded) == statistics(module)


@pytest.mark.parametrize(
    ("mean", "std"), [([125.3, 123.0, 113.9], [63.0, 62.1, 66.7]), ([0.5] * 3, [0.0] * 3), ([0.5] * 3, [0.5])]
)
def test_a_mean_outside_0_to_1_is_reported(mean, std):
    preprocess = Preprocess()
    with pytest.warns(UserWarning, match=r"data: got mean .* expected those of images in \[0, 1\]"):
        preprocess.take_from(Own(mean, std))
    assert preprocess.mean is None


@pytest.mark.parametrize(
    ("x", "error"),
    [
        (torch.rand(2, 1, 4, 4), r"images: got shape \(2, 1, 4, 4\), expected \(N, 3, ...\)"),
        (torch.rand(2, 4, 4, 4), r"images: got shape \(2, 4, 4, 4\), expected \(N, 3, ...\)"),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), r"images: got shape \(2, 4, 4, 3\)"),
        (torch.rand(3), r"images: got shape \(3,\)"),
        (torch.rand(2, 3, 4, 4) * 255, r"preprocess: got floats from .* expected images in \[0, 1\]"),
        (torch.randn(9, 3, 9, 9), r"preprocess: got floats from .* expected images in \[0, 1\]"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int16), "preprocess: got images in torch.int16"),
        (np.zeros((2, 3, 4, 4), dtype=np.uint8), "preprocess: got ndarray, expected a tensor"),
    ],
)
def test_images_of_another_form_are_refused_in_one_line(x, error):
    with pytest.raises((TypeError, ValueError), match=error) as raised:
        Preprocess(torch.full((3,), 0.4), torch.full((3,), 0.2))(x)
    assert "\n" not in str(raised.value)


def test_images_may_slightly_exceed_their_range():
    preprocess = Preprocess(torch.full((3,), 0.5), torch.full((3,), 0.5))
    x = torch.rand(2, 3, 4, 4) * 1.2 - 0.1
    assert torch.allclose(preprocess(x), 2 * x - 1, atol=1e-6)
    assert preprocess(x.half()).dtype == torch.float32


@pytest.mark.slow
def test_preprocess_can_be_exported():
    preprocess, x = Preprocess(torch.full((3,), 0.5), torch.full((3,), 0.5)), torch.rand(2, 3, 4, 4)
    assert torch.equal(torch.export.export(preprocess, (x,)).module()(x), preprocess(x))


def other(tmp_path, change=lambda x: x // 2 + 100, name="other"):
    """The same images, changed: by default brighter and with less contrast."""
    images = change(IMAGES)
    np.savez(tmp_path / f"{name}.npz", x_train=images, y_train=LABELS, x_test=images, y_test=LABELS)
    return ArrayDataModule(path=str(tmp_path / f"{name}.npz"), batch_size=20)


def standardized(data, mean, std):
    """The features of all images (the test set) by an independent formula."""
    images = data.test_dataloader().images.x.double()
    return (images / 255 - mean.double().view(3, 1, 1)) / std.double().view(3, 1, 1)


SAID = r"data: got images of mean .* and std .*, but training had images of mean .* and std .*; training's is used"


@pytest.mark.filterwarnings("ignore:.*(does not have many workers|LeafSpec|was not set).*")
@pytest.mark.parametrize("command", ["validate", "test", "predict", "fit"])
@pytest.mark.parametrize("from_path", [True, False])
def test_other_data_are_standardized_as_in_training(data, tmp_path, command, from_path, recwarn):
    fit(model(), data, tmp_path)
    others = other(tmp_path)
    if from_path:
        module, path = model(), tmp_path / "mine.ckpt"
    else:
        module, path = HSCL.load_from_checkpoint(tmp_path / "mine.ckpt", encoder=MLP((3, 8, 8), (6,))), None
    trainer = Trainer(max_epochs=2, enable_checkpointing=False, **QUIET)
    seen = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    recwarn.clear()
    getattr(trainer, command)(module, datamodule=others, ckpt_path=path)
    scratch = command == "fit" and path is None
    said = [w for w in recwarn if "data: got" in str(w.message)]
    assert len(said) == (0 if scratch else 1)
    mean, std = (others.mean, others.std) if scratch else (data.mean, data.std)
    assert scratch or re.fullmatch(SAID, str(said[0].message))
    assert statistics(module) == (mean.tolist(), std.tolist())
    expected = standardized(others, mean, std).flatten(1)
    got = torch.cat(seen).flatten(1).double()
    nearest = torch.cdist(got, expected).min(1).values
    assert nearest.max() < 1e-3
    assert others.preprocess().mean.tolist() == others.mean.tolist()  # the next fit uses its own
    recwarn.clear()
    trainer.validate(module, others if scratch else data)
    assert not [w for w in recwarn if "data: got" in str(w.message)]


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_fit_follows_the_standardization_of_a_third_party_data_module(data, tmp_path):
    fit(model(), data, tmp_path)
    module = model()
    trainer = Trainer(max_epochs=2, enable_checkpointing=False, **QUIET)
    with pytest.warns(UserWarning, match="data: got .* but training had .*; the loader uses its own"):
        trainer.fit(module, Own([0.25] * 3, [0.5] * 3), ckpt_path=tmp_path / "mine.ckpt")
    assert statistics(module) == ([0.25] * 3, [0.5] * 3)


@pytest.mark.filterwarnings("ignore")
def test_data_that_cannot_be_standardized_as_in_training_are_refused(data, tmp_path):
    as_they_are = other(tmp_path, lambda x: x / 25.0 - 3, "floats")
    trainer = fit(model(), data, tmp_path)
    with pytest.raises(ValueError, match="data: got inputs that are not standardized, expected images of .* as"):
        trainer.validate(model(), as_they_are, ckpt_path=tmp_path / "mine.ckpt")
    trainer = fit(model(), as_they_are, tmp_path)
    assert torch.load(tmp_path / "mine.ckpt", weights_only=True)["standardized"] is False
    for command in (trainer.validate, trainer.test, trainer.predict, trainer.fit):
        with pytest.raises(ValueError, match="data: got images of mean .*, expected inputs that are not standardized"):
            command(model(), datamodule=data, ckpt_path=tmp_path / "mine.ckpt")


@pytest.mark.filterwarnings("ignore")
def test_the_report_shows_mean_and_std(data, tmp_path):
    trainer = fit(model(), data, tmp_path, GeometryMonitor(), TensorBoardDashboard())
    (path,) = tmp_path.rglob("report.json")
    settings = RunRecord.read(path).settings
    assert [float(v) for v in settings["mean"].split(", ")] == pytest.approx(data.mean.tolist(), rel=1e-3)
    assert [float(v) for v in settings["std"].split(", ")] == pytest.approx(data.std.tolist(), rel=1e-3)
    (page,) = tmp_path.rglob("report.html")
    assert settings["mean"] in page.read_text()
    assert trainer.datamodule is data
