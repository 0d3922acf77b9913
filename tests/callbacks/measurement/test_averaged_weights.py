"""Under weight averaging, geometry, loss, probe and checkpoint all use the same weights."""

import itertools

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
    WeightAveraging,
)
from torch import nn

from nc_lightning import SCL
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe
from nc_lightning.callbacks.measurement.averaged_weights import averaging_callbacks
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class OncePerEpoch(WeightAveraging):
    def should_update(self, step_idx=None, epoch_idx=None):
        return epoch_idx is not None


class Plain(nn.Linear):
    def __init__(self):
        super().__init__(32, 12)


AVERAGES = {
    "ema": lambda: EMAWeightAveraging(decay=0.9),
    "epochs": OncePerEpoch,
    "swa": lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=1),
}
ORDERS = list(itertools.permutations(["average", "monitor", "probe"]))


def encoder(batch_norm):
    return MLP((32,), (12,)) if batch_norm else Plain()


def module(batch_norm):
    torch.manual_seed(0)
    return SCL(encoder=encoder(batch_norm), num_classes=5)


def data(validation):
    given = LatentClassDataModule(num_classes=5, samples_per_class=20, batch_size=20, noise=2.0)
    if not validation:
        given.val_dataloader = lambda: []
    return given


class SavesEachEpoch(ModelCheckpoint):
    """Saves after all other callbacks have ended an epoch, and records what was measured by then."""

    def __init__(self, folder):
        super().__init__(dirpath=folder, save_top_k=0)
        self.measured = {}

    def on_train_epoch_end(self, trainer, pl_module):
        (monitor,) = (callback for callback in trainer.callbacks if isinstance(callback, GeometryMonitor))
        self.measured[trainer.current_epoch] = monitor.results
        trainer.save_checkpoint(f"{self.dirpath}/{trainer.current_epoch}.ckpt")


def fitted(tmp_path, average, order, *more, validation=True, batch_norm=False, **options):
    callbacks = {"average": AVERAGES[average](), "monitor": GeometryMonitor(), "probe": OnlineLinearProbe()}
    given = [*(callbacks[name] for name in order), *more]
    options = {"max_epochs": 3, "enable_checkpointing": False, **QUIET, **options}
    trainer = Trainer(callbacks=given, default_root_dir=tmp_path, **options)
    trainer.fit(module(batch_norm), data(validation))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    return trainer, callbacks["monitor"]


def validated(tmp_path, validation=True, batch_norm=False, path="end.ckpt"):
    monitor = GeometryMonitor()
    trainer = Trainer(callbacks=[OnlineLinearProbe(), monitor], default_root_dir=tmp_path, **QUIET)
    loaded = SCL.load_from_checkpoint(tmp_path / path, encoder=encoder(batch_norm), num_classes=5, weights_only=False)
    given = data(True)
    trainer.validate(loaded, given, ckpt_path=tmp_path / path, verbose=False, weights_only=False)
    results = monitor.results if validation else {"train": monitor.results["train"]}
    return results, trainer.callback_metrics


@pytest.mark.some(3)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("average", "order"), [*(("ema", order) for order in ORDERS), ("epochs", ORDERS[0]), ("epochs", ORDERS[-1])]
)
def test_metrics_and_checkpoint_use_the_averaged_weights_in_every_callback_order(tmp_path, average, order):
    trainer, monitor = fitted(tmp_path, average, order)
    results, metrics = validated(tmp_path)
    assert results.keys() == monitor.results.keys() == {"train", "val"}
    for name, values in results.items():
        assert values == monitor.results[name], name
    assert trainer.callback_metrics["loss/val"] == metrics["loss/val"]
    assert trainer.callback_metrics["probe/val_accuracy"] == metrics["probe/val_accuracy"]
    assert monitor.losses(trainer)["loss/val"] == metrics["loss/val"].item()


@pytest.mark.some(3)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("validation", [True, False], ids=["validation", "without"])
@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[-1]], ids="-".join)
@pytest.mark.parametrize("average", ["ema", "epochs"])
def test_a_checkpoint_holds_the_weights_that_were_measured(tmp_path, average, order, validation):
    saves = SavesEachEpoch(tmp_path)
    fitted(tmp_path, average, order, saves, validation=validation, enable_checkpointing=True)
    assert list(saves.measured) == [0, 1, 2]
    state = torch.load(tmp_path / "1.ckpt", weights_only=False)
    name = "encoder.weight"
    assert (state["current_model_state"][name] - state["state_dict"][name]).abs().max() > 1e-3  # of two weights
    results, _ = validated(tmp_path, validation, path="1.ckpt")
    assert results == saves.measured[1]


@pytest.mark.some(3)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("validation", [True, False], ids=["validation", "without"])
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch_norm"])
@pytest.mark.parametrize("order", [ORDERS[0], ORDERS[-1]], ids="-".join)
def test_the_final_measurement_uses_the_weights_of_swa(tmp_path, order, batch_norm, validation):
    trainer, monitor = fitted(tmp_path, "swa", order, validation=validation, batch_norm=batch_norm)
    results, metrics = validated(tmp_path, validation, batch_norm)
    assert monitor.results == results
    if batch_norm and validation:
        assert monitor.losses(trainer)["loss/val"] == metrics["loss/val"].item()
    else:
        # Validation losses from before the weights were replaced do not belong to this model.
        assert "loss/val" not in monitor.losses(trainer)
        assert trainer.callback_metrics.get("loss/val") != metrics["loss/val"]


def test_the_monitor_is_moved_only_behind_weight_averaging(tmp_path):
    monitor, average, probe = GeometryMonitor(), EMAWeightAveraging(), OnlineLinearProbe()
    trainer = Trainer(callbacks=[monitor, average, probe], max_epochs=1, enable_checkpointing=False, **QUIET)
    trainer.fit(module(False), data(True))
    assert [c for c in trainer.callbacks if c in (monitor, average, probe)] == [average, monitor, probe]
    assert averaging_callbacks(trainer) == [average]
