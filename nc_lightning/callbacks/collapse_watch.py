"""Warning about dimensional collapse while there is still time to act on it."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.patience import Patience
from nc_lightning.checks import check_fraction


class CollapseWatch(Patience):
    """Warn once when the class means use only a few of the dimensions available to them.

    The watch reads ``effective_rank`` of the training set after each measurement of a `GeometryMonitor`. The ideal rank
    is C - 1, or d if that is less, or that of the loss's minimum if it has fewer dimensions, as where small classes
    coincide.

    Args:
        share: Share of the ideal rank, in (0, 1], below which the rank counts as collapsed.
        patience: Number of consecutive low measurements before the warning: early on, all runs use few dimensions.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from nc_lightning.callbacks import GeometryMonitor
        >>> trainer = Trainer(callbacks=[GeometryMonitor(), CollapseWatch(patience=5)], logger=False)
    """

    def __init__(self, share: float = 0.7, patience: int = 3) -> None:
        check_fraction("share", share, "(0, 1]", "one of the ideal rank")
        super().__init__(patience)
        self.share = share
        self._warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the count and the warning when a fit starts."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """Return the number of consecutive low measurements, and whether the warning was given."""
        return super().state_dict() | {"warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count and the warning."""
        super().load_state_dict(state_dict)
        self._warned = state_dict["warned"]

    def look(self, trainer: Trainer, pl_module: LightningModule, monitor: GeometryMonitor) -> None:
        """Warn if the effective rank has been low for long enough; an undefined rank is ignored."""
        rank, stats = monitor.results["train"]["effective_rank"], monitor.statistics["train"]
        ideal = f"{min(stats.num_classes - 1, stats.feature_dim)}"
        if rank < self.share * float(ideal) and "effective_rank" in (own := monitor.own_ideals(pl_module)):
            ideal = own["effective_rank"].text
        if not math.isnan(rank) and self.is_over(rank < self.share * float(ideal)) and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"dimensional collapse: at epoch {monitor.epoch} the class means of the training set use "
                f"{rank:.1f} of {ideal} dimensions, and less than {self.share:.0%} for {self._in_a_row} measurements "
                "in a row; remedies: harder negatives (beta), normalization to unit_ball or unit_sphere, "
                "class-balanced batches, a lower learning rate"
            )
