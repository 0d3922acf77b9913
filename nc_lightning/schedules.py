"""Step-size schedules: `HoldThenDecay`, and fitting schedules to the length of training."""

import math
from collections.abc import Iterator
from typing import Any, Literal

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ChainedScheduler, LRScheduler, SequentialLR

from nc_lightning.checks import check_count, check_fraction
from nc_lightning.private_apis.lightning import drop_training_loader
from nc_lightning.private_apis.torch import milestones, schedule_parts

LRInterval = Literal["step", "epoch"]

_LENGTHS = {"CosineAnnealingLR": "T_max", "PolynomialLR": "total_iters", "OneCycleLR": "total_steps"}
"""Attributes of torch's schedules that hold their number of steps."""


class HoldThenDecay(LRScheduler):
    """Hold the step size for the first part of training, then decay it linearly to 0.

    An objective sets the length of training, so that the schedule fits any ``max_epochs``. The length is not saved in
    checkpoints, so that a run can be resumed for more epochs.

    Args:
        optimizer: Optimizer whose learning rates are scaled.
        hold: Share of training in [0, 1) after which the decay begins.
        total_steps: Length of training, in steps or epochs as ``lr_interval``; None to let the objective set it.

    Raises:
        ValueError: If an argument is out of its range, or the length is not set when the schedule steps.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = HoldThenDecay(optimizer, hold=0.8, total_steps=10)
        >>> [round(schedule.factor(step), 2) for step in (0, 8, 9, 10)]
        [1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, optimizer: Optimizer, hold: float = 0.8, total_steps: int | None = None) -> None:
        check_fraction("hold", hold, "[0, 1)", "a share of training")
        if total_steps is not None:
            check_count("total_steps", total_steps)
        self.hold = hold
        self.total_steps = total_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Return the factor in [0, 1] of the initial step size at a step."""
        if step <= 0:
            return 1.0
        if self.total_steps is None:
            raise ValueError("total_steps: got None outside of an objective, expected the length of training")
        return max(0.0, min(1.0, (1 - step / self.total_steps) / (1 - self.hold)))

    def get_lr(self) -> list[Any]:
        """Return the current step size of each parameter group."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the length of training, which a resumed run sets itself."""
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}


def training_length(trainer: Trainer, interval: LRInterval) -> float:
    """Return the total number of epochs or optimizer steps of a training; infinity if it has no end.

    The end is ``max_epochs`` or ``max_steps``, whichever comes first; ``max_time`` is ignored. For a resumed run, the
    total is the steps of the checkpoint plus the remaining ones, also if the number of batches per epoch has changed.
    """
    epochs = math.inf if trainer.max_epochs in (None, -1) else max(1, trainer.max_epochs or 1)
    steps = math.inf if trainer.max_steps == -1 else max(1, trainer.max_steps)
    if (steps if interval == "epoch" else epochs) == math.inf:
        return epochs if interval == "epoch" else steps
    batches = _batches_per_epoch(trainer)
    if not 0 < batches < math.inf:
        return epochs if interval == "epoch" else steps
    epoch, step = float(trainer.current_epoch), float(trainer.global_step)
    for more, steps_per_epoch in _to_come(trainer, int(batches)):
        more = min(more, epochs - epoch)
        if step + more * steps_per_epoch >= steps:
            return steps if interval == "step" else epoch + math.ceil((steps - step) / steps_per_epoch)
        epoch, step = epoch + more, step + more * steps_per_epoch
    return epoch if interval == "epoch" else step


def check_ends(length: float, got: str) -> None:
    """Refuse a schedule if `training_length` is infinite, with a message that begins with ``got``.

    Raises:
        ValueError: If training has no end.
    """
    if math.isinf(length):
        raise ValueError(
            f"{got} for a training without end, expected a trainer with max_epochs or max_steps; with max_time "
            "alone, the number of steps is unknown"
        )


def _batches_per_epoch(trainer: Trainer) -> float:
    if trainer.train_dataloader is not None:
        return trainer.num_training_batches
    trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    if trainer.ckpt_path is not None:
        # Lightning restores the position in the epoch only in a loader made after loading the checkpoint.
        drop_training_loader(trainer)
    return batches


def _to_come(trainer: Trainer, batches: int) -> Iterator[tuple[float, int]]:
    """Yield numbers of remaining epochs and their optimizer steps: the rest of one epoch, then whole epochs."""
    epoch = trainer.current_epoch
    changes = {0: trainer.accumulate_grad_batches}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):
            changes |= callback.scheduling
    accumulate = changes[max(start for start in changes if start <= epoch)]
    progress = trainer.fit_loop.epoch_loop.batch_progress
    if trainer.fit_loop.restarted_mid_epoch and not progress.is_last_batch:
        yield 1, math.ceil(max(0, batches - progress.current.ready) / accumulate)
        epoch += 1
    starts = sorted({epoch} | {start for start in changes if start > epoch})
    for start, end in zip(starts, [*starts[1:], math.inf], strict=True):
        accumulate = changes[max(change for change in changes if change <= start)]
        yield end - start, math.ceil(batches / accumulate)


def fit_length(scheduler: Any, length: float, interval: LRInterval) -> None:
    """Set the length of a schedule to that of training if unset; refuse or warn if they differ.

    Parts of torch's SequentialLR get the length between their milestones.

    Raises:
        ValueError: If the schedule needs a length and training has no end, or the schedule is too short, so that torch
            would raise.
    """
    if isinstance(scheduler, SequentialLR):
        starts = [0, *milestones(scheduler)]
        for part, start, end in zip(schedule_parts(scheduler), starts, [*starts[1:], length], strict=True):
            if end > start:
                fit_length(part, end - start, interval)
        return
    if isinstance(scheduler, ChainedScheduler):
        for part in schedule_parts(scheduler):
            fit_length(part, length, interval)
        return
    kind = type(scheduler).__name__
    if hasattr(scheduler, "total_steps"):
        check_ends(length, f"lr_scheduler: got {kind}")
    if getattr(scheduler, "total_steps", 0) is None:
        scheduler.total_steps = int(length)
    elif getattr(scheduler, "total_steps", math.inf) < length:
        raise ValueError(
            f"lr_scheduler: got total_steps = {scheduler.total_steps}, expected at least {int(length)}, the "
            f"{interval}s of this training"
        )
    name = _LENGTHS.get(kind, "")
    if getattr(scheduler, name, length) != length:
        rank_zero_warn(
            f"lr_scheduler: got {kind} with {name} = {getattr(scheduler, name)} for a training of {length:g} "
            f"{interval}s; training does not end where the schedule does"
        )
