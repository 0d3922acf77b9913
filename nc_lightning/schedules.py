"""Step-size schedules that torch does not have."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from nc_lightning.geometry.checks import check_count, check_number


class HoldThenDecay(LambdaLR):
    """Hold the step size for the first part of training, then bring it linearly to 0.

    It is a function of the step and of the length of training alone: nothing of it is kept in checkpoints but the step,
    so that a run may be resumed to more epochs. The command line fills ``total_steps`` in from ``trainer.max_epochs``.

    Args:
        optimizer: Whose learning rates are scaled.
        total_steps: Length of training, in epochs or steps as the objective's ``lr_interval`` says.
        hold: Share of it after which the decay begins, in [0, 1).

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = HoldThenDecay(optimizer, total_steps=10, hold=0.8)
        >>> [round(schedule.factor(step), 2) for step in (0, 8, 9, 10)]
        [1.0, 1.0, 0.5, 0.0]
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, hold: float = 0.8) -> None:
        check_count("total_steps", total_steps)
        check_number("hold", hold, at_least=0)
        if hold >= 1:
            raise ValueError(f"hold: got {hold!r}, expected a share of training in [0, 1)")

        def factor(step: int) -> float:
            return max(0.0, min(1.0, (1 - step / total_steps) / (1 - hold)))

        super().__init__(optimizer, factor)

    def factor(self, step: int) -> float:
        """Return the share of the initial step size at a step, in [0, 1]."""
        return float(self.lr_lambdas[0](step))
