"""Watching the processes of a run: when one dies, all end, and one line says which it was."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from nc_lightning.callbacks.sources import checkpoint_folder
from nc_lightning.distributed.launcher import launcher
from nc_lightning.io.atomic import short_path
from nc_lightning.io.checkpoints import newest_first
from nc_lightning.private_apis.lightning import dismiss_process_observers

POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0
"""How long a process without its peers waits for the verdict, and how long one that hangs in a collective may."""
_LOST_PEER = re.compile("closed by peer|reset by peer|broken pipe|socket closed|connection refused", re.IGNORECASE)


class ProcessWatch(Callback):
    """End all processes of a run when one of them dies, and say which one it was: no hang, no heap of tracebacks.

    Lightning by itself kills the main process without a word. Where it has started the processes, the first one now
    watches the others: it names a dead one with its rank, finalizes the loggers, kills the rest, and ends with code 1,
    or 2 where the dead one has ended with 2, after a line of its own on bad input. The others watch the first, which
    `nc_lightning.distributed.launcher` tells them of. torchrun and SLURM watch their processes themselves and say which
    one died: here the others end with one line and code 1 when they lose it.

    The first process watches from the callbacks' setup to their teardown: while processes start, Lightning does.

    Example:
        >>> trainer = Trainer(callbacks=[ProcessWatch()], logger=False)
    """

    def __init__(self) -> None:
        self._over = threading.Event()
        self._verdict = threading.Event()
        self._exit_code = 1
        self._trainer: Trainer | None = None
        self._launcher = launcher()
        if self._launcher is not None:
            self._start(self._watch_launcher)  # as it may die before it meets this process

    def __reduce__(self) -> tuple[type["ProcessWatch"], tuple[()]]:
        return type(self), ()  # threads stay here: a process of ``ddp_spawn`` has a watch of its own

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch the processes that this one has started."""
        self._trainer = trainer
        self._over.clear()
        if _children(trainer):
            dismiss_process_observers()
            self._start(partial(self._watch_children, trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The run is over: processes may end."""
        self._over.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Await the verdict where a peer was lost; leave no other process behind on an error of this one's own."""
        children = _children(trainer)
        is_watched = bool(children) or self._launcher is not None
        if is_watched and _is_lost_peer(exception) and (self._verdict.wait(GRACE_SECONDS) or not children):
            _leave(trainer, self._exit_code)
        if not is_watched and _is_lost_peer(exception) and trainer.world_size > 1:
            _report(f"process of rank {trainer.global_rank} (pid {os.getpid()}) has lost another one", trainer)
            _leave(trainer, 1)
        self._over.set()
        if isinstance(exception, SystemExit):
            _wait(children)  # they have agreed to stop, and end by themselves
        _kill(children)

    def _start(self, watch: Callable[[], None]) -> None:
        threading.Thread(target=watch, name="process-watch", daemon=True).start()

    def _watch_children(self, trainer: Trainer) -> None:
        children = _children(trainer)
        while not self._over.wait(POLL_SECONDS):
            for rank, child in enumerate(children, trainer.global_rank + 1):
                code = child.poll()
                if code and not self._over.is_set():
                    self._exit_code = 2 if code == 2 else 1
                    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended with code {code}"
                    _report(f"process of rank {rank} (pid {child.pid}) {how}", trainer)
                    _kill(children)
                    self._verdict.set()
                    # The main thread ends by itself where its collective raises; with NCCL it would hang in there.
                    time.sleep(GRACE_SECONDS)
                    _leave(trainer, self._exit_code)

    def _watch_launcher(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            if os.getppid() != self._launcher:
                if os.environ["LOCAL_RANK"] == "1":
                    rank = 0 if self._trainer is None else self._trainer.global_rank - 1
                    _report(f"process of rank {rank} (pid {self._launcher}) has died", self._trainer)
                _leave(self._trainer, 1)


def _children(trainer: Trainer) -> list["subprocess.Popen[bytes]"]:
    """Return the workers that this process has started; torch watches those of ``ddp_spawn``."""
    return [child for child in getattr(trainer.strategy.launcher, "procs", []) if isinstance(child, subprocess.Popen)]


def _is_lost_peer(exception: BaseException) -> bool:
    of_torch = isinstance(exception, (dist.DistBackendError, dist.DistNetworkError))
    return of_torch or (isinstance(exception, RuntimeError) and bool(_LOST_PEER.search(str(exception))))


def _report(what: str, trainer: Trainer | None) -> None:
    stage = None if trainer is None else trainer.state.fn
    if trainer is None or stage is None:
        where = " at the start"
    elif stage != TrainerFn.FITTING:
        where = f" during {stage.value}"
    else:
        where = f" in epoch {trainer.current_epoch}"
        saved = newest_first(checkpoint_folder(trainer).glob("*.ckpt"))
        where += f"; its last checkpoint is {short_path(saved[0])}, resume with --ckpt_path last" if saved else ""
    sys.stderr.write(f"\nnc-train: error: {what}{where}\n")
    sys.stderr.flush()


def _kill(children: list["subprocess.Popen[bytes]"]) -> None:
    for child in children:
        child.kill()  # of no effect on one that has ended
    _wait(children)


def _wait(children: list["subprocess.Popen[bytes]"]) -> None:
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)


def _leave(trainer: Trainer | None, code: int) -> NoReturn:
    """End the process from whichever thread, without waiting for the other threads or for peers that are gone."""
    for logger in [] if trainer is None else trainer.loggers:
        with suppress(Exception):
            logger.finalize("failed")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
