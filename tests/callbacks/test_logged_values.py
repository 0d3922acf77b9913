"""Outdated values are removed: after a change in mid-run, metrics are only those of the last epoch."""

import json
from collections import defaultdict

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from nc_lightning import HSCL, HUCL
from nc_lightning.callbacks import (
    GeometryMonitor,
    HardNegativeSampler,
    NonFiniteGuard,
    OnlineLinearProbe,
    TensorBoardDashboard,
)
from nc_lightning.callbacks.logged_values import log_means
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


class LogBothWays(Callback):
    """Logs equal values by `log_means` and by Lightning, with random weights, one key only in some epochs."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        values = {"always": torch.randn((), dtype=torch.float64).to(torch.float32), "loss": outputs["loss"]}
        if trainer.current_epoch != 1 and batch_idx != 1:
            values["sometimes"] = torch.randn(())
        weight = torch.tensor(batch_idx % 3 != 0) * 7 if batch_idx < 4 else 5
        log_means(pl_module, {f"ours/{key}": value for key, value in values.items()}, weight, prog_bar=True)
        for key, value in values.items():
            pl_module.log(
                f"its/{key}", value, on_step=False, on_epoch=True, batch_size=weight, sync_dist=True, prog_bar=True
            )

    def on_validation_epoch_end(self, trainer, pl_module):
        value = torch.randn(())
        log_means(pl_module, {"ours/val": value}, 3)
        pl_module.log("its/val", value, batch_size=3, sync_dist=True)


class Values(CSVLogger):
    """Records every logged value with its step."""

    def __init__(self, folder):
        super().__init__(folder)
        self.found = []

    def log_metrics(self, metrics, step=None):
        self.found += [(step, key, value) for key, value in metrics.items() if "/" in key]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"val_check_interval": 2}, {"accumulate_grad_batches": 2}])
def test_means_are_logged_as_by_lightning(tmp_path, options):
    logger = Values(tmp_path)
    trainer = Trainer(
        max_epochs=3, callbacks=LogBothWays(), logger=logger, log_every_n_steps=1, limit_train_batches=7,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False, **options,
    )  # fmt: skip
    trainer.fit(HSCL(encoder=MLP((32,), [8]), num_classes=4), LatentClassDataModule(num_classes=4, batch_size=16))
    found = [(step, key, value) for step, key, value in logger.found if key.startswith(("ours/", "its/"))]
    assert len([step for step, key, _ in found if key == "ours/always"]) == 3
    assert len([step for step, key, _ in found if key == "ours/sometimes"]) == 2
    for name in ("always", "loss", "sometimes", "val"):
        ours, its = ([(step, v) for step, key, v in found if key == f"{of}/{name}"] for of in ("ours", "its"))
        assert ours == its, "equal to the last digit, at the same steps"
        for metrics in (trainer.callback_metrics, trainer.logged_metrics):
            assert torch.equal(metrics[f"ours/{name}"], metrics[f"its/{name}"])
    assert trainer.progress_bar_metrics["ours/loss"] == trainer.progress_bar_metrics["its/loss"]


def test_values_are_described_to_lightning_only_once_in_a_fit(tmp_path, monkeypatch):
    described, log = [], LightningModule.log
    monkeypatch.setattr(
        LightningModule, "log", lambda self, name, *a, **kw: described.append(name) or log(self, name, *a, **kw)
    )
    fit(tmp_path, HSCL, HardNegativeSampler())
    keys = ("loss/train", "loss/bound", "loss/val", "negatives/hardness", "probe/train_loss", "probe/val_accuracy")
    assert [described.count(key) for key in keys] == [1] * 6
