"""nc-train in forked children of one server that has all of it loaded: a run costs its training, not seven seconds."""

import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("nc_train.py")
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["nc_train", "faults"])


@dataclass
class Ended:
    """How a run has ended; its code is negative for a signal."""

    code: int
    stdout: str
    stderr: str


def nc_train(folder, *arguments, file_limit=None, timeout=60):
    """Run nc-train in a folder until its end.

    Raises:
        TimeoutError: If it hangs.
    """
    process = _CONTEXT.Process(target=_run, args=(str(folder), arguments, file_limit))
    process.start()
    process.join(timeout)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        raise TimeoutError(f"nc-train {' '.join(arguments)} hangs:\n{Path(folder, 'stderr.txt').read_text()}")
    return Ended(process.exitcode, *(Path(folder, f"{name}.txt").read_text() for name in ("stdout", "stderr")))


def group_is_gone(pid):
    """Tell whether no process of a group is left, zombies aside."""


def _run(folder, arguments, file_limit):
    import torch
    from nc_train import run

    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    os.setpgid(0, 0)
    os.chdir(folder)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [str(SCRIPT), *arguments]
    run()
