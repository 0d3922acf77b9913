import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, PolynomialLR, SequentialLR

from nc_lightning import HSCL
from nc_lightning.callbacks import HardNegativeSampler
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.schedules import HoldThenDecay


def rates(total_steps, steps, state=None):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = HoldThenDecay(optimizer, 0.5, total_steps)
    if state is not None:
        schedule.load_state_dict(state)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen, schedule


def test_the_step_size_is_held_and_then_falls_to_zero():
    seen, schedule = rates(total_steps=8, steps=8)
    assert seen == pytest.approx([2, 2, 2, 2, 2, 1.5, 1, 0.5])
    assert schedule.get_last_lr() == [0]


def test_a_longer_training_can_resume_the_schedule():
    _, schedule = rates(total_steps=4, steps=4)
    seen, _ = rates(total_steps=8, steps=4, state=schedule.state_dict())
    assert seen[1:] == pytest.approx([1.5, 1, 0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.5, 0), "total_steps: got 0"), ((1.0,), "hold: got 1.0, expected a share"), ((-1,), "hold: got -1")],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HoldThenDecay(torch.optim.SGD([torch.zeros(1)], lr=1.0), *arguments)


def test_a_schedule_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="total_steps: got None outside of an objective"):
        rates(total_steps=None, steps=1)


PER_EPOCH = 6
LENGTHS = {
    "max_epochs": ({"max_epochs": 3}, 18, 3),
    "max_steps first": ({"max_epochs": 9, "max_steps": 14}, 14, 3),
    "max_epochs first": ({"max_epochs": 2, "max_steps": 14}, 12, 2),
    "max_steps at the end of an epoch": ({"max_epochs": 9, "max_steps": 12}, 12, 2),
    "max_steps alone": ({"max_epochs": -1, "max_steps": 14}, 14, 3),
    "max_steps without epochs": ({"max_steps": 14}, 14, 3),
    "max_time and max_epochs": ({"max_epochs": 3, "max_time": "00:01:00:00"}, 18, 3),
    "accumulated": ({"max_epochs": 3, "accumulate_grad_batches": 4}, 6, 3),
    "accumulated, max_steps": ({"max_epochs": 9, "max_steps": 5, "accumulate_grad_batches": 4}, 5, 3),
    "accumulated by a scheduler": ({"max_epochs": 4, "callbacks": {1: 2, 3: 6}}, 6 + 3 + 3 + 1, 4),
    "a scheduler and max_steps": ({"max_steps": 10, "callbacks": {1: 2}}, 10, 3),
    "a share of the batches": ({"max_epochs": 3, "limit_train_batches": 0.5}, 9, 3),
    "overfit_batches": ({"max_epochs": 3, "overfit_batches": 2}, 6, 3),
    "fast_dev_run": ({"fast_dev_run": 2}, 2, 1),
    "iterable": ({"max_epochs": 9, "max_steps": 14}, 14, 9),
}


def fit(tmp_path, options, interval, schedule=HoldThenDecay, iterable=False):
    options = {"limit_val_batches": 0, **options}
    if "callbacks" in options:
        options["callbacks"] = [GradientAccumulationScheduler(options["callbacks"])]
    sampler = HardNegativeSampler(schedule="linear")
    options["callbacks"] = [*options.get("callbacks", []), sampler]
    model = HSCL(encoder=MLP((32,), [8]), num_classes=10, lr_scheduler=schedule, lr_interval=interval)
    data = LatentClassDataModule(batch_size=40, samples_per_class=4 * PER_EPOCH)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=tmp_path, enable_checkpointing=False, **quiet, **options)
    if iterable:
        data.setup()
        trainer.fit(model, (batch for _ in range(9) for batch in data.train_dataloader()))
    else:
        trainer.fit(model, data)
    return trainer, sampler


@pytest.mark.parametrize(("name", "interval"), [(name, i) for name in LENGTHS for i in ("step", "epoch")])
def test_schedules_end_with_training(tmp_path, name, interval):
    options, steps, epochs = LENGTHS[name]
    trainer, sampler = fit(tmp_path, options, interval, iterable=name == "iterable")
    assert trainer.global_step == steps
    (config,) = trainer.lr_scheduler_configs
    assert config.scheduler.total_steps == (steps if interval == "step" else epochs)
    if interval == "step" or steps % PER_EPOCH == 0:
        assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    assert sampler._total_steps == steps


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_max_time_alone_is_no_length(tmp_path, interval):
    with pytest.raises(ValueError, match="lr_scheduler: got HoldThenDecay for a training without end, .*max_time"):
        fit(tmp_path, {"max_time": "00:01:00:00"}, interval)


def test_the_parts_of_a_sequence_have_their_own_lengths(tmp_path):
    def schedule(optimizer):
        return SequentialLR(optimizer, [LinearLR(optimizer, 0.1, total_iters=5), HoldThenDecay(optimizer, 0.5)], [5])

    trainer, _ = fit(tmp_path, {"max_epochs": 3}, "step", schedule)
    assert trainer.lr_scheduler_configs[0].scheduler._schedulers[1].total_steps == 13
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "schedule", [lambda o: CosineAnnealingLR(o, 10), lambda o: OneCycleLR(o, 0.1, 30), lambda o: PolynomialLR(o, 5)]
)
def test_a_schedule_that_does_not_end_with_training_is_reported(tmp_path, schedule):
    with pytest.warns(UserWarning, match=r"lr_scheduler: got \w+ with \w+ = \d+ for a training of 18 steps"):
        fit(tmp_path, {"max_epochs": 3}, "step", schedule)


def test_schedules_of_torch_that_end_with_training_are_not_reported(tmp_path, recwarn):
    fit(tmp_path, {"max_steps": 14}, "step", lambda o: CosineAnnealingLR(o, 14))
    assert not any("lr_scheduler" in str(warning.message) for warning in recwarn)
