"""Stops a run that has arrived: the training set is at neural collapse, and more epochs add nothing."""

from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.checks import check_count, check_number
from nc_lightning.geometry.ideals import ideal


class NeuralCollapseReached(Callback):
    """Stop training once the training set is at neural collapse, measurement after measurement.

    Looks at what a `GeometryMonitor` has measured, and asks of each measure what the table's column ``met`` asks: is it
    within a distance of its ideal? With more classes than fit on a simplex there is no ideal of
    ``equal_inner_product``, which then is not asked for.

    Args:
        nc1: Largest distance from its ideal, 0; None for that of the table, 0.01.
        equal_inner_product: From 0; None for 0.02.
        zero_sum: From 0; None for 0.02.
        effective_rank: From C - 1, or d if that is less; None for 1 % of it.
        patience: How many measurements in a row must meet all of them.

    Attributes:
        figures: The measures that training was stopped with; None as long as it was not.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> from lightning.pytorch import Trainer
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
        check_count("patience", patience)
        self.patience = patience
        self.figures: dict[str, float] | None = None
        self._in_a_row = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew with every fit that does not resume one."""
        if stage == "fit":
            self._in_a_row, self.figures = 0, None

    def state_dict(self) -> dict[str, Any]:
        """Return how many measurements in a row were at neural collapse."""
        return {"in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._in_a_row = state_dict["in_a_row"]

    def on_geometry_measured(self, trainer: Trainer, pl_module: LightningModule, monitor: GeometryMonitor) -> None:
        """Stop after this epoch if the training set has been there for long enough."""
        if trainer.state.fn != TrainerFn.FITTING or "train" not in monitor.statistics:
            return
        stats, measured = monitor.statistics["train"], monitor.results["train"]
        met = []
        for key, tolerance in self.tolerances.items():
            goal = ideal(key, stats.num_classes, stats.feature_dim)
            if goal is not None:
                met.append((goal if tolerance is None else replace(goal, tolerance=tolerance)).met(measured[key]))
        self._in_a_row = self._in_a_row + 1 if all(met) else 0
        if self._in_a_row >= self.patience and self.figures is None:
            self.figures = {key: measured[key] for key in self.tolerances}
            trainer.should_stop = True
            figures = ", ".join(f"{key} {value:.3g}" for key, value in self.figures.items())
            rank_zero_info(f"neural collapse: reached at epoch {monitor.epoch}, where training stops: {figures}")
