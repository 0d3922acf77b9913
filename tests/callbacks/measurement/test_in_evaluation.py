"""Measuring without training: limits, first batches, hooks, and only the data of the current call."""

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.callbacks.dashboard.settings import run_settings
from nc_lightning.callbacks.measurement import passes as measurement
from nc_lightning.data import DigitsDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.geometry import measure
from tests.on_processes import on_processes

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
X = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(48) % 4


class Theirs(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 5)
        self.batches = 0

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return (self.layer.weight * 0).sum()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.batches += 1

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class TheirData(LightningDataModule):
    num_classes = 4

    def train_dataloader(self):
        return DataLoader(TensorDataset(X, Y), 10, shuffle=True)

    def geometry_dataloader(self):
        return DataLoader(TensorDataset(X, Y), 20)

    def val_dataloader(self):
        return DataLoader(TensorDataset(X[:20], Y[:20]), 10)

    test_dataloader = val_dataloader


def run(command, module, data, monitor=None, **options):
    monitor = monitor or GeometryMonitor()
    trainer = Trainer(callbacks=[monitor], **{**QUIET, "max_epochs": 1, **options})
    getattr(trainer, command)(module, data)
    return monitor


LIMITS = [
    {},
    {"limit_train_batches": 3},
    {"limit_train_batches": 0.5},
    {"limit_train_batches": 1},
    {"overfit_batches": 2},
    {"fast_dev_run": 2},
]


@pytest.mark.some(4)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", LIMITS, ids=str)
@pytest.mark.parametrize(
    "data", [TheirData, lambda: LatentClassDataModule(4, 8, 20, batch_size=20)], ids=["theirs", "ours"]
)
def test_validate_and_test_measure_the_same_training_samples_as_fit(data, options):
    module = Theirs() if data is TheirData else HSCL(encoder=MLP((8,), (5,)), num_classes=4)
    fitted = run("fit", module, data(), **options)
    for command in ("validate", "test"):
        again = run(command, module, data(), **options)
        assert again.statistics["train"].counts.tolist() == fitted.statistics["train"].counts.tolist()
        assert again.results["train"] == pytest.approx(fitted.results["train"], rel=1e-9, abs=1e-12, nan_ok=True)


@pytest.mark.filterwarnings("ignore")
def test_a_limit_of_zero_batches_is_respected():
    assert run("validate", Theirs(), TheirData(), limit_train_batches=0).results.keys() == {"val"}


