"""A resumed run takes some settings from the config and some state from the checkpoint."""

import math

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.cli import ReduceLROnPlateau
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from nc_lightning import SCL
from nc_lightning.callbacks import OnlineLinearProbe
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.schedules import HoldThenDecay

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
PER_EPOCH = 4


class Rates(Callback):
    """Record the step size of the optimizer at every step."""

    def __init__(self):
        self.seen = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.seen.append(optimizer.param_groups[0]["lr"])


def fit(folder, ckpt=None, optimizer=torch.optim.Adam, schedule=None, interval="epoch", epochs=4, callbacks=(), **more):
    torch.manual_seed(0)
    model = SCL(
        encoder=MLP((32,), [8]), num_classes=10, optimizer=optimizer, lr_scheduler=schedule, lr_interval=interval
    )
    rates = Rates()
    options = {"max_epochs": epochs, "limit_train_batches": PER_EPOCH, "limit_val_batches": 1, **QUIET, **more}
    trainer = Trainer(default_root_dir=folder, callbacks=[rates, *callbacks], enable_checkpointing=False, **options)
    trainer.fit(model, LatentClassDataModule(batch_size=40, samples_per_class=30), ckpt_path=ckpt)
    trainer.save_checkpoint(folder / "end.ckpt")
    return model, trainer, rates.seen


def adam(lr=1e-3, **settings):
    return lambda parameters: torch.optim.Adam(parameters, lr=lr, **settings)


SCHEDULES = {
    "HoldThenDecay": lambda o: HoldThenDecay(o, 0.25),
    "StepLR": lambda o: StepLR(o, 2, 0.5),
    "ExponentialLR": lambda o: ExponentialLR(o, 0.9),
    "LinearLR": lambda o: LinearLR(o, 0.1, total_iters=3),
    "CosineAnnealingLR": lambda o: CosineAnnealingLR(o, 32),
    "OneCycleLR": lambda o: OneCycleLR(o, max_lr=0.01, total_steps=32),
    "SequentialLR": lambda o: SequentialLR(o, [LinearLR(o, 0.1, total_iters=3), HoldThenDecay(o, 0.5)], [3]),
    "ChainedScheduler": lambda o: ChainedScheduler([ExponentialLR(o, 0.9), HoldThenDecay(o, 0.5)]),
}


@pytest.mark.some(4)
@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_new_step_size_is_used_at_the_same_place_of_the_schedule(tmp_path, name, interval):
    schedule, common = SCHEDULES[name], {"interval": interval}
    fit(tmp_path, schedule=schedule, epochs=2, max_steps=-1, **common)
    *_, expected = fit(tmp_path / "whole", optimizer=adam(0.05), schedule=schedule, epochs=8, **common)
    *_, seen = fit(tmp_path / "on", tmp_path / "end.ckpt", adam(0.05), schedule, epochs=8, **common)
    assert seen == pytest.approx(expected[2 * PER_EPOCH :], rel=1e-12)
    assert len(set(expected)) > 2


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_run_with_the_same_settings_equals_the_uninterrupted_one(tmp_path, name):
    schedule = SCHEDULES[name]
    whole = fit(tmp_path / "whole", schedule=schedule, interval="step", epochs=8)

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 14:
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    fit(tmp_path, schedule=schedule, interval="step", epochs=8, callbacks=[Stop()])
    on = fit(tmp_path / "on", tmp_path / "half.ckpt", schedule=schedule, interval="step", epochs=8)
    assert on[2] == whole[2][14:]
    for key, value in whole[0].state_dict().items():
        assert torch.equal(on[0].state_dict()[key], value), key


