"""Watch over the processes of a run: when one dies, all end, and one line names it."""

import os
import re
import shlex
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
"""Time for a process without its peers to await the report, and for one that hangs in a collective to end."""
_LOST_PEER = re.compile("closed by peer|reset by peer|broken pipe|socket closed|connection refused", re.IGNORECASE)


class ProcessWatch(Callback):
    """End all processes of a run when one of them dies, and name it: no hang and no wall of tracebacks.

    Lightning alone kills the main process silently. If Lightning has launched the processes, the main one now watches
    the others: it reports a dead one with its rank, finalizes the loggers, kills the rest, and exits with code 1, or
    with 2 if the dead one did, which has then reported bad input. The others watch the main one, whose pid they get
    from `nc_lightning.distributed.launcher`. torchrun and SLURM watch their processes themselves and name the dead one;
    here, the processes that lose it print one line and exit with code 1.

    The main process watches from setup to teardown; before setup, Lightning's own observer is active.

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
            self._start(self._watch_launcher)  # the launching process may die before this one connects

    def __reduce__(self) -> tuple[type["ProcessWatch"], tuple[()]]:
        return type(self), ()  # threads cannot be pickled: a process of ``ddp_spawn`` makes its own

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch the processes that this one has launched."""
        self._trainer = trainer
        self._over.clear()
        if _children(trainer):
            dismiss_process_observers()
            self._start(partial(self._watch_children, trainer))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching: the run is over, and processes may end."""
        self._over.set()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Wait for the report if a peer was lost; on an error of this process, kill those it launched."""
        children = _children(trainer)
        is_watched = bool(children) or self._launcher is not None
        if is_watched and _is_lost_peer(exception) and (self._verdict.wait(GRACE_SECONDS) or not children):
            _leave(trainer, self._exit_code)
        if not is_watched and _is_lost_peer(exception) and trainer.world_size > 1:
            _report(f"process of rank {trainer.global_rank} (pid {os.getpid()}) has lost a peer", trainer)
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
                    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
                    _report(f"process of rank {rank} (pid {child.pid}) {how}", trainer)
                    _kill(children)
                    self._verdict.set()
                    # The main thread ends by itself if its collective raises; with NCCL it would hang there.
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
    """Return the workers that this process has launched; torch watches those of ``ddp_spawn``."""
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
        where += f"; resume with --ckpt_path {shlex.quote(short_path(saved[0]))}" if saved else ""
    sys.stderr.write(f"\nnc-train: error: {what}{where}\n")
    sys.stderr.flush()


def _kill(children: list["subprocess.Popen[bytes]"]) -> None:
    for child in children:
        child.kill()  # no effect on one that has ended
    _wait(children)


def _wait(children: list["subprocess.Popen[bytes]"]) -> None:
    for child in children:
        with suppress(subprocess.TimeoutExpired):
            child.wait(GRACE_SECONDS)


def _leave(trainer: Trainer | None, code: int) -> NoReturn:
    """End the process from any thread, without waiting for other threads or for peers that are gone."""
    for logger in [] if trainer is None else trainer.loggers:
        with suppress(Exception):
            logger.finalize("failed")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