class Hooks:
    """Augments in training, and transforms all batches."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch[0] * 2, batch[1]

    def on_after_batch_transfer(self, batch, dataloader_idx):
        self.seen = [*getattr(self, "seen", ()), (self.trainer.training, dataloader_idx)]
        return (torch.randn(batch[0].shape), batch[1]) if self.trainer.training else batch


class HookedModule(Hooks, Theirs):
    pass


class ThreeSets(TheirData):
    def val_dataloader(self):
        return [DataLoader(TensorDataset(X, Y), 48)] * 3


class HookedData(Hooks, ThreeSets):
    pass


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "kinds", [(HookedModule, ThreeSets), (Theirs, HookedData)], ids=["of the module", "of the data"]
)
def test_measured_batches_pass_through_the_evaluation_hooks(kinds):
    module, data = (kind() for kind in kinds)
    results = run("fit", module, data).results
    expected = pytest.approx(measure(module.layer(2 * X).detach(), Y), rel=1e-4, abs=1e-6)
    assert results == dict.fromkeys(("train", "val", "val_1", "val_2"), expected)


@pytest.mark.filterwarnings("ignore")
def test_hooks_get_the_dataloader_index():
    data = HookedData()
    run("fit", Theirs(), data, num_sanity_val_steps=0)
    of_evaluation = [index for training, index in data.seen if not training]
    assert of_evaluation == [0, 0, 1, 2, 0, 1, 2, *[0] * 3, 0, 1, 2]  # first batches; validation; train and the others


BAD = {
    "features": {"features": "backbone"},
    "classifier": {"classifier": "head"},
    "labels": {"batch": lambda batch: (batch[0], batch[1] + 4)},
    "batches": {"batch": lambda batch: batch[0]},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", ["validate", "test"])
@pytest.mark.parametrize("form", ["data module", "loaders", "loader of its own workers"])
@pytest.mark.parametrize("name", BAD)
def test_unmeasurable_outputs_are_refused_before_the_first_step(name, form, command):
    module, data = Theirs(), TheirData()
    options = {"num_workers": 1, "persistent_workers": True} if form.startswith("loader of") else {}
    data = data if form == "data module" else DataLoader(TensorDataset(X, Y), 10, **options)
    with pytest.raises(
        ValueError, match=r"^(geometry of the (train|val|test) set, batch 0: |classifier: got ).*[^\n]$"
    ):
        run(command, module, data, GeometryMonitor(num_classes=4, **BAD[name]))
    assert module.batches == 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("command", ["validate", "test"])
def test_every_set_is_checked_before_the_first_step(command):
    module = Theirs()
    loaders = [DataLoader(TensorDataset(X, Y), 10), DataLoader(TensorDataset(X, Y + 1), 10)]
    with pytest.raises(ValueError, match="_1 set, batch 0: labels: got"):
        run(command, module, loaders, GeometryMonitor(num_classes=4))
    assert module.batches == 0


@pytest.mark.filterwarnings("ignore")
def test_the_check_of_the_first_batch_consumes_no_evaluation_batch():
    module = Theirs()
    loaders = [DataLoader(TensorDataset(X, Y), 10, num_workers=1, persistent_workers=True) for _ in range(2)]
    monitor = run("validate", module, loaders, GeometryMonitor(num_classes=4))
    assert module.batches == 10
    assert monitor.statistics["val"].num_samples == monitor.statistics["val_1"].num_samples == 48


@pytest.mark.filterwarnings("ignore")
def test_nothing_is_kept_from_the_data_module_of_an_earlier_call():
    monitor, module = GeometryMonitor(), HSCL(encoder=MLP((1, 8, 8), (5,)), num_classes=10)
    trainer = Trainer(callbacks=[monitor], max_epochs=1, limit_train_batches=1, **QUIET)
    trainer.fit(module, DigitsDataModule(batch_size=50))
    assert run_settings(trainer, module)["batch_size"] == 50
    loader = DataLoader(TensorDataset(torch.randn(60, 1, 8, 8), Y.repeat(2)[:60]), 20)
    trainer.fit_loop.max_epochs = 2
    other = HSCL(encoder=MLP((1, 8, 8), (5,)), num_classes=4)
    trainer.fit(other, loader)
    assert monitor.statistics["train"].num_classes == 4
    assert run_settings(trainer, other)["batch_size"] == 20
    trainer.validate(other, loader, verbose=False)
    assert monitor.results.keys() == {"val"}
    with pytest.raises(ValueError, match="num_classes: got none from the module or the data module, expected Geo"):
        trainer.validate(Theirs(), loader, verbose=False)


def _measured_by_one_of(rank, world_size, keeps):
    torch.manual_seed(0)
    measurement.KEPT_BYTES = keeps[rank]
    results = []
    for module, data, monitor in (
        (Theirs(), TheirData(), GeometryMonitor(features="layer.0", classifier="layer.1")),
        (HSCL(encoder=MLP((8,), (5,)), num_classes=4), LatentClassDataModule(4, 8, 31, batch_size=12), None),
    ):
        if isinstance(module, Theirs):
            module.layer = nn.Sequential(nn.Linear(8, 5), nn.Linear(5, 4))
        for options in ({}, {"limit_train_batches": 4 // world_size}):
            options |= {"devices": world_size, "strategy": "ddp", "accelerator": "cpu", "precision": "64-true"}
            measured = run("validate", module, data, monitor, **options)
            results.append((measured.statistics["train"].num_samples, measured.results))
    return results


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_several_processes_measure_the_same_as_one(gloo):
    keeps = 0, 10**9  # each process computes features twice
    (one,) = on_processes(1, _measured_by_one_of, 1, keeps[1:])
    for several in on_processes(2, _measured_by_one_of, 2, keeps):
        for (count, results), (expected_count, expected) in zip(several, one, strict=True):
            assert count == expected_count
            assert results.keys() == expected.keys()
            for name in results:
                assert results[name] == pytest.approx(expected[name], rel=1e-8, abs=1e-8, nan_ok=True)
