import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from nc_lightning import HSCL
from nc_lightning.callbacks import ResumedEpoch
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": 4}


class Epochs(Callback):
    """Records the epoch of each step and logs a value in the first batch of each epoch only."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(trainer.current_epoch)
        if batch_idx == 0:
            pl_module.log("first", float(trainer.current_epoch), on_step=False, on_epoch=True, batch_size=3)


def fit(tmp_path, epochs, *callbacks, ckpt_path=None, **end):
    torch.manual_seed(0)
    callbacks = [epochs, *callbacks, ModelCheckpoint(tmp_path, save_top_k=-1, every_n_train_steps=1, filename="{step}")]
    trainer = Trainer(callbacks=callbacks, default_root_dir=tmp_path, **end, **QUIET)
    trainer.fit(HSCL(encoder=MLP((32,)), num_classes=10), LatentClassDataModule(batch_size=80), ckpt_path=ckpt_path)
    return trainer.callback_metrics


@pytest.mark.parametrize("end", [{"max_epochs": 3}, {"max_epochs": -1, "max_steps": 11}], ids=["epochs", "steps"])
def test_a_resumed_epoch_logs_means_over_the_whole_epoch_and_is_counted_once(tmp_path, end):
    whole = Epochs()
    expected = fit(tmp_path / "whole", whole, ResumedEpoch(), **end)
    steps = len(whole.seen)
    folder = tmp_path / "whole"
    for step in (1, 2, 4, 7, 10):  # twice in the same epoch; the last of an epoch; in the last epoch
        resumed = Epochs()
        metrics = fit(tmp_path / str(step), resumed, ResumedEpoch(), ckpt_path=folder / f"step={step}.ckpt", **end)
        assert resumed.seen == whole.seen[step:]
        for key in ("loss/train", "first"):
            assert torch.equal(metrics[key], expected[key]), (step, key)
        folder = tmp_path / str(step)  # the next run resumes the resumed one
    assert steps == end.get("max_steps", 12)


def test_an_epoch_cut_short_by_max_steps_adds_nothing_to_the_next(tmp_path):
    at_its_end = ModelCheckpoint(tmp_path / "ends")
    fit(tmp_path / "ended", Epochs(), ResumedEpoch(), at_its_end, max_epochs=-1, max_steps=2)
    assert "epoch_sums" in torch.load(at_its_end.best_model_path, weights_only=True)
    on, path = Epochs(), at_its_end.best_model_path
    metrics = fit(tmp_path / "on", on, ResumedEpoch(), max_epochs=-1, max_steps=6, ckpt_path=path)
    assert on.seen == [1, 1, 1, 1]
    assert metrics["first"] == 1


def test_lightning_alone_loses_the_first_part_of_a_resumed_epoch(tmp_path):
    whole = fit(tmp_path / "whole", Epochs(), max_epochs=1)
    half = fit(tmp_path / "half", Epochs(), max_epochs=1, ckpt_path=tmp_path / "whole" / "step=2.ckpt")
    assert not torch.equal(half["loss/train"], whole["loss/train"]), "else ResumedEpoch is no longer needed"


def test_early_stopping_uses_the_patience_of_the_resumed_run(tmp_path):
    fit(tmp_path / "a", Epochs(), ResumedEpoch(), EarlyStopping("first", patience=7), max_epochs=1)
    stopping = EarlyStopping("first", patience=9)
    fit(tmp_path / "b", Epochs(), ResumedEpoch(), stopping, max_epochs=2, ckpt_path=tmp_path / "a" / "step=4.ckpt")
    assert stopping.patience == 9
