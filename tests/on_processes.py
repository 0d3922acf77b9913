"""Run a function on several processes of a gloo group, forked from one that has imported everything."""

import multiprocessing
import os
import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PRELOADED = ["torch", "lightning.pytorch", "nc_lightning.cli"]
TIMEOUT = timedelta(seconds=60)
"""A process that waits this long for another one fails the test."""


def on_processes(world_size, function, *args, backend="gloo"):
    """Return the result of function(rank, *args) on each process; an exception in any of them is raised here."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(
            _process, (function, args, world_size, folder, backend), world_size, start_method="forkserver"
        )
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(world_size)]


def _process(rank, function, args, world_size, folder, backend):
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)  # makes Lightning assume that its processes are already running
    store = f"file://{folder}/store"
    dist.init_process_group(backend, init_method=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    torch.save(function(rank, *args), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
