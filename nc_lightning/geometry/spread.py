"""Spread of features over the unit sphere: alignment within classes, uniformity and self-clustering.

Statistics must be those of features on the unit sphere, except for `wasserstein_uniformity`; measures are
0-dimensional float64 tensors.
"""

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, check_features, check_finite
from nc_lightning.geometry.normalization import unit_sphere
from nc_lightning.geometry.placement import in_float64
from nc_lightning.geometry.spectra import feature_eigenvalues
from nc_lightning.geometry.statistics import ClassStatistics

PAIRS_AT_ONCE = 2**22
"""Number of squared distances that `uniformity` holds at a time."""


def alignment(stats: ClassStatistics) -> Tensor:
    """Compute the mean squared distance between two samples of a class, averaged over classes with at least two.

    Range [0, 4], ideal 0; NaN if every class has a single sample.

    Source:
        Wang, Isola (2020), arXiv 2005.10242, with alpha = 2 and all pairs of a class as positives.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        >>> round(alignment(ClassStatistics(2, 2).update(z, torch.tensor([0, 0, 1]))).item(), 6)
        2.0
    """
    several = stats.counts > 1
    return (2 * stats.traces[several] / (stats.counts[several] - 1)).mean()


def self_cluster(stats: ClassStatistics) -> Tensor:
    """Compute how much more features cluster than random ones, from the squared cosines of all pairs.

    It is 1 if all features are equal or opposite, about 0 for random features, and -1/(N - 1) if they fill all
    dimensions evenly, as at neural collapse with d = C - 1. NaN for d = 1, where the squared cosines are constant.

    Source:
        Tsitsulin et al. (2023), Unsupervised embedding quality evaluation, arXiv 2305.16562.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> round(self_cluster(ClassStatistics(2, 2).update(z, torch.tensor([0, 1]))).item(), 6)
        -1.0
    """
    n, present = stats.counts.sum(), stats.present
    moment = stats.scatter + stats.means[present].T * stats.counts[present] @ stats.means[present]
    expected = n + n * (n - 1) / stats.feature_dim
    return (moment.square().sum() - expected) / (n * n - expected)


def wasserstein_uniformity(stats: ClassStatistics) -> Tensor:
    """Compute the 2-Wasserstein distance from a Gaussian with the mean and covariance of the features to N(0, I/d).

    N(0, I/d) is close to the uniform distribution on the unit sphere. Unlike `uniformity`, it sees dimensional collapse
    and needs no pairs. Features of any norm are scaled to a mean squared norm of 1; on the unit sphere this changes
    nothing. With mean m and eigenvalues lambda_k of the covariance after scaling, where ||m||^2 + sum_k lambda_k = 1,
    it is sqrt(||m||^2 + sum_k (sqrt(lambda_k) - 1/sqrt(d))^2) = sqrt(2 - 2 sum_k sqrt(lambda_k / d)).

    Range [0, sqrt(2)]: sqrt(2) if all features are equal, sqrt(2 - 2/sqrt(d)) on a line through the origin. At neural
    collapse sqrt(2 - 2 sqrt(min(C - 1, d) / d)), the least value of collapsed classes; lower is more uniform. NaN if
    all features are zero.

    Source:
        Fang et al. (2024), Rethinking the uniformity metric in self-supervised learning, arXiv 2403.00642.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
        >>> round(wasserstein_uniformity(ClassStatistics(2, 2).update(z, torch.tensor([0, 1, 0, 1]))).item(), 6)
        0.0
    """
    center = stats.counts @ stats.means / stats.counts.sum()
    offset, eigenvalues = center.square().sum(), feature_eigenvalues(stats)
    squared_norm = offset + eigenvalues.sum()
    missing = (stats.feature_dim - len(eigenvalues)) / stats.feature_dim  # directions without variance
    even = stats.feature_dim**-0.5
    squared: Tensor = offset / squared_norm + ((eigenvalues / squared_norm).sqrt() - even).square().sum() + missing
    return squared.sqrt()


@torch.no_grad()
def uniformity(z: Array, t: float = 2.0) -> Tensor:
    """Compute the log of the mean Gaussian potential e^{-t ||z_i - z_j||^2} over all pairs on the unit sphere.

    All N (N - 1) / 2 pairs are used, in O(N d) memory.

    Args:
        z: Features (N, d), N >= 2, a tensor, array or list of rows; projected onto the unit sphere.
        t: Sharpness > 0 of the potential.

    Returns:
        0-dimensional float64 tensor, range [-4 t, 0]; lower is more uniform. At neural collapse with n samples in each
        of C classes it is log(q + (1 - q) e^{-2 t C / (C - 1)}) with q = (n - 1)/(n C - 1).

    Raises:
        TypeError: If ``z`` is not floating point.
        ValueError: If there are fewer than two samples, or a feature is not finite.

    Source:
        Wang, Isola (2020), arXiv 2005.10242.

    Example:
        >>> uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item()
        -8.0
    """
    z = as_features(z)
    check_features(z)
    check_finite(z)
    if len(z) < 2:
        raise ValueError(f"z: got {len(z)} samples, expected at least 2")
    z = in_float64(z)
    with torch.autocast(z.device.type, enabled=False):
        z = unit_sphere(z)
        sums, height = [], max(1, PAIRS_AT_ONCE // len(z))
        for start in range(0, len(z), height):
            rows = z[start : start + height]
            # Distances from differences: computed from inner products, small distances lose precision.
            squared = torch.cdist(rows, z[start:], compute_mode="donot_use_mm_for_euclid_dist").square()
            later = torch.ones_like(squared, dtype=torch.bool).triu(1)
            sums.append((-t * squared[later]).logsumexp(0))
        pairs = z.new_full((), len(z) * (len(z) - 1) / 2)
        return torch.stack(sums).logsumexp(0) - pairs.log()
