"""Threads of a process that divide the work of a large loss on a CPU, so that none waits for another in each operation.

An operation that torch divides ends with its slowest thread. On a busy machine, where a thread may have to wait for a
core, that happens in each of many tiles; threads with tiles of their own wait only when they exchange sums.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

# Chosen by timing: with fewer similarities, OpenMP's threads, which spin for some milliseconds after each operation,
# take more time from the others than these save.
LEAST_ELEMENTS = 2**23
# Each thread has a gradient of all features; operations divide the threads that are left.
MOST_THREADS = 8

T = TypeVar("T")


def num_threads(z: Tensor, everyone: Tensor) -> int:
    """Return the number of threads that divide the similarities of z (N, d) and everyone (M, d)."""
    is_large = z.device.type == "cpu" and len(z) * len(everyone) >= LEAST_ELEMENTS
    return min(MOST_THREADS, torch.get_num_threads()) if is_large else 1


class Team:
    """Threads that compute parts of a result, and exchange sums; for one computation.

    Args:
        size: Number of threads.

    Example:
        >>> team = Team(2)
        >>> def part(member):
        ...     values = torch.tensor([10.0**member])
        ...     team.sum_(values, member)
        ...     return values
        >>> team.run(part)
        [tensor([11.]), tensor([11.])]
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size)
        self._values: list[Tensor] = [torch.empty(0)] * size

    def sum_(self, values: Tensor, member: int) -> None:
        """Sum a tensor over the threads in place, in the order of members; all must call this."""
        self._values[member] = values
        self._barrier.wait()
        total = torch.stack(self._values).sum(0)
        self._barrier.wait()  # until all have read
        values.copy_(total)

    def run(self, part: Callable[[int], T]) -> list[T]:
        """Return the parts of all members; an error in one ends all, and is raised."""
        threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()

        def of_member(member: int) -> T:
            torch.get_num_threads()  # initializes this thread, or its first operation would undo the next line
            torch.set_num_threads(max(1, threads // self.size))  # those of this thread, and of MKL everywhere
            try:
                with torch.inference_mode(inference), torch.no_grad():
                    return part(member)
            except BaseException:
                self._barrier.abort()
                raise

        try:
            with ThreadPoolExecutor(self.size) as pool:
                futures = [pool.submit(of_member, member) for member in range(self.size)]
        finally:
            torch.set_num_threads(threads)
        errors = [error for error in (future.exception() for future in futures) if error is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return [future.result() for future in futures]
