"""Threads of a process that divide the work of a large loss on a CPU, so that none waits for another in each operation.

An operation that torch divides ends with its slowest thread. On a busy machine, where a thread may have to wait for a
core, that happens in each of many tiles; threads with tiles of their own wait only when they exchange sums.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from nc_lightning.private_apis.torch import is_observed

# Chosen by timing: with fewer similarities, OpenMP's threads, which spin for some milliseconds after each operation,
# take more time from the others than these save.
LEAST_ELEMENTS = 2**23
# Each thread has a gradient of all features.
MOST_THREADS = 8

T = TypeVar("T")


def num_threads(z: Tensor, everyone: Tensor) -> int:
    """Return the number of threads that divide the similarities of z (N, d) and everyone (M, d).

    Operations divide the threads that are left: 12 are 6 times 2.
    """
    if len(z) * len(everyone) < LEAST_ELEMENTS or is_observed():
        return 1
    available = torch.get_num_threads()
    sizes = range(2, min(MOST_THREADS, available) + 1)
    return max(sizes, key=lambda size: (available // size * size, size), default=1)


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

    def check(self) -> None:
        """End this member if another one has failed, or was interrupted."""
        if self._barrier.broken:
            raise threading.BrokenBarrierError

    def run(self, part: Callable[[int], T]) -> list[T]:
        """Return the parts of all members; the caller is the first. An error in one ends all, and is raised.

        A thread that uses torch for the first time meanwhile keeps the number of threads that a member has.
        """
        threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
        results: dict[int, T] = {}
        errors: list[BaseException] = []

        def of_member(member: int) -> None:
            try:
                torch.get_num_threads()  # initializes this thread, or its first operation would undo the next line
                torch.set_num_threads(max(1, threads // self.size))  # those of this thread, and of MKL everywhere
                with torch.inference_mode(inference), torch.no_grad():
                    results[member] = part(member)
            except BaseException as error:
                errors.append(error)
                self._barrier.abort()

        others = [threading.Thread(target=of_member, args=(member,), name="loss") for member in range(1, self.size)]
        try:
            for other in others:
                other.start()
            of_member(0)
        except BaseException:  # a thread that cannot be started, or a Ctrl-C
            self._barrier.abort()
            raise
        finally:
            _end(others, threads)
        try:
            if errors:
                raise errors[0]  # others end because of it
        finally:
            errors.clear()  # or the error would refer to itself through its traceback
        return [results[member] for member in range(self.size)]


def _end(others: list[threading.Thread], threads: int) -> None:
    """Wait for the threads that have been started, and restore the number of threads of torch."""
    try:
        for other in others:
            if other.ident is not None:
                other.join()
    finally:
        torch.set_num_threads(threads)
