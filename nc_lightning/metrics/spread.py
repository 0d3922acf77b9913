"""Alignment, self-clustering and uniformity on the unit sphere as torchmetrics."""

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from nc_lightning.checks import Array, as_features, check_features, check_finite, check_number
from nc_lightning.geometry import ClassStatistics, alignment, self_cluster, uniformity
from nc_lightning.geometry.placement import in_float64
from nc_lightning.metrics.base import ClassStatisticsMetric, Float64Metric, MetricOptions
from nc_lightning.options import Unpack


class Alignment(ClassStatisticsMetric):
    """Compute the mean squared distance between samples of a class on the unit sphere. Range [0, 4], ideal 0.

    Features are projected onto the unit sphere. See `ClassStatisticsMetric` for args and errors, and
    `nc_lightning.geometry.alignment` for the definition.

    Example:
        >>> metric = Alignment(num_classes=2, feature_dim=2)
        >>> metric.update(torch.tensor([[2.0, 0.0], [0.0, 0.5], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        >>> round(metric.compute().item(), 6)
        2.0
    """

    keys = ("alignment",)
    on_unit_sphere = True
    higher_is_better = False

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        return alignment(stats)


class SelfCluster(ClassStatisticsMetric):
    """Compute how much more features cluster on the unit sphere than random ones.

    It is 1 at total collapse, about 0 for random features, and ideally -1/(N - 1) for d = C - 1. Features are projected
    onto the unit sphere. See `ClassStatisticsMetric` for args and errors, and `nc_lightning.geometry.self_cluster` for
    the definition.

    Example:
        >>> metric = SelfCluster(num_classes=2, feature_dim=2)
        >>> metric.update(torch.tensor([[2.0, 0.0], [0.0, 0.5]]), torch.tensor([0, 1]))
        >>> round(metric.compute().item(), 6)
        -1.0
    """

    keys = ("self_cluster",)
    on_unit_sphere = True
    higher_is_better = False

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        return self_cluster(stats)


class Uniformity(Float64Metric):
    """Compute the log of the mean Gaussian potential of all pairs on the unit sphere; lower is more uniform.

    See `nc_lightning.geometry.uniformity` for the definition. As it needs all pairs, this metric keeps all features,
    unlike the others.

    Args:
        t: Sharpness > 0 of the potential.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If ``t`` is not positive; in `update` if a feature is not finite.

    Example:
        >>> metric = Uniformity()
        >>> metric.update(torch.tensor([[1.0, 0.0]]))
        >>> metric.update(torch.tensor([[-1.0, 0.0]]))
        >>> metric.compute().item()
        -8.0
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = False
    features: list[Tensor]

    def __init__(self, t: float = 2.0, **kwargs: Unpack[MetricOptions]) -> None:
        super().__init__(**kwargs)
        check_number("t", t, above=0)
        self.t = t
        self.add_state("features", default=[], dist_reduce_fx="cat")

    def update(self, z: Array, labels: Array | None = None) -> None:
        """Add a batch of features (N, d); ``labels`` is ignored, but lets the metric fit a MetricCollection."""
        z = as_features(z)
        check_features(z)
        check_finite(z)
        self.features.append(in_float64(z.detach()))

    def compute(self) -> Tensor:
        """Return the uniformity; NaN for fewer than two samples."""
        z = dim_zero_cat(self.features) if len(self.features) > 0 else torch.empty(0, 1)
        return uniformity(z, self.t) if len(z) > 1 else torch.tensor(torch.nan, dtype=torch.float64)
