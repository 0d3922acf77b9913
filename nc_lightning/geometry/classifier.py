"""NC3 and NC4: whether a linear classifier aligns with the class means and decides like the nearest of them.

A classifier is given by its weight (C, d) and bias (C,). Absent classes are ignored.
"""

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, check_features, check_finite
from nc_lightning.geometry.blocks import row_blocks
from nc_lightning.geometry.centers import CenterDistances
from nc_lightning.geometry.class_pairs import distance_to_etf
from nc_lightning.geometry.collapse import separated
from nc_lightning.geometry.placement import in_float64
from nc_lightning.geometry.statistics import ClassStatistics


def check_classifier(weight: Tensor, bias: Tensor | None, num_classes: int, feature_dim: int) -> None:
    """Raise unless a classifier fits the classes and the features.

    Raises:
        TypeError: If the weight is not floating point.
        ValueError: If a shape does not fit, or a number is not finite.

    Example:
        >>> check_classifier(torch.zeros(3, 2), None, num_classes=4, feature_dim=2)
        Traceback (most recent call last):
        ...
        ValueError: weight: got shape (3, 2), expected (4, 2), a row for each class
    """
    check_features(weight, "weight")
    if weight.shape != (num_classes, feature_dim):
        raise ValueError(
            f"weight: got shape {tuple(weight.shape)}, expected ({num_classes}, {feature_dim}), a row for each class"
        )
    check_finite(weight, "weight")
    if bias is not None:
        if bias.shape != (num_classes,):
            raise ValueError(f"bias: got shape {tuple(bias.shape)}, expected ({num_classes},), one for each class")
        check_finite(bias[:, None], "bias")


def _centered_rows(stats: ClassStatistics, weight: Array) -> Tensor:
    """Return the rows of the present classes minus their mean."""
    weight = as_features(weight, "weight")
    check_classifier(weight, None, stats.num_classes, stats.feature_dim)
    rows = in_float64(weight.detach(), stats.means.device)[stats.present]
    return rows - rows.mean(0)


def nc3(stats: ClassStatistics, weight: Array) -> Tensor:
    """Compute NC3, self-duality: Frobenius distance between classifier and centered class means, both at unit norm.

    The mean of the rows is subtracted, which does not change the output of a softmax.

    Args:
        stats: Statistics of the features.
        weight: Weight (C, d) of the classifier; NC3 does not depend on the bias.

    Returns:
        0-dimensional tensor, range [0, 2], ideal 0; NaN if all class means coincide, or all rows.

    Raises:
        ValueError: If the shape does not fit, or a weight is not finite.

    Source:
        Papyan, Han, Donoho (2020), NC3; rows of the weight centered.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> means = simplex_etf(4, 3)
        >>> stats = ClassStatistics(4, 3).update(means, torch.arange(4))
        >>> round(nc3(stats, 7 * means + 1).item(), 6)
        0.0
    """
    if not separated(stats):
        return stats.means.new_full((), torch.nan)
    rows, means = _centered_rows(stats, weight), stats.centered_class_means
    distance: Tensor = torch.linalg.matrix_norm(
        rows / torch.linalg.matrix_norm(rows) - means / torch.linalg.matrix_norm(means)
    )
    return distance


def nc3_etf(stats: ClassStatistics, weight: Array) -> Tensor:
    """Compute the distance between the unit-norm matrix W M^T and that of a simplex ETF.

    W are the centered rows of the classifier, M the centered class means. Args and errors are those of `nc3`. Range
    [0, 2], ideal 0; NaN if all class means coincide.

    Source:
        Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features.
    """
    if not separated(stats):
        return stats.means.new_full((), torch.nan)
    return distance_to_etf(_centered_rows(stats, weight), stats.centered_class_means)


def nc3_cosine(stats: ClassStatistics, weight: Array) -> Tensor:
    """Compute one minus the cosine between classifier row and centered class mean, averaged over classes.

    Args and errors are those of `nc3`. Range [0, 2], ideal 0; NaN if all class means coincide.

    Source:
        Jiang et al. (2023), Generalized neural collapse, arXiv 2310.05351, GNC3.
    """
    if not separated(stats):
        return stats.means.new_full((), torch.nan)
    return (1 - torch.cosine_similarity(_centered_rows(stats, weight), stats.centered_class_means, eps=0.0)).mean()


def nc4_mismatches(z: Array, weight: Array, bias: Array | None, centers: CenterDistances) -> Tensor:
    """Check for each feature whether the classifier disagrees with the nearest class center.

    Args:
        z: Features (N, d).
        weight: Weight (C, d) of the classifier.
        bias: Bias (C,) of the classifier; None if it has none.
        centers: Class centers.

    Returns:
        Boolean mask (N,). NC4 is its mean: range [0, 1], ideal 0.

    Raises:
        ValueError: If a shape does not fit, or a number is not finite.

    Source:
        Papyan, Han, Donoho (2020), NC4. Ties go to the lowest class.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> means = simplex_etf(4, 3)
        >>> centers = CenterDistances(ClassStatistics(4, 3).update(means, torch.arange(4)))
        >>> nc4_mismatches(means, means, torch.tensor([0.0, 0.0, 0.0, 9.0]), centers)
        tensor([ True,  True,  True, False])
    """
    stats = centers.centers
    z, weight = as_features(z), as_features(weight, "weight")
    bias = None if bias is None else as_features(bias, "bias")
    check_classifier(weight, bias, stats.num_classes, stats.feature_dim)
    place = stats.means.device
    with torch.autocast(place.type, enabled=False):
        z, weight = in_float64(z.detach(), place), in_float64(weight.detach(), place)
        offsets = weight.new_zeros(len(weight)) if bias is None else in_float64(bias.detach(), place)
        blocks = row_blocks(len(z), len(weight))
        differ = centers.nearest(z)
        for rows in blocks:
            differ[rows] -= torch.addmm(offsets, z[rows], weight.T).argmax(1)
        return differ != 0
