"""The watch for dimensional collapse: a warning while there is still something to be done about it."""

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.callbacks.patience import Patience
from nc_lightning.checks import check_fraction
from nc_lightning.geometry import ClassStatistics


class CollapseWatch(Patience):
    """Warn, once, of class means that keep to few of the dimensions they could use.

    Looks at ``effective_rank`` of the training set whenever a `GeometryMonitor` has measured it. With more classes than
    dimensions its ideal is d, else C - 1.

    Args:
        share: Share of the ideal rank in (0, 1] that counts as collapsed if the rank is below it.
        patience: How many measurements in a row must find it there: at first, all runs use few dimensions.

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
        """Count from zero, and warn again."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """Return how many measurements in a row were low, and whether this was told."""
        return super().state_dict() | {"warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the count."""
        super().load_state_dict(state_dict)
        self._warned = state_dict["warned"]

    def look(self, trainer: Trainer, epoch: int, measured: dict[str, float], stats: ClassStatistics) -> None:
        """Warn if the effective rank has been low for long enough; an undefined one says nothing."""
        rank, ideal = measured["effective_rank"], min(stats.num_classes - 1, stats.feature_dim)
        if not math.isnan(rank) and self.is_over(rank < self.share * ideal) and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"dimensional collapse: at epoch {epoch} the class means of the training set use "
                f"{rank:.1f} of {ideal} dimensions, and less than {self.share:.0%} for {self._in_a_row} measurements "
                "in a row; what helps: harder negatives (beta), normalization to unit_ball or unit_sphere, "
                "class-balanced batches, a smaller step size"
            )
