import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe, TensorBoardDashboard
from nc_lightning.callbacks.dashboard.settings import run_settings
from nc_lightning.data import DigitsDataModule, SimCLR
from nc_lightning.encoders import MLP
from nc_lightning.reports.record import RunRecord

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def fitted(data, encoder=None, callbacks=(), folder=None, **options):
    module = HSCL(encoder=encoder or MLP((1, 8, 8), (5,)), num_classes=10, **options)
    steps = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 2, "num_sanity_val_steps": 0}
    trainer = Trainer(default_root_dir=folder, callbacks=list(callbacks), **steps, **QUIET)
    trainer.fit(module, data)
    return trainer, module


@pytest.mark.filterwarnings("ignore")
def test_network_data_views_and_optimizer_are_named():
    augmentation = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomRotation(3)])
    optimizer = lambda parameters: SGD(parameters, lr=0.125, weight_decay=0.5)  # noqa: E731
    data = DigitsDataModule(batch_size=50, views=2, augmentation=augmentation, batches="random")
    trainer, module = fitted(data, optimizer=optimizer)
    settings = run_settings(trainer, module)
    assert settings["encoder"] == f"MLP, {sum(p.numel() for p in module.encoder.parameters())} parameters"
    assert settings["projector"] == f"Linear, {5 * 9 + 9} parameters"
    assert settings["data"] == "DigitsDataModule: scikit-learn's digits, 70% of each class"
    assert (settings["views"], settings["batches"], settings["batch_size"]) == (2, "random", 50)
    assert settings["augmentation"].startswith("Compose( RandomHorizontalFlip(p=0.5) RandomRotation(")
    assert (settings["optimizer"], settings["lr"], settings["weight_decay"]) == ("SGD", 0.125, 0.5)
    assert settings["lr_scheduler"] == "none"


@pytest.mark.filterwarnings("ignore")
def test_the_initial_step_size_is_shown_under_a_schedule():
    schedule = lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.1)  # noqa: E731
    optimizer = lambda parameters: SGD(parameters, lr=0.125)  # noqa: E731
    trainer, module = fitted(DigitsDataModule(batch_size=50), optimizer=optimizer, lr_scheduler=schedule)
    settings = run_settings(trainer, module)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0125)
    assert (settings["lr"], settings["lr_scheduler"]) == (0.125, "StepLR")


@pytest.mark.filterwarnings("ignore")
def test_loaders_and_long_augmentations_have_a_short_name():
    loader = DataLoader(TensorDataset(torch.randn(20, 1, 8, 8), torch.arange(20) % 10), 10)
    settings = run_settings(*fitted(loader))
    assert settings["data"] == "DataLoader: TensorDataset"
    assert "augmentation" not in settings
    data = DigitsDataModule(batch_size=50, augmentation=nn.Sequential(*[nn.Identity() for _ in range(99)]))
    assert len(run_settings(*fitted(data))["augmentation"]) < 310
    assert repr(SimCLR(0.25)) == "SimCLR(strength=0.25, smallest_crop=0.2, flip=0.5, blur=0)"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("probe_first", [False, True])
def test_the_record_has_the_accuracy_of_the_probe(tmp_path, probe_first):
    probe, others = OnlineLinearProbe(), [GeometryMonitor(), TensorBoardDashboard()]
    callbacks = [probe, *others] if probe_first else [*others, probe]
    trainer, _ = fitted(DigitsDataModule(batch_size=50), callbacks=callbacks, folder=tmp_path)
    latest = RunRecord.read(tmp_path).latest("probe/")
    assert latest.keys() == {"train_accuracy", "val_accuracy"}
    for key, value in latest.items():
        assert value == trainer.callback_metrics[f"probe/{key}"].item()
