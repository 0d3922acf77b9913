"""The hardness of a loss, as configured and as set by a schedule."""

from typing import Any

import torch
from torch import nn

from nc_lightning.checks import check_number
from nc_lightning.losses.hardening import Hardening

_KEY = "scheduled_beta"


class ScheduledBeta(nn.Module):
    """Part of `ContrastiveLoss` that manages the hardness and saves a scheduled one in ``state_dict``.

    A scheduled hardness is state, like the weights, because the loss at a checkpoint depends on it. A hardness that no
    schedule has changed is not saved: the constructor's argument applies, also when weights are loaded.
    """

    hardening: Hardening
    _asked_beta: float | None = None

    @property
    def beta(self) -> float:
        """Hardness >= 0 of the hardening.

        Raises:
            ValueError: If the hardening has none.
        """
        if not hasattr(self.hardening, "beta"):
            # Not an AttributeError, which nn.Module would replace by its own.
            raise ValueError(f"beta: {self.hardening!r} has no hardness to read or to set")
        return float(self.hardening.beta)

    @beta.setter
    def beta(self, beta: float) -> None:
        self.schedule_beta(beta)
        self._asked_beta = None

    @property
    def asked_beta(self) -> float:
        """Configured hardness: the constructor's argument or the last value assigned to `beta`, before a schedule."""
        return self.beta if self._asked_beta is None else self._asked_beta

    @property
    def scheduled_beta(self) -> float | None:
        """Hardness set by a schedule; None if it equals the configured one."""
        return None if self._asked_beta is None or self._asked_beta == self.beta else self.beta

    def schedule_beta(self, beta: float) -> None:
        """Set the hardness >= 0 by a schedule, such as that of `HardNegativeSampler`; keep the configured one.

        Raises:
            ValueError: If it is negative, or the hardening has none.
        """
        check_number("beta", beta, at_least=0)
        self._asked_beta = self.asked_beta
        self.hardening.beta = beta  # type: ignore[attr-defined]

    def save_scheduled_beta(self, state_dict: dict[str, Any], prefix: str = "") -> None:
        """Write a scheduled hardness to a ``state_dict`` of this loss, and remove any other from it.

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
        # A buffer would be broadcast by DDP in every step, averaged by an EMA, and missing from older checkpoints.
        super()._save_to_state_dict(destination, prefix, keep_vars)
        self.save_scheduled_beta(destination, prefix)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        scheduled = state_dict.pop(prefix + _KEY, None)
        if scheduled is not None and hasattr(self.hardening, "beta"):
            self.schedule_beta(float(scheduled))
        elif self._asked_beta is not None:
            self.beta = self._asked_beta  # a state without a scheduled hardness resets it
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
