"""A monitor of a key that is not logged is refused before the first epoch."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, ModelCheckpoint

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, RunCheckpoint
from nc_lightning.cli.errors import explain
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Theirs(Callback):
    """Logs a key of its own."""

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("mine", 1.0)


def fit(folder, *callbacks, **options):
    torch.manual_seed(0)
    trainer = Trainer(max_epochs=1, limit_train_batches=2, default_root_dir=folder, callbacks=[*callbacks], **QUIET)
    trainer.fit(HSCL(encoder=MLP((32,), [8]), num_classes=10, **options), LatentClassDataModule())
    return trainer


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("loss/vall", "loss/val"),
        ("val_loss", "loss/val"),
        ("nc1", "geometry/train/nc1, geometry/val/nc1"),
        ("geometry/val/nc_1", "geometry/val/nc1"),
        ("negatives/hardnes", "negatives/hardness"),
    ],
)
@pytest.mark.parametrize("watcher", [EarlyStopping, lambda key: ModelCheckpoint(monitor=key)])
def test_a_wrong_key_is_refused_with_the_nearest(watcher, key, near, tmp_path):
    with pytest.raises(ValueError, match=rf"got monitor '{key}', expected a (logged|measured) key such as {near}"):
        fit(tmp_path, GeometryMonitor(), watcher(key))
    assert not list(tmp_path.rglob("*.ckpt")), "no epoch has run"


@pytest.mark.parametrize("key", ["loss/vall", "geometry/val/nc11"])
def test_the_command_line_names_its_option(key, tmp_path):
    with pytest.raises(ValueError, match="got monitor") as raised:
        fit(tmp_path, GeometryMonitor(), RunCheckpoint(tmp_path, monitor=key))
    assert explain(raised.value).startswith(f"--checkpoint.monitor: got {key!r}, expected a ")


@pytest.mark.parametrize("key", ["loss/val", "loss/train", "loss/optimality_gap", "geometry/val/nc1", "step"])
def test_a_right_key_is_accepted(key, tmp_path):
    assert fit(tmp_path, GeometryMonitor(), ModelCheckpoint(tmp_path, monitor=key)).current_epoch == 1


@pytest.mark.parametrize("other", [Theirs(), LambdaCallback(on_train_epoch_end=lambda t, m: m.log("mine", 1.0))])
def test_keys_of_others_are_accepted(other, tmp_path):
    assert fit(tmp_path, other, ModelCheckpoint(tmp_path, monitor="mine")).current_epoch == 1
