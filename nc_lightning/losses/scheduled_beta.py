"""The hardness of a loss: what it was asked to be, and what a schedule has brought it to."""

from typing import Any

import torch
from torch import nn

from nc_lightning.checks import check_number
from nc_lightning.losses.hardening import Hardening

_KEY = "scheduled_beta"


class ScheduledBeta(nn.Module):
    """Part of `ContrastiveLoss` that knows its hardness, and keeps a scheduled one in ``state_dict``.

    The loss of a checkpoint depends on the hardness that training had reached, so that one is state, as weights are. A
    hardness that nobody has changed is not: there the constructor's argument decides, also when weights are loaded.
    """

    hardening: Hardening
    _asked_beta: float | None = None

    @property
    def beta(self) -> float:
        """Hardness >= 0 of the hardening, where that has one."""
        if not hasattr(self.hardening, "beta"):
            # No AttributeError: nn.Module would hide it behind one of its own.
            raise ValueError(f"beta: {self.hardening!r} has no hardness to read or to set")
        return float(self.hardening.beta)

    @beta.setter
    def beta(self, beta: float) -> None:
        self.schedule_beta(beta)
        self._asked_beta = None

    @property
    def asked_beta(self) -> float:
        """Hardness that the loss was made with or that was assigned to ``beta``, whatever a schedule does to it."""
        return self.beta if self._asked_beta is None else self._asked_beta

    @property
    def scheduled_beta(self) -> float | None:
        """Hardness that a schedule has set; None where it is the one that was asked for."""
        return None if self._asked_beta is None or self._asked_beta == self.beta else self.beta

    def schedule_beta(self, beta: float) -> None:
        """Set the hardness >= 0 of the next steps, as `HardNegativeSampler` does, and remember the one asked for.

        Raises:
            ValueError: If it is negative, or the hardening has none.
        """
        check_number("beta", beta, at_least=0)
        self._asked_beta = self.asked_beta
        self.hardening.beta = beta  # type: ignore[attr-defined]

    def save_scheduled_beta(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Write the hardness to a ``state_dict`` of this loss if it was scheduled, else take it out of there.

        Example:
            >>> from nc_lightning.losses import HSCLLoss
            >>> loss = HSCLLoss(beta=5.0)
            >>> loss.schedule_beta(7.0)
            >>> dict(loss.state_dict()), loss.asked_beta
            ({'scheduled_beta': tensor(7., dtype=torch.float64)}, 5.0)
        """
        state_dict.pop(prefix + _KEY, None)
        if (beta := self.scheduled_beta) is not None:
            state_dict[prefix + _KEY] = torch.tensor(beta, dtype=torch.float64)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # A buffer would be broadcast in every step of DDP, averaged by an EMA, and missed in older checkpoints.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        self.save_scheduled_beta(destination, prefix)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        scheduled = state_dict.pop(prefix + _KEY, None)
        if scheduled is not None and hasattr(self.hardening, "beta"):
            self.schedule_beta(float(scheduled))
        elif self._asked_beta is not None:
            self.beta = self._asked_beta  # a state without a schedule takes back the one of an earlier state
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
