"""Run cells on this machine, one after another or several at once, each in its own process."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import torch

from nc_lightning.sweeps.cell import CellFolder, run_cell

SERVER_IMPORTS = ["nc_lightning.sweeps.cell", "sklearn.datasets", "matplotlib.backends.backend_pdf"]
"""Modules that the cells share; most trainings need the last two late, for the digits and for figures."""


def run_locally(folders: Sequence[CellFolder], jobs: int, ended: Callable[[CellFolder, int], None]) -> int:
    """Run cells until all have ended.

    On Linux, processes are forked from a server that has only imported modules, so that a cell costs its training and
    no start; elsewhere, forks are not available or not safe, and each process starts by itself. Each gets this
    process's environment, and its share of the CPU cores and the GPUs. On Ctrl-C or SIGTERM no further cell starts, and
    running cells stop after their step with a checkpoint; a second Ctrl-C stops them at once.

    Args:
        folders: Cells, in order.
        jobs: Number of cells at once.
        ended: Called when a cell has ended, with its exit code; negative for the signal that killed it.

    Returns:
        0, or the number of the signal that stopped the sweep.
    """
    can_fork = sys.platform == "linux"
    context: Any = multiprocessing.get_context("forkserver" if can_fork else "spawn")
    if can_fork:
        context.set_forkserver_preload(SERVER_IMPORTS)
    threads = max(1, torch.get_num_threads() // jobs)
    gpus = visible_gpus()
    waiting, running = list(reversed(folders)), dict[int, tuple[BaseProcess, CellFolder]]()
    stopped_by = 0

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped_by
        stopped_by = number
        for process, _ in running.values():
            _send(process, number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while (waiting and not stopped_by) or running:
            free = [slot for slot in range(jobs) if slot not in running]
            for slot in free if not stopped_by else ():
                if waiting:
                    folder = waiting.pop()
                    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), **share_of_gpus(gpus, jobs, slot)}
                    process = context.Process(target=_in_a_process, args=(folder, threads, environment))
                    try:
                        process.start()
                    except EOFError:  # a Ctrl-C has ended the server, which was still importing
                        if stopped_by:
                            break
                        raise
                    running[slot] = process, folder
                    if stopped_by:  # while the process was starting, which ignores a SIGINT
                        _send(process, signal.SIGTERM)
            wait([process.sentinel for process, _ in running.values()], timeout=1.0)
            for slot, (process, folder) in list(running.items()):
                if process.exitcode is not None:
                    del running[slot]
                    ended(folder, process.exitcode)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process, _ in running.values():
            _send(process, signal.SIGKILL)
    return stopped_by


def visible_gpus() -> list[str]:
    """Return the GPUs that this process may use, as named in ``CUDA_VISIBLE_DEVICES``."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(number) for number in range(torch.cuda.device_count())]


def share_of_gpus(gpus: Sequence[str], jobs: int, slot: int) -> dict[str, str]:
    """Return the environment that gives one of several jobs its share of the GPUs; one GPU if there are too few.

    Example:
        >>> share_of_gpus(["0", "1", "2", "3"], jobs=2, slot=1), share_of_gpus(["0"], 2, 1), share_of_gpus([], 2, 1)
        ({'CUDA_VISIBLE_DEVICES': '1,3'}, {'CUDA_VISIBLE_DEVICES': '0'}, {})
    """
    if not gpus:
        return {}
    own = gpus[slot::jobs] or [gpus[slot % len(gpus)]]
    return {"CUDA_VISIBLE_DEVICES": ",".join(own)}


def _in_a_process(folder: CellFolder, threads: int, environment: dict[str, str]) -> None:
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in the terminal reaches only the sweep, which passes it on
    os.environ.clear()  # that of the server, which may have started before a variable was set
    os.environ.update(environment)
    torch.set_num_threads(threads)
    raise SystemExit(run_cell(folder))


def _send(process: BaseProcess, number: int) -> None:
    if process.pid is None:  # never started
        return
    try:
        os.killpg(process.pid, number)
    except (AttributeError, ProcessLookupError):  # no process groups on this system, or the group does not exist yet
        if process.is_alive():
            os.kill(process.pid, number)
