"""Whole trainings with the callbacks of ``nc-train``: weights and metrics of the CPU, and the waits of a step."""

import functools

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from nc_lightning import HSCL, HUCL, SCL, UCL
from nc_lightning.callbacks import (
    CollapseWatch,
    GeometryMonitor,
    GracefulStop,
    HardNegativeSampler,
    NonFiniteGuard,
    OnlineLinearProbe,
    ProcessWatch,
    RandomStates,
    ResumedEpoch,
)
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import MLP, ResNet
from tests.pretend_device import NAME
from tests.pretend_run import fit

WAITS = {
    ("to the CPU", "losses/engines/sorted_batch.py sort_batch"): 1,  # number of pairs, and the windows of the classes
    ("item", "callbacks/fault_tolerance/nonfinite_guard.py _all_finite"): 1,
}
"""Host waits of a step by cause. A progress bar or a logger adds none: values logged in a step only enter the mean of
the epoch, and only that mean is read."""
ADAPTIVE_WAITS = WAITS | {("item", "callbacks/hard_negative_sampler.py on_train_batch_end"): 1}  # the fraction reached

PROBE_OPTIMIZER = functools.partial(torch.optim.Adam, lr=1e-2, weight_decay=5e-3, foreach=True)
"""The optimizer of ``nc-train``. By default Adam uses foreach on GPUs, but not on a device made in Python."""


def callbacks(adaptive=False, measured=True):
    sampler = HardNegativeSampler(schedule="adaptive", queue_size=300, queue_warmup=0)
    return [
        *([sampler] if adaptive else []),
        *([GeometryMonitor(every_n_epochs=2)] if measured else []),
        OnlineLinearProbe(PROBE_OPTIMIZER),
        NonFiniteGuard(),
        CollapseWatch(),
        RandomStates(),
        ResumedEpoch(),
        ProcessWatch(),
        GracefulStop(),
    ]


def train(device, objective, callbacks, encoder=lambda: MLP((1, 8, 8), [16]), batch_size=250, **options):
    """Return weights, metrics, the machine and the number of steps."""
    seed_everything(0, verbose=False)
    model = objective(encoder=encoder(), num_classes=10)
    trainer, machine = fit(device, model, DigitsDataModule(batch_size=batch_size), callbacks, **options)
    weights = torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()])
    return weights, {k: float(v) for k, v in trainer.callback_metrics.items()}, machine, trainer.global_step


def check_waits(machine, steps, allowed):
    waits = {key: n / steps for key, n in machine.waits_in("step").items()}
    assert waits.keys() == allowed.keys()
    assert not {key: n for key, n in waits.items() if n > allowed[key]}


@pytest.mark.parametrize(
    ("objective", "adaptive"),
    [(SCL, False), (HSCL, False), (UCL, False), (HUCL, False), (HUCL, True)],
    ids=["scl", "hscl", "ucl", "hucl", "adaptive"],
)
def test_training(objective, adaptive):
    cpu, device = (train(device, objective, callbacks(adaptive)) for device in ("cpu", NAME))
    torch.testing.assert_close(device[0], cpu[0], rtol=0, atol=1e-6)
    assert device[1] == pytest.approx(cpu[1], rel=1e-5, abs=1e-6, nan_ok=True)
    assert {"loss/train", "loss/val", "probe/train_loss", "probe/val_accuracy", "geometry/val/nc4"} <= device[1].keys()
    check_waits(device[2], device[3], ADAPTIVE_WAITS if adaptive else WAITS)


def test_a_progress_bar_and_a_logger_add_no_waits(tmp_path):
    options = {"logger": TensorBoardLogger(tmp_path), "enable_progress_bar": True, "log_every_n_steps": 2}
    _, _, machine, steps = train(NAME, HSCL, callbacks(adaptive=True), **options)
    check_waits(machine, steps, ADAPTIVE_WAITS)


@pytest.mark.parametrize("objective", [HSCL, HUCL], ids=["hscl", "hucl"])
def test_launches_of_a_resnet(objective):
    """Count the launches of guard, probe and logging in a step; loss and network have their own tests."""
    few = {"batch_size": 20, "max_epochs": 1, "limit_train_batches": 8, "limit_val_batches": 0}
    _, _, machine, steps = train(NAME, objective, callbacks(measured=False), lambda: ResNet((1, 8, 8)), **few)
    ours = ("callbacks/fault_tolerance/nonfinite_guard.py", "callbacks/online_linear_probe.py", "objectives/base.py")
    ours += ("callbacks/logged_values.py", "private_apis/lightning.py")
    assert 40 < machine.launches_in("step", *ours) / steps <= 60
