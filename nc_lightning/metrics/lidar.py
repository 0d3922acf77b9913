"""LiDAR with instances as classes, from the views of each sample."""

from typing import Any

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, as_labels, check_features, check_finite, check_labels, check_number
from nc_lightning.geometry import ClassStatistics, lidar_of
from nc_lightning.geometry.discriminants import DELTA
from nc_lightning.geometry.placement import in_float64, outside_inference
from nc_lightning.metrics.base import ClassStatisticsMetric, MetricOptions, statistics_of
from nc_lightning.options import Unpack


class LiDAR(ClassStatisticsMetric):
    """Compute the effective rank of linear discriminant analysis that tells samples apart by their views.

    Range [0, min(samples - 1, d)]; higher is better, and there is no ideal. Views of a sample must be in the same
    batch, so that the metric keeps 2 d^2 numbers for any number of samples. See `nc_lightning.geometry.lidar` for the
    definition, and for LiDAR with labels as classes.

    Args:
        feature_dim: Dimension d of the features.
        delta: Variance > 0 added to each direction of the covariance within samples.
        **kwargs: Arguments of `torchmetrics.Metric`.

    Raises:
        TypeError: In `update`, if ``z`` is not floating point or ``instances`` not integer.
        ValueError: If ``feature_dim`` is below 1 or ``delta`` not positive; and in `update` if shapes do not fit, a
            feature is not finite, or a sample has a single view.

    Example:
        >>> metric = LiDAR(feature_dim=2)
        >>> views = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]).repeat(2, 1)
        >>> metric.update(views + 0.1 * torch.randn(8, 2).sign(), torch.arange(4).repeat(2))
        >>> 1.0 <= metric.compute().item() <= 2.0
        True
    """

    sums = ("within", "views")
    keys = ("lidar",)
    higher_is_better = True

    def __init__(self, feature_dim: int, delta: float = DELTA, **kwargs: Unpack[MetricOptions]) -> None:
        check_number("delta", delta, above=0)
        super().__init__(1, feature_dim, None, **kwargs)  # statistics of the means of samples, as a single class
        self.delta = delta

    def _settings(self) -> tuple[Any, ...]:
        return (*super()._settings(), "instances")

    def _sum_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"within": (self.feature_dim, self.feature_dim), "views": (1,)}

    def update(self, z: Array, instances: Array) -> None:
        """Add a batch of features (N, d) of all views of some samples.

        Args:
            z: Features (N, d), floating point.
            instances: Integers (N,), equal for views of the same sample; other batches may use the same ones.
        """
        z, instances = as_features(z), as_labels(instances, "instances")
        check_features(z)
        check_labels(instances, len(z), name="instances")
        if z.shape[1] != self.feature_dim:
            raise ValueError(f"z: got feature dimension {z.shape[1]}, expected feature_dim = {self.feature_dim}")
        self.state = outside_inference(self.state)
        parts = self._parts(self.state)
        z, instances = in_float64(z.detach(), self.state.device), instances.to(self.state.device)
        ids, member, counts = instances.unique(return_inverse=True, return_counts=True)
        if not (torch.isfinite(z).all() & (counts > 1).all()):
            check_finite(z)
            single = ids[counts == 1][0].item()
            raise ValueError(f"instances: got a single view of {single}, expected all views of a sample in one batch")
        with torch.autocast(z.device.type, enabled=False):
            means = z.new_zeros(len(ids), z.shape[1]).index_add_(0, member, z) / counts[:, None]
            residuals = z - means[member]
            parts["within"].addmm_(residuals.T, residuals)
            parts["views"] += len(z)
        statistics_of(parts).update(means, torch.zeros_like(counts))

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        if not stats.present.any():
            return stats.means.new_full((), torch.nan)
        within = (self._sum("within") / self._sum("views")).cpu()
        return lidar_of(within, stats.within_covariance, self.delta)
