"""Whole trainings on the pretend device, by Lightning's Trainer."""

import contextlib

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from tests.pretend_device import DEVICE, NAME, Generator, Machine

BACKEND = f"cpu:gloo,{NAME}:gloo"
"""Backend of a process group that behaves like NCCL: the pretend device refuses its collectives for CPU tensors."""


def as_process():
    """Join this process to a group of `BACKEND`; objects are sent as tensors on the device, as with NCCL."""
    torch.Generator = Generator
    torch.distributed.distributed_c10d._get_object_coll_device = lambda group=None: NAME


class PretendAccelerator(Accelerator):
    """One pretend device for each process."""

    def setup_device(self, device): ...

    def teardown(self): ...

    def get_device_stats(self, device):
        return {}

    parse_devices = staticmethod(lambda devices: [0] * int(devices))
    get_parallel_devices = staticmethod(lambda devices: [DEVICE] * len(devices))
    auto_device_count = staticmethod(lambda: 1)
    is_available = staticmethod(lambda: True)
    name = staticmethod(lambda: NAME)


class PretendSingleDevice(SingleDeviceStrategy):
    """The one pretend device."""

    def __init__(self):
        super().__init__(device=DEVICE)


class PretendDDP(DDPStrategy):
    """DistributedDataParallel on a pretend device for each process."""

    def __init__(self, **options):
        super().__init__(process_group_backend=BACKEND, **options)

    def determine_ddp_device_ids(self):
        """Return None, as for any device other than CUDA."""

    def reduce(self, tensor, group=None, reduce_op="mean"):
        """Average integers too, as NCCL does and gloo does not."""
        if not isinstance(tensor, torch.Tensor) or tensor.is_floating_point() or reduce_op not in ("mean", "avg"):
            return super().reduce(tensor, group, reduce_op)
        return tensor.copy_(super().reduce(tensor, group, "sum") / self.world_size)


class Begin(Callback):
    """The first callback: marks the beginning of a step."""

    def on_train_batch_start(self, *_):
        if Machine.now is not None:
            Machine.now.phase = "step"


class End(Checkpoint):
    """The last callback: a `Checkpoint` like `GracefulStop`, since Lightning moves these behind all others."""

    def on_train_batch_end(self, *_):
        if Machine.now is not None:
            Machine.now.phase = ""


def fit(device, model, data, callbacks=(), float64=True, does="fit", ckpt_path=None, **options):
    """Run a method of a Trainer, by default fit, on the CPU or the pretend device.

    Returns:
        The Trainer and the machine, whose phase is "step" in steps of training.
    """
    machine, several = Machine(float64), torch.distributed.is_initialized()
    if device == "cpu":
        place = {"accelerator": "cpu", "strategy": "ddp" if several else "auto"}
    else:
        strategy = PretendDDP() if several else PretendSingleDevice()
        place = {"accelerator": PretendAccelerator(), "strategy": strategy}
    place["devices"] = torch.distributed.get_world_size() if several else 1
    with contextlib.nullcontext() if device == "cpu" else machine:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        options = {"max_epochs": 2} | quiet | place | options
        trainer = Trainer(callbacks=[Begin(), *callbacks, End()], **options)
        getattr(trainer, does)(model, datamodule=data, ckpt_path=ckpt_path)
    return trainer, machine
