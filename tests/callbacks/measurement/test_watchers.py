"""Callbacks that watch a geometry key act only in epochs in which it was measured."""

import pickle
import warnings

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from nc_lightning import SCL
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


def module(monitor=None, interval="epoch"):
    class Plateau(SCL):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1.0)
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9)
            config = {"scheduler": scheduler, "monitor": monitor, "interval": interval}
            return {"optimizer": optimizer, "lr_scheduler": config}

    return (SCL if monitor is None else Plateau)(encoder=MLP((32,), (8,)), num_classes=4)


def data():
    return LatentClassDataModule(num_classes=4, samples_per_class=10, batch_size=20, noise=2.0)


def fit(tmp_path, *callbacks, monitor=None, model=None, given=None, **options):
    options = {"max_epochs": 7, "enable_checkpointing": False, **QUIET, **options}
    monitor = monitor or GeometryMonitor(every_n_epochs=3)
    trainer = Trainer(callbacks=[*callbacks, monitor], default_root_dir=tmp_path, **options)
    trainer.fit(model or module(), given or data())
    return trainer


class Counts(EarlyStopping):
    """Never finds an improvement, and records when it checked."""

    def __init__(self, key="geometry/val/nc1", **kwargs):
        super().__init__(key, min_delta=1e9, **kwargs)
        self.seen = []

    def _run_early_stopping_check(self, trainer):
        if self.monitor in trainer.callback_metrics:
            self.seen.append((trainer.current_epoch + 1, trainer.callback_metrics[self.monitor].item()))
        super()._run_early_stopping_check(trainer)


OPTIONS = [
    {},
    {"val_check_interval": 0.5},
    {"check_val_every_n_epoch": 2},
    {"val_check_interval": 3, "check_val_every_n_epoch": None},
    {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_early_stopping_counts_only_measured_epochs(tmp_path, options):
    stopping, measured = Counts(patience=2), Measured()
    trainer = fit(tmp_path, stopping, measured, max_epochs=20, **options)
    # The first is the best; two without improvement follow.
    assert [epoch for epoch, _ in stopping.seen] == [epoch for epoch, _ in measured.heard] == [3, 6, 9]
    expected = [values["geometry/val/nc1"] for _, values in measured.heard]
    assert [value for _, value in stopping.seen] == pytest.approx(expected, rel=1e-6)
    assert trainer.current_epoch == 9
    assert len({value for _, value in stopping.seen}) == 3
    assert (stopping.strict, stopping._check_on_train_epoch_end) == (True, options == {})  # as set by Lightning


class Measured(Callback):
    def __init__(self):
        self.heard = []

    def on_geometry_measured(self, trainer, pl_module, monitor):
        self.heard.append((monitor.epoch, monitor.by_key()))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_model_checkpoint_chooses_among_measured_epochs(tmp_path, options):
    checkpoint = ModelCheckpoint(tmp_path, "{epoch}", "geometry/val/nc1", save_top_k=-1)
    measured = Measured()
    fit(tmp_path, checkpoint, measured, enable_checkpointing=True, **options)
    assert {path.name for path in tmp_path.glob("*.ckpt")} == {"epoch=2.ckpt", "epoch=5.ckpt", "epoch=6.ckpt"}
    scores = [value.item() for value in checkpoint.best_k_models.values()]
    assert scores == pytest.approx([values["geometry/val/nc1"] for _, values in measured.heard], rel=1e-6)
    assert "_save_topk_checkpoint" not in vars(checkpoint)
    assert checkpoint._save_on_train_epoch_end is None
    pickle.dumps(checkpoint)


def test_when_one_watcher_is_refused_the_others_are_unchanged(tmp_path):
    counts, by_steps = Counts(), ModelCheckpoint(monitor="geometry/val/nc1", every_n_train_steps=2)
    with pytest.raises(ValueError, match="expected every_n_epochs"):
        fit(tmp_path, counts, by_steps, enable_checkpointing=True)
    assert counts.strict


def test_reduce_lr_on_plateau_steps_only_in_measured_epochs(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="ReduceLROnPlateau")
        trainer = fit(tmp_path, model=module("geometry/train/nc1"))
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3)  # a tenth, 3 times


def test_geometry_is_logged_in_the_epoch_it_was_measured_in(tmp_path):
    class Reads(Callback):
        seen = {}

        def on_train_epoch_end(self, trainer, pl_module):
            for name in ("callback_metrics", "logged_metrics"):
                there = "geometry/train/nc1" in getattr(trainer, name)
                self.seen.setdefault(trainer.current_epoch + 1, set()).add(there)

    reads = Reads()
    options = {"max_epochs": 7, "enable_checkpointing": False, **QUIET}
    trainer = Trainer(callbacks=[GeometryMonitor(every_n_epochs=3), reads], default_root_dir=tmp_path, **options)
    trainer.fit(module(), data())
    assert reads.seen == {epoch: {epoch in (3, 6, 7)} for epoch in range(1, 8)}
    assert "geometry/val/nc1" in trainer.callback_metrics


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (
            EarlyStopping("geometry/val/nc11"),
            "EarlyStopping: got monitor 'geometry/val/nc11', expected a measured key such as geometry/val/nc1, ",
        ),
        (EarlyStopping("geometry/test/nc1"), "EarlyStopping: got monitor 'geometry/test/nc1', expected"),
        (ModelCheckpoint(monitor="geometry/val/nc3"), "ModelCheckpoint: got monitor 'geometry/val/nc3', expected"),
        (
            ModelCheckpoint(monitor="geometry/val/nc1", every_n_train_steps=1),
            "ModelCheckpoint: got monitor 'geometry/val/nc1', measured at the end of epochs, and a period in steps",
        ),
        ("step", "ReduceLROnPlateau: got monitor 'geometry/train/nc1', measured at the end of epochs, and interval"),
    ],
)
def test_a_geometry_key_that_is_never_logged_is_refused_at_the_start(tmp_path, callback, message):
    callbacks = [] if callback == "step" else [callback]
    model = module("geometry/train/nc1", "step") if callback == "step" else module()
    with pytest.raises(ValueError, match=message) as error:
        fit(tmp_path, *callbacks, model=model, enable_checkpointing=True)
    assert model.trainer.global_step == 0
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 240


def test_validation_keys_are_refused_without_validation(tmp_path):
    with pytest.raises(ValueError, match="got monitor 'geometry/val/nc1', expected .* geometry/train/nc1, ") as error:
        fit(tmp_path, EarlyStopping("geometry/val/nc1"), limit_val_batches=0)
    assert str(error.value).count("geometry/val/") == 1
    fit(tmp_path, EarlyStopping("geometry/train/nc1"), limit_val_batches=0, max_epochs=3)
    fit(tmp_path, EarlyStopping("geometry/train/nc4"), OnlineLinearProbe(), max_epochs=3)


def test_a_key_of_a_missing_second_loader_is_refused_in_one_line(tmp_path):
    with pytest.raises(
        ValueError, match="monitor: got 'geometry/val_1/nc1', which is not measured here, expected"
    ) as error:
        fit(tmp_path, EarlyStopping("geometry/val_1/nc1"))
    assert "such as geometry/val/nc1, " in str(error.value)
    assert len(str(error.value)) < 240


def test_a_distance_to_a_minimum_that_is_neural_collapse_is_refused_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="got 'geometry/train/distance_to_optimum', which is not measured here"):
        fit(tmp_path, EarlyStopping("geometry/train/distance_to_optimum"))
