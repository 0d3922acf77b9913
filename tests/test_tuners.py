"""Lightning's tuners and BackboneFinetuning work with all our callbacks and leave no trace."""

import sys

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BackboneFinetuning, BatchSizeFinder, LearningRateFinder

from nc_lightning import HSCL
from nc_lightning.callbacks import (
    GeometryMonitor,
    HardNegativeSampler,
    NonFiniteGuard,
    OnlineLinearProbe,
    RandomStates,
    ResumedEpoch,
)
from nc_lightning.cli import main
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.schedules import HoldThenDecay

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class Seen(Callback):
    """The step sizes and the labels of each step."""

    def __init__(self):
        self.rates, self.batches = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch[0].sum())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([group["lr"] for group in optimizer.param_groups])


def fit(folder, *tuners, ckpt=None, batch_size=40, lr=None, **options):
    torch.manual_seed(0)
    model = HSCL(
        encoder=MLP((32,), [8]),
        num_classes=10,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=lr or 1e-3),
        lr_scheduler=lambda optimizer: HoldThenDecay(optimizer, 0.5),
        lr_interval="step",
    )
    seen = Seen()
    ours = [HardNegativeSampler(schedule="adaptive", queue_size=100, queue_warmup=0), GeometryMonitor(every_n_epochs=2)]
    ours += [OnlineLinearProbe(), NonFiniteGuard(), RandomStates(), ResumedEpoch()]
    options = {"max_epochs": 4, "limit_val_batches": 1, **QUIET, **options}
    trainer = Trainer(default_root_dir=folder, callbacks=[seen, *tuners, *ours], enable_checkpointing=False, **options)
    data = LatentClassDataModule(batch_size=batch_size, samples_per_class=30)
    trainer.fit(model, data, ckpt_path=ckpt)
    trainer.save_checkpoint(folder / "end.ckpt")
    return model, trainer, seen, data


def assert_same(one, other):
    for key, value in other[0].state_dict().items():
        assert torch.equal(one[0].state_dict()[key], value), key
    assert one[2].rates == other[2].rates
    assert all(map(torch.equal, one[2].batches, other[2].batches))
    metrics, expected = one[1].callback_metrics, other[1].callback_metrics
    assert metrics.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(metrics[key].nan_to_num(-7), value.nan_to_num(-7)), key


def test_a_search_without_an_update_leaves_no_trace(tmp_path):
    assert_same(fit(tmp_path / "a", LearningRateFinder(update_attr=False)), fit(tmp_path / "b"))


def test_training_uses_the_step_size_found(tmp_path):
    found = fit(tmp_path / "a", LearningRateFinder(num_training_steps=25))
    assert found[0].lr != 1e-3
    assert_same(found, fit(tmp_path / "b", lr=found[0].lr))
    assert found[1].lr_scheduler_configs[0].scheduler.base_lrs == [found[0].lr] * 2


def test_training_uses_the_batch_size_found(tmp_path):
    found = fit(tmp_path / "a", BatchSizeFinder(init_val=20))
    assert found[3].batch_size == 160, "the largest of 20, 40, 80 and 160 that 300 samples fill"
    assert_same(found, fit(tmp_path / "b", batch_size=160))


@pytest.mark.exhaustive
def test_both_tuners_can_run_in_sequence(tmp_path):
    found = fit(tmp_path / "a", BatchSizeFinder(init_val=20), LearningRateFinder(num_training_steps=25))
    assert_same(found, fit(tmp_path / "b", batch_size=160, lr=found[0].lr))


def test_a_missing_attribute_is_refused_in_one_line(in_tmp, refusal):
    finder = ["--trainer.callbacks+=LearningRateFinder", "--trainer.callbacks.attr_name=nope"]
    assert "nope" in refusal(main, ["fit", "--config=hscl.yaml", *finder])


@pytest.mark.some(1)
@pytest.mark.parametrize("mode", ["power", "binsearch"])
def test_the_search_over_random_batches_ends_at_the_size_of_the_data_set(tmp_path, mode):
    data = LatentClassDataModule(batch_size=40, samples_per_class=30, batches="random")
    finder = BatchSizeFinder(mode, init_val=20)
    trainer = Trainer(default_root_dir=tmp_path, callbacks=[finder], enable_checkpointing=False, max_epochs=1, **QUIET)
    trainer.fit(HSCL(encoder=MLP((32,), [8]), num_classes=10), data)
    assert data.batch_size == finder.optimal_batch_size == (160 if mode == "power" else 152)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init_val": 2}, "init_val: got 2, expected a multiple of the 10 classes"),
        ({"init_val": 400}, "init_val: got 400, expected at most 300"),
        ({"init_val": 20, "mode": "binsearch"}, "mode: got binsearch with balanced batches, expected power"),
    ],
)
def test_impossible_batch_sizes_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=f"BatchSizeFinder: {message}"):
        fit(tmp_path, BatchSizeFinder(**arguments))


@pytest.mark.parametrize("tuner", [LearningRateFinder(), BatchSizeFinder(init_val=20)], ids=lambda t: type(t).__name__)
def test_a_resumed_run_is_not_tuned(tmp_path, tuner):
    fit(tmp_path, max_epochs=1)
    with pytest.raises(ValueError, match=rf"{type(tuner).__name__}: got a run that resumes .*end.ckpt"):
        fit(tmp_path / "on", tuner, ckpt=tmp_path / "end.ckpt")


def test_lr_is_the_step_size_of_the_optimizer():
    model = HSCL(encoder=MLP((32,), [8]), num_classes=10, optimizer=lambda p: torch.optim.SGD(p, lr=0.3))
    assert model.lr == 0.3
    model.lr = 0.7
    assert [group["lr"] for group in model.configure_optimizers().param_groups] == [0.7, 0.7]
    with pytest.raises(ValueError, match="lr: got 0"):
        model.lr = 0


def test_backbone_finetuning_also_works_in_a_resumed_run(tmp_path):
    whole = fit(tmp_path / "a", BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=1e-5))
    rates = whole[2].rates
    assert [len(groups) for groups in rates[::7]] == [2, 3, 3, 3]
    assert [groups[0] for groups in rates[:14]] == [1e-3] * 14
    assert [groups[2] for groups in rates[7::7]] == pytest.approx([1e-5, 2e-5, 4e-5])
    half = fit(tmp_path / "b", BackboneFinetuning(2), max_epochs=3)
    before = [parameter.clone() for parameter in half[0].backbone.parameters()]
    on = fit(tmp_path / "c", BackboneFinetuning(2), ckpt=tmp_path / "b" / "end.ckpt")
    assert not any(map(torch.equal, before, on[0].backbone.parameters()))


SHORT = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--model.encoder.hidden_features=[8]"]


@pytest.mark.some(1)
@pytest.mark.parametrize(
    "callback",
    [
        ["LearningRateFinder", "--trainer.callbacks.num_training_steps=10"],
        ["BatchSizeFinder", "--trainer.callbacks.init_val=320"],
        ["BackboneFinetuning", "--trainer.callbacks.unfreeze_backbone_at_epoch=1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_it_works_from_the_command_line(in_tmp, monkeypatch, callback):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    cli = main(["fit", "--config=hscl.yaml", *SHORT, f"--trainer.callbacks+={callback[0]}", *callback[1:]])
    assert cli.trainer.current_epoch == 2
    if callback[0] == "BatchSizeFinder":
        assert cli.datamodule.batch_size == 640
