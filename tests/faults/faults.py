"""Fault-injecting callbacks and an encoder that draws random numbers, for configs of nc-train."""

import os
import signal

import torch
from lightning.pytorch import Callback
from torch import nn

from nc_lightning.encoders import MLP


class SignalAt(Callback):
    """Send this process a signal at the start or at a step: in forward, backward, batch_end, validation or writing."""

    def __init__(self, step: int, place: str = "batch_end", signum: str = "SIGKILL", rank: int = 0, times: int = 1):
        self.step, self.place, self.signum, self.rank, self.times = step, place, signum, rank, times
        if place == "start" and rank == int(os.environ.get("LOCAL_RANK", 0)):
            torch.distributed.init_process_group = lambda *_, **__: os.kill(os.getpid(), signal.Signals[signum])

    def _pass(self, trainer, place):
        if (trainer.global_step, place, trainer.global_rank) == (self.step, self.place, self.rank):
            for _ in range(self.times):
                os.kill(os.getpid(), signal.Signals[self.signum])

    def on_fit_start(self, trainer, pl_module):
        pl_module.projector.register_forward_hook(lambda module, *_: self._pass(trainer, "forward" * module.training))
        pl_module.projector.register_full_backward_hook(lambda *_: self._pass(trainer, "backward"))
        os.fsync, sync = lambda file: (self._pass(trainer, "writing"), sync(file)), os.fsync

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self._pass(trainer, "batch_end")

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        if not trainer.sanity_checking:
            self._pass(trainer, "validation")


class FailAt(Callback):
    """Raise a user error in only one process."""

    def __init__(self, step: int, rank: int):
        self.step, self.rank = step, rank

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            raise ValueError("data: got something bad")


class Dropout(nn.Sequential):
    """A small network with dropout, which draws from the global generator of torch."""

    def __init__(self, width: int = 16):
        super().__init__(MLP([1, 8, 8], [width]), nn.Dropout(0.2))
        self.out_features = width


class KilledOnce(Callback):
    """Kill this process at a step, unless a file records that this has already happened."""

    def __init__(self, step: int, file: str):
        self.step, self.file = step, file

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step and not os.path.exists(self.file):
            open(self.file, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
