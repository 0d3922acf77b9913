"""nc-train in forked children of a server that has imported everything: a run saves seven seconds of imports."""

import multiprocessing
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

SCRIPT = Path(__file__).with_name("nc_train.py")
HANGS_AFTER = 60
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.nc_train", "tests.faults.faults"])


@dataclass
class Ended:
    """The end of a run; the exit code is negative for a signal."""

    code: int
    stdout: str
    stderr: str


def nc_train(folder, *arguments, file_limit=None):
    """Run nc-train in a folder until it and all processes it started have ended.

    Raises:
        TimeoutError: If one of them does not.
    """
    process = _CONTEXT.Process(target=_run, args=(str(folder), arguments, file_limit))
    paths = [str(SCRIPT.parent.parent.parent), os.environ.get("PYTHONPATH", "")]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS="1"):
        process.start()  # includes starting the server, the first time
    end = time.monotonic() + HANGS_AFTER
    process.join(HANGS_AFTER)
    while left := _processes_of_group(process.pid):
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            raise TimeoutError(f"{left} of nc-train {' '.join(arguments)} hang:\n{_read(folder, 'stderr')}")
        time.sleep(0.1)
    return Ended(process.exitcode, _read(folder, "stdout"), _read(folder, "stderr"))


def _read(folder, name):
    return Path(folder, f"{name}.txt").read_text()


def _processes_of_group(group):
    """The live processes of a group, without zombies, which the system reaps."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, _, (state, _, its_group, *_) = path.parent.name, 0, path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(its_group) == group and state != "Z":
            found.append(int(pid))
    return found


def _run(folder, arguments, file_limit):
    import torch

    from tests.faults.nc_train import run

    torch.set_num_threads(1)
    os.setpgid(0, 0)
    os.chdir(folder)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if file_limit is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # switched off in the server
    sys.argv = [str(SCRIPT), *arguments]
    run()
