"""The state that all geometry metrics share: class statistics, merged over batches and processes."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from nc_lightning.geometry import CentreDistances, ClassStatistics
from nc_lightning.geometry.measures import CENTRE_MEASURES, STATISTICS_MEASURES

_STATES = ("counts", "means", "scatter", "traces")


class ClassStatisticsMetric(Metric):
    """Base of the geometry metrics: feeds a `ClassStatistics`; a subclass names the measures it reports.

    State is C d + d^2 + 4 C float64 numbers, never the features, and it is not saved in checkpoints. Processes are
    merged by Chan's update, so two of them report what one would on all the data.

    Args:
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        **kwargs: Of `torchmetrics.Metric`.

    Raises:
        ValueError: If a size is below 1; and in `update` if shapes do not fit, a label is out of range, or a feature
            is not finite.
    """

    is_differentiable = False
    # Each process keeps statistics of its own, to be merged in `compute`; no elementwise reduction can do that.
    full_state_update = True

    counts: Tensor
    means: Tensor
    scatter: Tensor
    traces: Tensor
    distances: Tensor
    correct: Tensor

    keys: tuple[str, ...] = ()

    def __init__(self, num_classes: int, feature_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        empty = ClassStatistics(num_classes, feature_dim)
        for name in _STATES:
            self.add_state(name, default=getattr(empty, name), dist_reduce_fx=None)
        for name in ("distances", "correct"):
            self.add_state(name, default=torch.zeros_like(empty.counts), dist_reduce_fx=None)

    def update(self, z: Tensor, labels: Tensor) -> None:
        """Add a batch of features (N, d) and labels (N,)."""
        first = not self.counts.any()
        stats = self._own.update(z, labels)
        if not set(self.keys) & set(CENTRE_MEASURES):
            return
        if first and len(z) > 0:
            seen = CentreDistances(stats).update(z, labels)
            self.distances, self.correct = seen.distances, seen.correct
        elif len(z) > 0:
            self.distances, self.correct = self.distances * torch.nan, self.correct * torch.nan

    @property
    def _own(self) -> ClassStatistics:
        return ClassStatistics.from_state(self.counts, self.means, self.scatter, self.traces)

    @property
    def statistics(self) -> ClassStatistics:
        """The class statistics of everything that was added, by all processes where these are synchronised."""
        if self.counts.ndim == 1:
            return self._own
        ranks = zip(*(getattr(self, name) for name in _STATES), strict=True)
        merged, *others = (ClassStatistics.from_state(*(state.clone() for state in rank)) for rank in ranks)
        for other in others:
            merged.merge(other)
        return merged

    def compute(self) -> Any:
        """Return the measure, or a flat dict of them if there are several."""
        stats = self.statistics.to("cpu")
        values = {key: self._measure(key, stats) for key in self.keys}
        return values if len(values) > 1 else values[self.keys[0]]

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        if not stats.present.any():
            return stats.means.new_tensor(torch.nan)
        if key in STATISTICS_MEASURES:
            return STATISTICS_MEASURES[key](stats)
        distances, correct = self.distances.cpu(), self.correct.cpu()
        if self.counts.ndim > 1:
            # Each process knew the distances to its own means only, not to those of all.
            distances = correct = torch.full_like(stats.counts, torch.nan)
        return CENTRE_MEASURES[key](CentreDistances.from_state(stats, stats.counts, distances, correct))
