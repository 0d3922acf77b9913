"""The plane in which a simplex of any number of classes shows as a regular polygon: how to look at C - 1 dimensions."""

import torch
from torch import Tensor

from nc_lightning.geometry.spectra import class_mean_directions
from nc_lightning.geometry.statistics import ClassStatistics


def simplex_plane(stats: ClassStatistics) -> tuple[Tensor, Tensor]:
    """Return a plane for pictures of features, and where the corners of the ideal simplex lie in it.

    The class means are turned, by the rotation that brings them nearest to a simplex ETF (orthogonal Procrustes), and
    then seen from where that simplex is a regular polygon with the classes in order around it. The corners therefore
    stay where they are from epoch to epoch and from run to run: what moves in the picture is the representation, and
    a rotation of all features, to which every loss is blind, moves nothing. The picture of the class means depends on
    their inner products alone. Directions that no class mean uses are not shown.

    Args:
        stats: Statistics of the features, P classes present.

    Returns:
        The basis (d, 2), to be applied to features less the mean of class means, and the corners (P, 2), at the scale
        of the class means; where d < P - 1 no such simplex fits. Both in float64; zeros where all means coincide.

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
    """(C, 2) orthonormal columns that sum to zero, whose rows are a regular polygon; for two classes, a line."""
    angle = 2 * torch.pi * torch.arange(classes, dtype=torch.float64) / classes
    columns = torch.stack([angle.cos(), angle.sin()], dim=1)
    columns = columns - columns.mean(0)
    norms = columns.norm(dim=0)
    return torch.where(norms > 1e-6, columns / norms, 0.0)
