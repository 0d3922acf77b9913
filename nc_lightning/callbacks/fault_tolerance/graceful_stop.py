"""Graceful shutdown: finish the step, save a checkpoint, and stop all processes at the same step."""

import os
import shlex
import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from nc_lightning.callbacks.run_checkpoint import RunCheckpoint
from nc_lightning.callbacks.sources import checkpoint_folder
from nc_lightning.distributed.launcher import launcher
from nc_lightning.io.atomic import short_path, unused_path
from nc_lightning.private_apis.lightning import can_stop_early, log_epoch_means, shift_logged_step

STOPPING = b"\nstopping after this step; press Ctrl-C again to stop at once\n"


class Interrupted(SystemExit):
    """Exit of a training that a signal has stopped, with code 143 for SIGTERM and 130 for Ctrl-C."""


class GracefulStop(Checkpoint):
    """Stop a fit gracefully on SIGTERM, or on SIGINT as from Ctrl-C.

    The step is finished, with all batches of ``accumulate_grad_batches``, ``interrupted-epoch=E-step=S.ckpt`` is saved
    next to the other checkpoints, and the program exits with code 143 or 130; a run that resumes this checkpoint ends
    like an uninterrupted one. A signal during the last batch of an epoch or the validation that follows takes effect at
    the end of the epoch; a run that is already finishing ends normally. A second Ctrl-C stops at once, without a
    checkpoint.

    With several processes, rank 0 decides, so that all stop after the same step. On GPUs it broadcasts its decision
    after the backward pass, so that no step waits for it; a later signal takes effect at the end of the next step. The
    class is a `Checkpoint` so that Lightning calls it after all other callbacks. A Trainer that is given one makes no
    `ModelCheckpoint` by itself: pass both, this one last.

    Raises:
        Interrupted: To end the program; it is a `SystemExit`, so that no traceback is printed.

    Example:
        >>> from lightning.pytorch.callbacks import ModelCheckpoint
        >>> trainer = Trainer(callbacks=[ModelCheckpoint(), GracefulStop()], logger=False)
    """

    def __init__(self) -> None:
        self._signal = 0
        self._is_first = True
        self._previous: dict[int, Any] = {}
        self._sent: _SentSignal | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the signals of an earlier run."""
        self._signal, self._is_first, self._previous, self._sent = 0, trainer.is_global_zero, {}, None

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers as soon as Lightning's own are in place."""
        self.on_train_start(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Install the signal handlers if no sanity check has run."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and not self._previous and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            for signum in (signal.SIGTERM, signal.SIGINT):
                self._previous[signum] = signal.signal(signum, self._note)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Broadcast the signal of rank 0 early on GPUs, so that it has arrived by the end of the step."""
        if trainer.world_size > 1 and trainer.strategy.root_device.type != "cpu":
            self._sent = _SentSignal(self._signal, trainer.strategy.root_device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if asked to, unless a validation follows, which a resumed run would skip, or gradients are held."""
        holds_gradients = (batch_idx + 1) % trainer.accumulate_grad_batches != 0  # no checkpoint has them
        if not trainer.is_last_batch and not holds_gradients and not _validation_follows(trainer, batch_idx):
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop here if asked to during the last batch or the validation."""
        self._stop_if_asked(trainer, at_epoch_end=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the previous signal handlers."""
        for signum, handler in self._previous.items():
            # Signals that a stop ignores stay ignored until the process exits.
            if signal.getsignal(signum) == self._note:
                signal.signal(signum, handler)
        self._previous = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore the previous signal handlers."""
        self.on_train_end(trainer, pl_module)

    def _note(self, signum: int, _: FrameType | None) -> None:
        if signum == signal.SIGINT and self._is_first:
            if self._signal == signal.SIGINT:
                raise KeyboardInterrupt
            os.write(2, STOPPING)  # print is not reentrant: the signal may have interrupted another print
        self._signal = signum

    def _signal_of_rank_0(self, trainer: Trainer, at_epoch_end: bool) -> int:
        if trainer.world_size == 1:
            return self._signal
        sent, self._sent = self._sent, None
        if sent is None or at_epoch_end:
            sent = _SentSignal(self._signal, trainer.strategy.root_device)  # with signals since the backward pass
        return sent.read()

    def _stop_if_asked(self, trainer: Trainer, at_epoch_end: bool = False) -> None:
        signum = self._signal_of_rank_0(trainer, at_epoch_end)
        if not signum or _is_over(trainer):
            return
        for number in self._previous:
            signal.signal(number, signal.SIG_IGN)
        name = f"interrupted-epoch={trainer.current_epoch}-step={trainer.global_step}.ckpt"
        path = trainer.strategy.broadcast(unused_path(checkpoint_folder(trainer) / name))
        trainer.save_checkpoint(path, weights_only=False)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.saved_elsewhere(trainer, str(path))
        if at_epoch_end:
            # Lightning would log the means of the epoch after this hook, at the step before.
            shift_logged_step(trainer, -1)
            log_epoch_means(trainer)
        if trainer.is_global_zero:
            name = signal.Signals(signum).name
            saved = shlex.quote(short_path(path))  # "last" would be the checkpoint of any later run
            sys.stderr.write(f"\nstopped by {name} and saved; resume with --ckpt_path {saved}\n")
        # Lightning's launcher treats any other exit code of a worker as a failure.
        raise Interrupted(128 + signum if launcher() is None else 0)


class _SentSignal:
    """Signal of rank 0 on its way to the device of every process, and from there to its host."""

    def __init__(self, signum: int, device: torch.device) -> None:
        sent = torch.full((), signum, device=device)
        torch.distributed.broadcast(sent, src=0)
        event = None if device.type == "cpu" else getattr(torch.get_device_module(device), "Event", None)
        self._on_host = sent.to("cpu", non_blocking=event is not None)
        self._arrived = None if event is None else event()
        if self._arrived is not None:
            self._arrived.record()

    def read(self) -> int:
        if self._arrived is not None:
            self._arrived.synchronize()
        return int(self._on_host)


def _validation_follows(trainer: Trainer, batch_idx: int) -> bool:
    done = trainer.fit_loop.total_batch_idx if trainer.check_val_every_n_epoch is None else batch_idx
    return trainer.val_check_batch is not None and (done + 1) % trainer.val_check_batch == 0


def _is_over(trainer: Trainer) -> bool:
    """Return whether training ends here anyway."""
    is_last_epoch = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
    stops_early = trainer.should_stop and can_stop_early(trainer)
    return bool(is_last_epoch or trainer.global_step == trainer.max_steps or stops_early)
