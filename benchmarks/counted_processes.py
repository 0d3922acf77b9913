"""Simulate one of W processes, and count the bytes that it receives: torch's fake process group runs no other one.

The others seem to have the tensors of this one: gathering returns W copies, and a sum is that of this process alone.
"""

import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore


class Traffic:
    """Bytes that a process receives, by collective; those of an all-reduce for a ring, which sends as many."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.received: dict[str, int] = {}
        self.calls = 0

    @property
    def total(self) -> int:
        """Sum over all collectives."""
        return sum(self.received.values())

    def add(self, name: str, size: float) -> None:
        """Count one collective."""
        self.calls += 1
        self.received[name] = self.received.get(name, 0) + round(size)


@contextmanager
def counted(world_size: int) -> Iterator[Traffic]:
    """Run a block of code as rank 0 of ``world_size`` processes.

    Example:
        >>> import torch
        >>> with counted(4) as traffic:
        ...     dist.all_reduce(torch.ones(100))
        >>> traffic.received
        {'all_reduce': 600}
    """
    traffic, others = Traffic(world_size), world_size - 1
    reduce, gather, into = dist.all_reduce, dist.all_gather, dist.all_gather_into_tensor
    exchange, batched = dist.all_to_all_single, dist.batch_isend_irecv

    def all_reduce(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        traffic.add("all_reduce", 2 * others / world_size * tensor.nbytes)
        return reduce(tensor, *args, **kwargs)

    def all_gather(parts: Any, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        traffic.add("all_gather", others * tensor.nbytes)
        return gather(parts, tensor, *args, **kwargs)

    def all_gather_into_tensor(out: Any, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        traffic.add("all_gather", others * tensor.nbytes)
        return into(out, tensor, *args, **kwargs)

    def all_to_all_single(out: Any, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        traffic.add(
            "all_to_all", others / world_size * out.nbytes
        )  # out has as much from each process, itself included
        return exchange(out, tensor, *args, **kwargs)

    def batch_isend_irecv(operations: Any) -> Any:
        traffic.add("irecv", sum(each.tensor.nbytes for each in operations if each.op is dist.irecv))
        return batched(operations)

    def all_gather_object(values: list[Any], value: Any, *_: Any, **__: Any) -> None:
        traffic.add("all_gather_object", others * len(pickle.dumps(value)))
        values[:] = [value] * world_size

    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=world_size)
    try:
        with ExitStack() as stack:
            ours = (all_reduce, all_gather, all_gather_into_tensor, all_to_all_single, batch_isend_irecv)
            for function in (*ours, all_gather_object):
                stack.enter_context(patch.object(dist, function.__name__, function))
            yield traffic
    finally:
        dist.destroy_process_group()
