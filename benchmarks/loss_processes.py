"""Time the exact HSCL loss on several processes with one thread each, against one process with as many threads.

    python -m benchmarks.loss_processes [--sizes 8192 16384] [--processes 2] [--feature_dim 128] [--num_classes 100]

Processes hold equal shares of the batch and exchange by gloo. One process and several are timed in alternation; of
several processes the slowest counts. The table has their ratio (median and range over rounds), the operations of
matrix products and the bytes moved by kernels of the busiest process over those of one process, and MiB that a process
receives, next to the features of all others, which a process needs to compute all similarities of its own samples.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from benchmarks import results
from benchmarks.counted_processes import counted
from benchmarks.loss import BETA, TEMPERATURE, batch, forward_backward
from benchmarks.work import Work
from nc_lightning.losses import HSCLLoss


def seconds_and_work(sizes: tuple[int, int, int], rank: int, world_size: int) -> tuple[float, int, int]:
    """Time one call on this process's share of the batch, and count the operations and bytes of another."""
    z, labels = (t.tensor_split(world_size)[rank] for t in batch(*sizes))
    call = forward_backward(HSCLLoss(beta=BETA, temperature=TEMPERATURE), z, labels)
    call()
    if world_size > 1:
        dist.barrier()
    start = time.perf_counter()
    call()
    took = time.perf_counter() - start
    with Work() as work:
        call()
    return took, work.flops, work.bytes


def serve(rank: int, world_size: int, threads: int, store: str, connection: Connection) -> None:
    """Answer requests for measurements, as one of several processes."""
    torch.set_num_threads(threads)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    while (sizes := connection.recv()) is not None:
        connection.send(seconds_and_work(sizes, rank, world_size))
    if world_size > 1:
        dist.destroy_process_group()


def start(world_size: int, threads: int, folder: str) -> list[tuple[Any, Connection]]:
    """Start the processes of a group, and return them with connections to them."""
    context, started = multiprocessing.get_context("spawn"), []
    for rank in range(world_size):
        ours, theirs = context.Pipe()
        arguments = (rank, world_size, threads, os.path.join(folder, f"store{world_size}"), theirs)
        process = context.Process(target=serve, args=arguments, daemon=True)
        process.start()
        started.append((process, ours))
    return started


def ask(group: list[tuple[Any, Connection]], sizes: tuple[int, int, int]) -> tuple[float, int, int]:
    """Return the largest seconds, operations and bytes of the processes of a group."""
    for _, connection in group:
        connection.send(sizes)
    took, flops, moved = zip(*(connection.recv() for _, connection in group), strict=True)
    return max(took), max(flops), max(moved)


def mebibytes_received(n: int, feature_dim: int, num_classes: int, world_size: int) -> float:
    """Count what a process receives in one forward and backward pass."""
    z, labels = (t.tensor_split(world_size)[0] for t in batch(n, feature_dim, num_classes))
    with counted(world_size) as traffic:
        forward_backward(HSCLLoss(beta=BETA, temperature=TEMPERATURE), z, labels)()
    return traffic.total / 2**20


def main() -> None:
    """Print one row for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8192, 16384])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--feature_dim", type=int, default=128)
    parser.add_argument("--num_classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    results.add_argument(parser)
    arguments = parser.parse_args()
    world_size, table = arguments.processes, []
    with tempfile.TemporaryDirectory() as folder:
        one, several = start(1, world_size, folder), start(world_size, 1, folder)
        for n in arguments.sizes:
            sizes = (n, arguments.feature_dim, arguments.num_classes)
            rounds = [(ask(one, sizes), ask(several, sizes)) for _ in range(arguments.rounds)]
            (_, flops, moved), (_, flops_of_each, moved_by_each) = rounds[0]
            others = 4 * n * arguments.feature_dim * (1 - 1 / world_size) / 2**20
            row: dict[str, float | str | None] = {
                "N": n,
                "processes": world_size,
                "time / one process": results.spread([several[0] / one[0] for one, several in rounds]),
                "operations / one process": round(flops_of_each / flops, 3),
                "bytes moved / one process": round(moved_by_each / moved, 3),
                "MiB received": round(mebibytes_received(*sizes, world_size), 2),
                "MiB of the others' features": round(others, 2),
            }
            print(", ".join(f"{name} {value}" for name, value in row.items()))
            table.append(row)
        for process, connection in [*one, *several]:
            connection.send(None)
            process.join()
    results.write(arguments.json, f"{world_size} CPU cores", table)


if __name__ == "__main__":
    main()
