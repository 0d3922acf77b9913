"""Outdated values are removed: after a change in mid-run, metrics are only those of the last epoch."""

import json
from collections import defaultdict

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from nc_lightning import HSCL, HUCL
from nc_lightning.callbacks import (
    GeometryMonitor,
    HardNegativeSampler,
    NonFiniteGuard,
    OnlineLinearProbe,
    TensorBoardDashboard,
)
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

REFERENCES = {"loss/bound", "loss/optimality_gap", "loss/neural_collapse"}


class Recorder(CSVLogger):
    """Records the keys that were logged in each epoch."""

    def __init__(self, folder):
        super().__init__(folder)
        self.keys = defaultdict(set)

    def log_metrics(self, metrics, step=None):
        self.keys[int(metrics["epoch"]) if "epoch" in metrics else max(self.keys, default=0)] |= metrics.keys()


class ForgetLabels(Callback):
    """From the second epoch on, labels are unknown in training, in validation or in both."""

    def __init__(self, *sets):
        self.sets = sets

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch > 0 and "train" in self.sets:
            batch[1].fill_(-1)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if trainer.current_epoch > 0 and "val" in self.sets:
            batch[1].fill_(-1)


def fit(folder, objective, *callbacks, epochs=3, every=2, **options):
    recorder = Recorder(folder)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=[*callbacks, OnlineLinearProbe(), GeometryMonitor(every_n_epochs=every)],
        logger=recorder,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )
    trainer.fit(objective(encoder=MLP((32,), [8]), num_classes=4), LatentClassDataModule(num_classes=4))
    return trainer, recorder


CHANGES = {
    "nothing": lambda: [],
    "a queue comes": lambda: [HardNegativeSampler(queue_size=20)],
    "training labels go": lambda: [ForgetLabels("train")],
    "validation labels go": lambda: [ForgetLabels("val")],
    "all labels go": lambda: [ForgetLabels("train", "val")],
}


@pytest.mark.some(5)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("objective", [HSCL, HUCL])
@pytest.mark.parametrize("change", CHANGES)
def test_metrics_are_only_those_of_the_last_epoch(change, objective, tmp_path):
    trainer, recorder = fit(tmp_path, objective, *CHANGES[change]())
    of_last = {key for key in recorder.keys[2] if "/" in key}
    assert {key for key in trainer.callback_metrics if "/" in key} == of_last
    lost = {key for key in recorder.keys[0] if "/" in key} - of_last
    assert bool(lost) == (change != "nothing"), "else this test proves nothing"


@pytest.mark.filterwarnings("ignore")
def test_with_a_queue_table_and_report_have_no_bound(tmp_path):
    sampler = HardNegativeSampler(queue_size=20, queue_warmup=2)
    trainer, recorder = fit(tmp_path, HUCL, sampler, TensorBoardDashboard(), epochs=4)
    assert recorder.keys[1] >= REFERENCES
    assert not REFERENCES & trainer.callback_metrics.keys()
    assert torch.isfinite(trainer.callback_metrics["loss/train"])
    warmup, queued = json.loads(next(tmp_path.rglob("report.json")).read_text())["history"]
    distances = {f"geometry/{name}/distance_to_optimum" for name in ("train", "val")}
    assert warmup.keys() - queued.keys() == REFERENCES | distances


@pytest.mark.filterwarnings("ignore")
def test_the_report_has_validation_losses_only_of_validated_epochs(tmp_path):
    fit(tmp_path, HSCL, TensorBoardDashboard(), every=1, check_val_every_n_epoch=2)
    history = json.loads(next(tmp_path.rglob("report.json")).read_text())["history"]
    assert ["loss/val" in row for row in history] == [False, True, False]


class BadBatch(Callback):
    """Makes one batch of the first epoch non-finite."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.current_epoch == 0 and batch_idx == 0:
            batch[0].fill_(torch.nan)


@pytest.mark.filterwarnings("ignore")
def test_skipped_steps_of_an_earlier_fit_are_not_logged(tmp_path):
    trainer, _ = fit(tmp_path, HSCL, BadBatch(), NonFiniteGuard("skip"), epochs=2)
    assert trainer.callback_metrics["loss/skipped_steps"] == 1
    trainer.callbacks = [c for c in trainer.callbacks if not isinstance(c, BadBatch)]
    trainer.fit_loop.max_epochs = 4
    trainer.fit(HSCL(encoder=MLP((32,), [8]), num_classes=4), LatentClassDataModule(num_classes=4))
    assert "loss/skipped_steps" not in trainer.callback_metrics
