"""ReduceLROnPlateau: the value it monitors, and the epochs in which it steps."""

import sys

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau

from nc_lightning import SCL
from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.cli import main
from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Rates(Callback):
    """The step size of each epoch."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def fit(folder, scheduler, callbacks=(), interval="epoch", **options):
    torch.manual_seed(0)
    model = SCL(
        encoder=MLP((32,), [8]),
        num_classes=10,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0),
        lr_scheduler=scheduler,
        lr_interval=interval,
    )
    rates = Rates()
    options = {"max_epochs": 6, "limit_train_batches": 2, **QUIET, **options}
    trainer = Trainer(default_root_dir=folder, callbacks=[rates, *callbacks], enable_checkpointing=False, **options)
    trainer.fit(model, LatentClassDataModule(batch_size=40, samples_per_class=30))
    return rates.seen


def worse(monitor):
    """Every new value counts as worse and halves the step size."""
    return lambda optimizer: ReduceLROnPlateau(optimizer, monitor, factor=0.5, patience=0, threshold=1e9)


def test_the_plateau_schedule_follows_the_validation_loss(tmp_path):
    assert fit(tmp_path, worse("loss/val")) == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]


def test_the_plateau_class_of_torch_follows_the_validation_loss(tmp_path):
    def torchs(optimizer):
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=1e9)

    assert fit(tmp_path, torchs) == [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]


def test_a_value_counts_once_between_validations(tmp_path):
    assert fit(tmp_path, worse("loss/val"), check_val_every_n_epoch=2) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_geometry_counts_when_it_is_measured(tmp_path):
    monitor = GeometryMonitor(every_n_epochs=2)
    assert fit(tmp_path, worse("geometry/val/nc1"), [monitor]) == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_a_schedule_per_step_is_refused(tmp_path):
    with pytest.raises(ValueError, match="lr_interval: got step with ReduceLROnPlateau, expected epoch"):
        fit(tmp_path, worse("loss/val"), interval="step")


SHORT = ["fit", "--config=hscl.yaml", "--trainer.max_epochs=2", "--trainer.limit_train_batches=1"]
OURS = ["--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau", "--model.lr_scheduler.patience=0"]


def test_it_works_from_the_command_line(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    more = ["--model.lr_scheduler.threshold=1e9", "--model.lr_scheduler.monitor=loss/train"]
    cli = main([*SHORT, *OURS, *more, "--trainer.enable_progress_bar=false"])
    assert cli.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5)


def test_a_monitored_value_that_is_never_logged_is_refused(in_tmp, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    with pytest.raises(SystemExit) as ended, exit_on_error():
        main([*SHORT, *OURS, "--model.lr_scheduler.monitor=loss/vall", "--trainer.enable_progress_bar=false"])
    assert ended.value.code == 2
    assert (
        "ReduceLROnPlateau: got monitor 'loss/vall', expected a logged key such as loss/val" in capsys.readouterr().err
    )