def test_new_settings_are_used_and_moments_are_kept(tmp_path, caplog):
    fit(tmp_path, epochs=2)
    before = torch.load(tmp_path / "end.ckpt", weights_only=True)["optimizer_states"][0]["state"][0]

    class Look(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 0 and trainer.current_epoch == 2:
                (self.first, *_), state = trainer.optimizers[0].param_groups, trainer.optimizers[0].state
                self.moment, self.first = next(iter(state.values()))["exp_avg"].clone(), dict(self.first)

    look = Look()
    fit(tmp_path / "on", tmp_path / "end.ckpt", adam(0.02, betas=(0.8, 0.9), weight_decay=0.1), callbacks=[look])
    assert (look.first["lr"], look.first["betas"], look.first["weight_decay"]) == (0.02, (0.8, 0.9), 0.1)
    assert torch.equal(look.moment, before["exp_avg"])
    text = "optimizer: resumed with new settings, "
    (line,) = [record.message for record in caplog.records if text in record.message]
    for change in ("lr 0.001 -> 0.02", "weight_decay 0 -> 0.1"):
        assert change in line.replace("0.0 ->", "0 ->"), line


def test_unchanged_settings_are_not_reported(tmp_path, caplog):
    fit(tmp_path, schedule=SCHEDULES["OneCycleLR"], epochs=2)
    fit(tmp_path, tmp_path / "end.ckpt", schedule=SCHEDULES["OneCycleLR"], epochs=4)
    assert not any("new settings" in record.message for record in caplog.records)


@pytest.mark.parametrize(("first", "then"), [("StepLR", "SequentialLR"), ("SequentialLR", "OneCycleLR")])
def test_another_schedule_replaces_that_of_the_checkpoint(tmp_path, first, then):
    fit(tmp_path, schedule=SCHEDULES[first], epochs=2)
    *_, expected = fit(tmp_path / "whole", schedule=SCHEDULES[then], epochs=8)
    *_, seen = fit(tmp_path / "on", tmp_path / "end.ckpt", schedule=SCHEDULES[then], epochs=8)
    assert seen == pytest.approx(expected[2 * PER_EPOCH :], rel=1e-12)


@pytest.mark.parametrize("first", [None, "HoldThenDecay"])
def test_a_schedule_may_be_added_or_removed(tmp_path, first):
    then = SCHEDULES["HoldThenDecay"] if first is None else None
    fit(tmp_path, schedule=SCHEDULES.get(first), epochs=2)
    *_, seen = fit(tmp_path / "on", tmp_path / "end.ckpt", schedule=then, epochs=3)
    share = 1.0 if then is None else (1 - 2 / 3) / 0.75
    assert seen == pytest.approx([1e-3 * share] * PER_EPOCH)


def test_an_extended_run_trains_in_its_first_additional_epoch(tmp_path):
    schedule = SCHEDULES["HoldThenDecay"]
    fit(tmp_path, schedule=schedule, epochs=4)
    *_, seen = fit(tmp_path / "on", tmp_path / "end.ckpt", schedule=schedule, epochs=8)
    assert seen[::PER_EPOCH] == pytest.approx([1e-3 * (1 - epoch / 8) / 0.75 for epoch in range(4, 8)])


def test_another_number_of_steps_per_epoch_still_ends_at_zero(tmp_path):
    schedule = {"schedule": SCHEDULES["HoldThenDecay"], "interval": "step"}
    fit(tmp_path, epochs=2, **schedule)
    _, trainer, seen = fit(tmp_path / "on", tmp_path / "end.ckpt", limit_train_batches=2, epochs=6, **schedule)
    length = 2 * PER_EPOCH + 4 * 2
    assert trainer.lr_scheduler_configs[0].scheduler.total_steps == length
    assert seen == pytest.approx([1e-3 * min(1, (1 - step / length) / 0.75) for step in range(8, length)])
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0


def test_another_optimizer_class_is_refused(tmp_path):
    fit(tmp_path, epochs=2)
    with pytest.raises(ValueError, match="optimizer: got SGD for a checkpoint that was trained with Adam, expected"):
        fit(tmp_path / "on", tmp_path / "end.ckpt", optimizer=lambda p: torch.optim.SGD(p, lr=0.1))


def test_new_settings_of_the_probe_are_used(tmp_path):
    def probe(make):
        return [OnlineLinearProbe(make)]

    fit(tmp_path, epochs=2, callbacks=probe(adam(1e-2)))
    (callback,) = probe(adam(0.5, weight_decay=0.1))
    fit(tmp_path / "on", tmp_path / "end.ckpt", callbacks=[callback])
    (group,) = callback._optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.1)
    with pytest.raises(ValueError, match=r"probe.optimizer: got SGD for a checkpoint that was trained with Adam"):
        fit(tmp_path / "sgd", tmp_path / "end.ckpt", callbacks=probe(torch.optim.SGD))


def plateau(**settings):
    return lambda o: ReduceLROnPlateau(o, "loss/train", mode="max", patience=0, **{"factor": 0.5, **settings})


def test_a_plateau_schedule_keeps_its_state_and_uses_new_settings(tmp_path):
    _, trainer, _ = fit(tmp_path, schedule=plateau(), epochs=4)
    reduced = trainer.optimizers[0].param_groups[0]["lr"]
    assert reduced < 1e-3
    best = trainer.lr_scheduler_configs[0].scheduler.best
    _, trainer, seen = fit(tmp_path / "on", tmp_path / "end.ckpt", adam(0.1), plateau(factor=0.1), epochs=6)
    assert seen[0] == pytest.approx(reduced * 100)
    assert trainer.lr_scheduler_configs[0].scheduler.best == best
    assert math.log10(seen[0] / seen[-1]) == pytest.approx(1)
