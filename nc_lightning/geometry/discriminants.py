"""LiDAR: the effective rank of linear discriminant analysis, of classes or of the views of single samples."""

import torch
from torch import Tensor

from nc_lightning.checks import check_number
from nc_lightning.geometry.collapse import separated
from nc_lightning.geometry.ranks import effective_rank_of
from nc_lightning.geometry.statistics import ClassStatistics

DELTA = 1e-4
"""Variance that the paper adds to every direction of the within-class covariance."""


def lidar(stats: ClassStatistics, delta: float = DELTA) -> Tensor:
    """Compute the effective rank of the between-class covariance, whitened by the within-class covariance.

    Range [0, min(C - 1, d)], ideal C - 1; 0 if all class means coincide. It counts the directions that separate
    classes, weighted by how well they do: a direction counts less the more its classes overlap. In the paper the
    classes are instances, the views of one sample; see `nc_lightning.metrics.LiDAR`.

    Args:
        stats: Statistics of features, grouped by class or by instance.
        delta: Variance > 0 added to each direction of the within-class covariance. It is absolute, as in the paper, so
            the value depends on the scale of the features.

    Returns:
        0-dimensional float64 tensor.

    Raises:
        ValueError: If ``delta`` is not positive.

    Source:
        Thilak et al. (2024), LiDAR, arXiv 2312.04000, without the 1e-7 added to each share: 0 log 0 is 0 here.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(4, 5).update(simplex_etf(4, 5), torch.arange(4))
        >>> round(lidar(stats).item(), 6)
        3.0
    """
    check_number("delta", delta, above=0)
    if not separated(stats):
        return stats.means.new_zeros(())
    means = stats.centered_class_means / len(stats.class_means) ** 0.5
    root = _root(stats.within_covariance, delta)
    whitened = torch.linalg.solve_triangular(root, means.T, upper=False)
    return effective_rank_of(torch.linalg.svdvals(whitened).square())


def lidar_of(within: Tensor, between: Tensor, delta: float = DELTA) -> Tensor:
    """Compute `lidar` from the covariances (d, d) within and between groups, for more groups than one can keep.

    Example:
        >>> lidar_of(torch.zeros(2, 2).double(), torch.eye(2).double()).item()
        2.0
    """
    root = _root(within, delta)
    half = torch.linalg.solve_triangular(root, between, upper=False)
    whitened = torch.linalg.solve_triangular(root, half.T, upper=False)
    return effective_rank_of(torch.linalg.eigvalsh(whitened).clamp(min=0))


def _root(within: Tensor, delta: float) -> Tensor:
    """Return the Cholesky factor of the covariance within groups plus delta, or plus its rounding if that is larger."""
    rounding = 16 * len(within) * torch.finfo(within.dtype).eps * within.trace()
    eye = torch.eye(len(within), dtype=within.dtype, device=within.device)
    factor: Tensor = torch.linalg.cholesky(within + rounding.clamp(min=delta) * eye)
    return factor
