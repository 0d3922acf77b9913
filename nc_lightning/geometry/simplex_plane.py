"""The plane in which a simplex of any number of classes appears as a regular polygon."""

import torch
from torch import Tensor

from nc_lightning.geometry.spectra import class_mean_directions
from nc_lightning.geometry.statistics import ClassStatistics


def simplex_plane(stats: ClassStatistics) -> tuple[Tensor, Tensor]:
    """Return a plane in which to plot features, and the corners of the ideal simplex in it.

    The class means are rotated to the nearest simplex ETF (orthogonal Procrustes), which is then projected to a regular
    polygon with the classes in order. The corners therefore stay in place across epochs and runs, and rotating all
    features, which leaves every loss unchanged, does not change the picture. Directions that no class mean uses are
    not shown.

    Args:
        stats: Statistics of the features, with P classes present.

    Returns:
        Basis (d, 2), to be applied to features minus the mean of class means, and corners (P, 2) at the scale of the
        class means; for d < P - 1 no such simplex exists. Both in float64, and zero if all means coincide.

    Raises:
        ValueError: If no class is present.

    Source:
        Schoenemann (1966), A generalized solution of the orthogonal Procrustes problem.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(3, 2).update(simplex_etf(3, 2), torch.arange(3))
        >>> basis, corners = simplex_plane(stats)
        >>> torch.allclose(stats.centered_class_means @ basis, corners)
        True
    """
    means = stats.centered_class_means
    classes = len(means)
    if classes == 0:
        raise ValueError("stats: got statistics without a sample, expected at least one class")
    around = _polygon(classes).to(means)
    eigenvalues, directions = class_mean_directions(stats)
    used = eigenvalues > 0
    directions, singular = directions[used], (eigenvalues[used] * classes).sqrt()
    of_classes = means @ directions.T / singular
    basis = directions.T @ (of_classes.T @ around)
    scale = (means.square().sum() / max(1, classes - 1)).sqrt()
    return basis, scale * around


def _polygon(classes: int) -> Tensor:
    """Return orthonormal columns (C, 2) that sum to zero, whose rows form a regular polygon (two classes: a line)."""
    angle = 2 * torch.pi * torch.arange(classes, dtype=torch.float64) / classes
    columns = torch.stack([angle.cos(), angle.sin()], dim=1)
    columns = columns - columns.mean(0)
    norms = columns.norm(dim=0)
    return torch.where(norms > 1e-6, columns / norms, 0.0)
