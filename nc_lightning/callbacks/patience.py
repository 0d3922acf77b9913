"""Base of callbacks that count consecutive measurements of the training set."""

from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.checks import check_count


class Patience(Callback):
    """Count the consecutive measurements of the training set that meet a condition during a fit.

    The count starts at zero unless the fit resumes another one.
    """

    def __init__(self, patience: int) -> None:
        check_count("patience", patience)
        self.patience = patience
        self._in_a_row = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the count when a fit starts."""
        if stage == "fit":
            self._in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count."""
        self._in_a_row = state_dict["in_a_row"]

    def on_geometry_measured(self, trainer: Trainer, pl_module: LightningModule, monitor: GeometryMonitor) -> None:
        """Pass a measurement of the training set to `look` during a fit."""
        if trainer.state.fn == TrainerFn.FITTING and "train" in monitor.statistics:
            self.look(trainer, pl_module, monitor)

    @abstractmethod
    def look(self, trainer: Trainer, pl_module: LightningModule, monitor: GeometryMonitor) -> None:
        """Judge a measurement of the training set."""

    def is_over(self, met: bool) -> bool:
        """Count a measurement, and return whether enough consecutive ones have met the condition."""
        self._in_a_row = self._in_a_row + 1 if met else 0
        return self._in_a_row >= self.patience
