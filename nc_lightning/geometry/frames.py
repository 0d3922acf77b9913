"""Measures for more classes than a simplex can have, C > d + 1, and lower bounds (floors) of measures.

For C <= d + 1 the ideal is the simplex ETF; for more classes, the class means can still be a tight frame with the
largest possible angles. Functions of class statistics return 0-dimensional float64 tensors, NaN if all class means
coincide. Floors take the number of classes C >= 2 and the dimension d >= 1, and raise a ValueError otherwise.
"""

import math

import torch
from torch import Tensor

from nc_lightning.checks import check_count
from nc_lightning.geometry.class_pairs import centered_pairs
from nc_lightning.geometry.collapse import separated
from nc_lightning.geometry.statistics import ClassStatistics


def nc2_tight_frame(stats: ClassStatistics) -> Tensor:
    """Compute the distance from the covariance of the class means to that of a tight frame, I / sqrt(d), at unit norm.

    Range [0, sqrt(2)); 0 if the means spread evenly over all d dimensions; for C <= d at least
    sqrt(2 - 2 sqrt((C - 1) / d)). It equals sqrt(2 - 2 sqrt(PR / d)) for the participation ratio PR.

    Source:
        Zhu et al. (2021) for the simplex; Jiang et al. (2023), Generalized neural collapse, arXiv 2310.05351.

    Example:
        >>> angles = torch.arange(5) * (2 * math.pi / 5)
        >>> pentagon = torch.stack([angles.cos(), angles.sin()], dim=1)
        >>> round(nc2_tight_frame(ClassStatistics(5, 2).update(pentagon, torch.arange(5))).item(), 6)
        0.0
    """
    if not separated(stats):
        return stats.means.new_full((), torch.nan)
    means = stats.centered_class_means
    covariance = means.T @ means
    even = torch.eye(len(covariance), dtype=means.dtype, device=means.device) / len(covariance) ** 0.5
    distance: Tensor = torch.linalg.matrix_norm(covariance / torch.linalg.matrix_norm(covariance) - even)
    return distance


def nc2_max_cosine(stats: ClassStatistics) -> Tensor:
    """Compute the largest cosine between two centered class means. Range [-1/(C - 1), 1], floor `max_cosine_floor`.

    Source:
        Jiang et al. (2023), Generalized neural collapse, arXiv 2310.05351.
    """
    return centered_pairs(stats).largest if separated(stats) else stats.means.new_full((), torch.nan)


def max_cosine_floor(num_classes: int, feature_dim: int) -> float:
    """Return the smallest possible largest cosine between C vectors in d dimensions, Rankin's bound.

    It is -1/(C - 1) for C <= d + 1, attained by the simplex; 0 for C <= 2 d, attained by an orthoplex; and also 0 for
    more classes, where it is not attained.

    Source:
        Rankin (1955), The closest packing of spherical caps in n dimensions.

    Example:
        >>> max_cosine_floor(5, 4), max_cosine_floor(6, 4)
        (-0.25, 0.0)
    """
    _check(num_classes, feature_dim)
    return -1 / (num_classes - 1) if num_classes <= feature_dim + 1 else 0.0


def coherence_floor(num_classes: int, feature_dim: int) -> float:
    """Return the smallest possible largest absolute cosine between C vectors in d dimensions, Welch's bound.

    Source:
        Welch (1974), Lower bounds on the maximum cross correlation of signals.

    Example:
        >>> round(coherence_floor(20, 5), 6), coherence_floor(5, 5)
        (0.39736, 0.0)
    """
    _check(num_classes, feature_dim)
    return math.sqrt(max(num_classes - feature_dim, 0) / (feature_dim * (num_classes - 1)))


def equiangular_floor(num_classes: int, feature_dim: int) -> float:
    """Return the smallest `nc2_equiangular` of C centered class means of equal norm in d dimensions: 0 up to C = d + 1.

    Means of unequal norms can be below it for C > d + 1: 19 means at 1 and one at -19 have 0.6, where the floor is
    0.9986. `ideal` therefore returns no ideal for `nc2_equiangular` there.

    Source:
        Welch (1974): the mean squared cosine is at least (C - d) / (d (C - 1)), and the mean cosine -1/(C - 1).

    Example:
        >>> equiangular_floor(6, 5), round(equiangular_floor(20, 5), 4)
        (0.0, 0.3939)
    """
    _check(num_classes, feature_dim)
    if num_classes <= feature_dim + 1:
        return 0.0
    return math.sqrt(max(0.0, coherence_floor(num_classes, feature_dim) ** 2 - 1 / (num_classes - 1) ** 2))


def etf_floor(num_classes: int, feature_dim: int) -> float:
    """Return the smallest possible `nc2_etf` of C class means in d dimensions: 0 up to C = d + 1.

    Source:
        `nc2_etf` is a function of the participation ratio, which is at most d.

    Example:
        >>> etf_floor(6, 5), round(etf_floor(20, 5), 4)
        (0.0, 0.9869)
    """
    _check(num_classes, feature_dim)
    return math.sqrt(2 - 2 * math.sqrt(min(1.0, feature_dim / (num_classes - 1))))


def tight_frame_floor(num_classes: int, feature_dim: int) -> float:
    """Return the smallest possible `nc2_tight_frame` of C class means in d dimensions: 0 from C = d + 1.

    Source:
        `nc2_tight_frame` is a function of the participation ratio, which is at most C - 1.

    Example:
        >>> tight_frame_floor(6, 5), round(tight_frame_floor(6, 20), 4)
        (0.0, 1.0)
    """
    _check(num_classes, feature_dim)
    return math.sqrt(2 - 2 * math.sqrt(min(1.0, (num_classes - 1) / feature_dim)))


def _check(num_classes: int, feature_dim: int) -> None:
    check_count("num_classes", num_classes, at_least=2)
    check_count("feature_dim", feature_dim)
