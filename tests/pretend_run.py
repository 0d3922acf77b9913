"""Whole trainings on the pretend device, by Lightning's Trainer."""

import contextlib

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import SingleDeviceStrategy
from pretend_device import DEVICE, NAME, Machine


class PretendAccelerator(Accelerator):
    """One pretend device for each process."""

    def setup_device(self, device): ...

    def teardown(self): ...

    def get_device_stats(self, device):
        return {}

    parse_devices = staticmethod(lambda devices: [0])
    get_parallel_devices = staticmethod(lambda devices: [DEVICE])
    auto_device_count = staticmethod(lambda: 1)
    is_available = staticmethod(lambda: True)
    name = staticmethod(lambda: NAME)


class Begin(Callback):
    """Before all others: what comes now is a step."""

    def on_train_batch_start(self, *_):
        if Machine.now is not None:
            Machine.now.phase = "step"


class End(Checkpoint):
    """After all others: a `Checkpoint` as `GracefulStop`, which Lightning moves behind all that are none."""

    def on_train_batch_end(self, *_):
        if Machine.now is not None:
            Machine.now.phase = ""


def fit(device, model, data, callbacks=(), float64=True, does="fit", ckpt_path=None, **options):
    """Train, or whatever else a Trainer does, on the CPU or the pretend device.

    Returns:
        The Trainer and the machine, whose phase is "step" in steps of training.
    """
    machine = Machine(float64)
    if device == "cpu":
        place = {"accelerator": "cpu"}
    else:
        place = {"accelerator": PretendAccelerator(), "strategy": SingleDeviceStrategy(device=DEVICE)}
    with contextlib.nullcontext() if device == "cpu" else machine:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        options = {"max_epochs": 2, "devices": 1} | quiet | place | options
        trainer = Trainer(callbacks=[Begin(), *callbacks, End()], **options)
        getattr(trainer, does)(model, datamodule=data, ckpt_path=ckpt_path)
    return trainer, machine
