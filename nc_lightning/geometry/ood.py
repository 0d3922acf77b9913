"""NC5: class means compared with features of out-of-distribution data."""

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, check_finite
from nc_lightning.geometry.placement import in_float64
from nc_lightning.geometry.statistics import ClassStatistics


def nc5(stats: ClassStatistics, ood_mean: Array) -> Tensor:
    """Compute the mean ``|cos|`` between the class means and the mean of out-of-distribution features.

    Range [0, 1]; 0 if out-of-distribution features are orthogonal to all class means, which makes them easy to tell
    apart by their share in the span of the classes. Neural collapse does not imply it, and where the class means span
    all d dimensions no direction is orthogonal to them. The means are not centered. NaN if one of them is zero.

    Args:
        stats: Statistics of the features of known classes.
        ood_mean: Mean (d,) of the features of other data.

    Returns:
        0-dimensional float64 tensor.

    Raises:
        ValueError: If ``ood_mean`` does not have shape (d,), or is not finite.

    Source:
        Ammar et al. (2024), NECO, arXiv 2310.06823, NC5.

    Example:
        >>> stats = ClassStatistics(2, 3).update(torch.eye(3)[:2], torch.tensor([0, 1]))
        >>> nc5(stats, torch.tensor([0.0, 0.0, 7.0])).item(), round(nc5(stats, torch.ones(3)).item(), 4)
        (0.0, 0.5774)
    """
    ood_mean = as_features(ood_mean, "ood_mean")
    if ood_mean.shape != (stats.feature_dim,):
        raise ValueError(
            f"ood_mean: got shape {tuple(ood_mean.shape)}, expected ({stats.feature_dim},), as the features"
        )
    check_finite(ood_mean[None], "ood_mean")
    means, ood_mean = stats.class_means, in_float64(ood_mean, stats.means.device)
    norms: Tensor = torch.linalg.vector_norm(means, dim=1) * torch.linalg.vector_norm(ood_mean)
    return (means @ ood_mean / norms).abs().clamp(max=1).mean()
