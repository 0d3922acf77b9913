"""The watch for dimensional collapse: a warning while there is still something to be done about it."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.checks import check_count, check_fraction


class CollapseWatch(Callback):
    """Warn, once, of class means that keep to few of the dimensions they could use.

    Looks at ``effective_rank`` of the training set whenever a `GeometryMonitor` has measured it. With more classes than
    dimensions its ideal is d, else C - 1.

    Args:
        share: Share of the ideal rank in (0, 1] that counts as collapsed if the rank is below it.
        patience: How many measurements in a row must find it there: at first, all runs use few dimensions.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[GeometryMonitor(), CollapseWatch(patience=5)], logger=False)
    """

    def __init__(self, share: float = 0.7, patience: int = 3) -> None:
        check_fraction("share", share, "(0, 1]", "one of the ideal rank")
        check_count("patience", patience)
        self.share = share
        self.patience = patience
        self._in_a_row = 0
        self._warned = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew with every fit that does not resume one."""
        if stage == "fit":
            self._in_a_row, self._warned = 0, False

    def state_dict(self) -> dict[str, Any]:
        """Return how many measurements in a row were low, and whether this was told."""
        return {"in_a_row": self._in_a_row, "warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the state of `state_dict`."""
        self._in_a_row, self._warned = state_dict["in_a_row"], state_dict["warned"]

    def on_geometry_measured(self, trainer: Trainer, pl_module: LightningModule, monitor: GeometryMonitor) -> None:
        """Look at the effective rank of the training set."""
        rank = monitor.results.get("train", {}).get("effective_rank", math.nan)
        if math.isnan(rank) or trainer.state.fn != TrainerFn.FITTING or "train" not in monitor.statistics:
            return
        stats = monitor.statistics["train"]
        ideal = min(stats.num_classes - 1, stats.feature_dim)
        self._in_a_row = self._in_a_row + 1 if rank < self.share * ideal else 0
        if self._in_a_row >= self.patience and not self._warned:
            self._warned = True
            rank_zero_warn(
                f"dimensional collapse: at epoch {monitor.epoch} the class means of the training set use "
                f"{rank:.1f} of {ideal} dimensions, and less than {self.share:.0%} for {self._in_a_row} measurements "
                "in a row; what helps: harder negatives (beta), normalization to unit_ball or unit_sphere, "
                "class-balanced batches, a smaller step size"
            )
