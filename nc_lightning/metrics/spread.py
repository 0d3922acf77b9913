"""Alignment, self-clustering and uniformity on the unit sphere for torchmetrics."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from nc_lightning.checks import check_features, check_finite, check_number
from nc_lightning.geometry import ClassStatistics, alignment, self_cluster, uniformity
from nc_lightning.geometry.placement import in_float64
from nc_lightning.metrics.base import ClassStatisticsMetric, Float64Metric


class Alignment(ClassStatisticsMetric):
    """Mean squared distance of two samples of a class on the unit sphere. Range [0, 4], ideal 0.

    Args and errors as for `ClassStatisticsMetric`; the definition is `nc_lightning.geometry.alignment`. Features are
    projected onto the unit sphere.

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
    """How much more features cluster on the unit sphere than random ones: 1 at total collapse, about 0 at random.

    Args and errors as for `ClassStatisticsMetric`; the definition is `nc_lightning.geometry.self_cluster`. Features are
    projected onto the unit sphere. Ideal -1/(N - 1) for d = C - 1.

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
    """Logarithm of the mean Gaussian potential of all pairs on the unit sphere; lower is more uniform.

    The definition is `nc_lightning.geometry.uniformity`. It needs all pairs, so that, unlike every other metric here,
    this one keeps all features.

    Args:
        t: Sharpness > 0.
        **kwargs: Of `torchmetrics.Metric`.

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

    def __init__(self, t: float = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_number("t", t, above=0)
        self.t = t
        self.add_state("features", default=[], dist_reduce_fx="cat")

    def update(self, z: Tensor, labels: Tensor | None = None) -> None:
        """Add a batch of features (N, d); labels are of no use here, and taken for the sake of collections."""
        check_features(z)
        check_finite(z)
        self.features.append(in_float64(z.detach()))

    def compute(self) -> Tensor:
        """Return the uniformity; NaN for fewer than two samples."""
        z = dim_zero_cat(self.features) if len(self.features) > 0 else torch.empty(0, 1)
        return uniformity(z, self.t) if len(z) > 1 else torch.tensor(torch.nan, dtype=torch.float64)
