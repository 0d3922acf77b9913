"""Private names of torch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.lr_scheduler import ChainedScheduler, SequentialLR
from torch.utils import _pytree

BatchNormBase = _BatchNorm
"""Base of torch's BatchNorm modules (2.14.1)."""
tree_leaves = _pytree.tree_leaves
"""Return the leaves of nested containers (2.14.1)."""
SCHEDULE_RESULTS = ("_last_lr", "_schedule_phases")
"""Attributes that torch's schedules, or only OneCycleLR, derive from their settings (2.14.1)."""


def copy_all(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Copy tensors of one dtype into others with one kernel: ``_foreach_copy_`` (2.14.1)."""
    torch._foreach_copy_(targets, sources)


def divide_all(tensors: tuple[Tensor, ...] | list[Tensor], divisor: Tensor) -> None:
    """Divide all tensors by one scalar tensor with one kernel: ``_foreach_div_`` (2.14.1)."""
    torch._foreach_div_(tensors, divisor)


def largest_of_all(tensors: list[Tensor]) -> Sequence[Tensor]:
    """Return the largest absolute value () of each tensor with one kernel: ``_foreach_norm`` (2.14.1)."""
    return torch._foreach_norm(tensors, torch.inf) if tensors else ()


def is_observed() -> bool:
    """Return whether modes or a profiler see the operations of this thread, which they do not of others (2.14.1)."""
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    return bool(modes > 0 or torch.autograd._profiler_enabled())


def milestones(scheduler: SequentialLR) -> list[int]:
    """Return the steps at which the second and each later part begin (2.14.1)."""
    return list(scheduler._milestones)


def schedule_parts(scheduler: SequentialLR | ChainedScheduler) -> list[Any]:
    """Return the schedules that a combined one consists of (2.14.1)."""
    return list(scheduler._schedulers)


def add_summary(writer: Any, summary: Any, step: int) -> None:
    """Write a summary to a `SummaryWriter` unchanged; its public methods build their own (2.14.1)."""
    writer._get_file_writer().add_summary(summary, step)
