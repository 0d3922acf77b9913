"""Step-size schedules that torch does not have."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nc_lightning.geometry.checks import check_count, check_number


class HoldThenDecay(LRScheduler):
    """Hold the step size for the first part of training, then bring it linearly to 0.

    An objective tells it how long training is, so that it fits whatever ``max_epochs`` is set to. It is a function of
    the step and that length alone, and the length is not kept in checkpoints: a run may be resumed to more epochs.

    Args:
        optimizer: Whose learning rates are scaled.
        hold: Share of training after which the decay begins, in [0, 1).
        total_steps: Length of training, in epochs or steps as the objective's ``lr_interval`` says; None to be told.

    Raises:
        ValueError: If an argument is out of its range, or nobody has told the length when it is needed.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = HoldThenDecay(optimizer, hold=0.8, total_steps=10)
        >>> [round(schedule.factor(step), 2) for step in (0, 8, 9, 10)]
        [1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, optimizer: Optimizer, hold: float = 0.8, total_steps: int | None = None) -> None:
        check_number("hold", hold, at_least=0)
        if hold >= 1:
            raise ValueError(f"hold: got {hold!r}, expected a share of training in [0, 1)")
        if total_steps is not None:
            check_count("total_steps", total_steps)
        self.hold = hold
        self.total_steps = total_steps
        super().__init__(optimizer)

    def factor(self, step: int) -> float:
        """Return the share of the initial step size at a step, in [0, 1]."""
        if step == 0:
            return 1.0
        if self.total_steps is None:
            raise ValueError("total_steps: got None outside of an objective, expected the length of training")
        return max(0.0, min(1.0, (1 - step / self.total_steps) / (1 - self.hold)))

    def get_lr(self) -> list[Any]:
        """Return the step size of each parameter group at the present step."""
        return [base * self.factor(self.last_epoch) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the length of training, which is for the resumed run to say."""
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}
