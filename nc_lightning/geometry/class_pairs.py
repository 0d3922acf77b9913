"""Sums over all pairs of class means, in one pass over their inner products that holds a block of them at a time."""

from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.geometry.blocks import row_blocks
from nc_lightning.geometry.spectra import class_mean_eigenvalues
from nc_lightning.geometry.statistics import ClassStatistics

_CLOSE = 1e-4
"""Squared distance over the sum of squared norms below which inner products lose its digits."""


class CenteredPairs(NamedTuple):
    """Measures of the pairs of centered class means, 0-dimensional; NaN where they are undefined.

    Attributes:
        spread: Standard deviation of the cosines.
        off_simplex: Mean of ``|cos + 1/(C - 1)|``.
        largest: Largest cosine.
        to_etf: Frobenius distance between the Gram matrix and that of a simplex ETF, both at unit norm.
        normalized_variance: Mean of (var_a + var_b) / (2 ||mu_a - mu_b||^2).
    """

    spread: Tensor
    off_simplex: Tensor
    largest: Tensor
    to_etf: Tensor
    normalized_variance: Tensor


def centered_pairs(stats: ClassStatistics) -> CenteredPairs:
    """Compute all measures of pairs at once, in C^2 d operations and memory for C d numbers and a block of rows.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> pairs = centered_pairs(ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4)))
        >>> round(pairs.largest.item(), 6), round(pairs.off_simplex.item(), 6)
        (-0.333333, 0.0)
    """
    return stats.remember("pairs of class means", lambda: _centered_pairs(stats))


def _centered_pairs(stats: ClassStatistics) -> CenteredPairs:
    means = stats.centered_class_means
    if len(means) < 2:
        return CenteredPairs(*means.new_full((5,), torch.nan))
    squares, number = means.square().sum(1), means.new_tensor(float(len(means)))
    norms, pairs, ideal = squares.sqrt(), number * (number - 1), -1 / (number - 1)
    directions = means / norms[:, None]
    mean = (directions.sum(0).square().sum() - directions.square().sum()) / pairs
    norm = number * torch.linalg.vector_norm(class_mean_eigenvalues(stats))  # of the Gram matrix
    variances = _variances(stats)
    spread, off_simplex, to_etf, inverse = means.new_zeros(4)
    largest = means.new_full((), -torch.inf)
    for rows in row_blocks(len(means), len(means)):
        products = means[rows] @ means.T
        squared = _squared_distances(means, rows, squares, products, stats.zero_level)
        inverse += ((variances[rows, None] + variances) / _with_diagonal(squared, rows, torch.inf)).sum()
        to_etf += _off_etf(products / norm, rows)
        cosines = products.div_(norms).div_(norms[rows, None])
        spread += (_with_diagonal(cosines, rows, mean) - mean).square_().sum()
        largest = torch.maximum(largest, _with_diagonal(cosines, rows, -torch.inf).max())
        off_simplex += _with_diagonal(cosines, rows, ideal).sub_(ideal).abs_().sum()
    return CenteredPairs((spread / pairs).sqrt(), off_simplex / pairs, largest, to_etf.sqrt(), inverse / (2 * pairs))


def off_simplex(directions: Tensor) -> Tensor:
    """Compute the mean of ``|cos + 1/(C - 1)|`` over the pairs of unit vectors (C, d), C >= 2, in blocks of rows.

    Example:
        >>> round(off_simplex(torch.eye(3)).item(), 6)
        0.5
    """
    classes, total = len(directions), directions.new_zeros(())
    ideal = -1 / (classes - 1)
    for rows in row_blocks(classes, classes):
        total += _with_diagonal(directions[rows] @ directions.T, rows, ideal).sub_(ideal).abs_().sum()
    return total / (classes * (classes - 1))


def distance_to_etf(left: Tensor, right: Tensor) -> Tensor:
    """Compute the Frobenius distance of ``left @ right.T`` (C, C) from the Gram matrix of a simplex ETF, at unit norm.

    The product is computed twice, in blocks of rows: first for its norm.

    Args:
        left: Vectors (C, d), C >= 2.
        right: Vectors (C, d).

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> round(distance_to_etf(5 * simplex_etf(4, 3), simplex_etf(4, 3)).item(), 6)
        0.0
    """
    norm, total = left.new_zeros(()), left.new_zeros(())
    for rows in row_blocks(len(left), len(left)):
        norm = torch.hypot(norm, torch.linalg.matrix_norm(left[rows] @ right.T))
    for rows in row_blocks(len(left), len(left)):
        total += _off_etf(left[rows] @ right.T / norm, rows)
    return total.sqrt()


def _off_etf(products: Tensor, rows: slice) -> Tensor:
    """Return the squared distance of rows of a Gram matrix of unit norm to those of a simplex ETF; overwrite them."""
    classes = products.shape[1]
    products += 1 / (classes * (classes - 1) ** 0.5)
    products.diagonal(rows.start).sub_(1 / (classes - 1) ** 0.5)
    return products.square_().sum()


def _squared_distances(means: Tensor, rows: slice, squares: Tensor, products: Tensor, zero_level: Tensor) -> Tensor:
    """Return the squared distances of rows to all means; from differences where one is small, else from products."""
    sums = squares[rows, None] + squares
    squared = sums - 2 * products
    if bool((_with_diagonal(squared, rows, torch.inf) < _CLOSE * sums).any()):
        squared = torch.cdist(means[rows], means, compute_mode="donot_use_mm_for_euclid_dist").square_()
    return squared.masked_fill_(squared <= zero_level, 0.0)


def _variances(stats: ClassStatistics) -> Tensor:
    """Return the mean squared distance (P,) of each class to its mean, 0 at rounding level."""
    variances = (stats.traces / stats.counts)[stats.present]
    return torch.where(variances <= stats.zero_level, 0.0, variances)


def _with_diagonal(block: Tensor, rows: slice, value: Tensor | float) -> Tensor:
    """Set what rows of a square matrix have on its diagonal, in place."""
    block.diagonal(rows.start).copy_(torch.as_tensor(value, dtype=block.dtype))
    return block
