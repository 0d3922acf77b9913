"""Early stopping at neural collapse, after which more epochs add nothing."""

from dataclasses import replace

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.patience import Patience
from nc_lightning.checks import check_number
from nc_lightning.geometry.ideals import ideal


class NeuralCollapseReached(Patience):
    """Stop training after consecutive measurements at which the training set is at neural collapse.

    Each measure of a `GeometryMonitor` must be within a distance of its ideal, as in the table's column ``met``.
    ``equal_inner_product`` has no ideal, and is not checked, if there are more classes than fit on a simplex.
    Where the minimum of the loss is not neural collapse, as that of HUCL beyond the critical hardness, training is not
    stopped at that minimum.

    Args:
        nc1: Largest distance from its ideal, 0; None for that of the table, 0.01.
        equal_inner_product: Largest distance from 0; None for 0.02.
        zero_sum: Largest distance from 0; None for 0.02.
        effective_rank: Largest distance from C - 1, or from d if that is less; None for 1 % of it.
        patience: Number of consecutive measurements that must meet all of them.

    Attributes:
        figures: Measures at which training was stopped; None if it was not.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from nc_lightning.callbacks import GeometryMonitor
        >>> trainer = Trainer(callbacks=[GeometryMonitor(), NeuralCollapseReached(nc1=1e-3)], logger=False)
    """

    def __init__(
        self,
        nc1: float | None = None,
        equal_inner_product: float | None = None,
        zero_sum: float | None = None,
        effective_rank: float | None = None,
        patience: int = 2,
    ) -> None:
        self.tolerances = {
            "nc1": nc1,
            "equal_inner_product": equal_inner_product,
            "zero_sum": zero_sum,
            "effective_rank": effective_rank,
        }
        for key, tolerance in self.tolerances.items():
            if tolerance is not None:
                check_number(key, tolerance, at_least=0)
        super().__init__(patience)
        self.figures: dict[str, float] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the count and the figures when a fit starts."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.figures = None

    def look(self, trainer: Trainer, pl_module: LightningModule, monitor: GeometryMonitor) -> None:
        """Stop after this epoch if all ideals have been met for long enough."""
        measured, stats = monitor.results["train"], monitor.statistics["train"]
        met = []
        for key, tolerance in self.tolerances.items():
            goal = ideal(key, stats.num_classes, stats.feature_dim)
            if goal is not None:
                met.append((goal if tolerance is None else replace(goal, tolerance=tolerance)).met(measured[key]))
        if self.is_over(all(met)) and self.figures is None:
            self.figures = {key: measured[key] for key in self.tolerances}
            trainer.should_stop = True
            figures = ", ".join(f"{key} {value:.3g}" for key, value in self.figures.items())
            rank_zero_info(f"neural collapse: reached at epoch {monitor.epoch}, training stops: {figures}")
