"""Dimension measures: how many directions a set of vectors really uses, from its singular values.

The functions of a matrix take rows as samples and do not centre them. The functions of class statistics come in two
kinds: of the centred class means (ideal C - 1), and of all features, whose total scatter is rebuilt from the
statistics, so that no feature needs to be kept.
"""

import torch
from torch import Tensor

from nc_lightning.geometry.checks import check_features
from nc_lightning.geometry.statistics import ClassStatistics


def _entropy_rank(singular_values: Tensor) -> Tensor:
    total = singular_values.sum()
    if not total > 0:
        return torch.zeros_like(total)
    p = singular_values / total
    return torch.special.entr(p).sum().exp()


def _participation(singular_values: Tensor) -> Tensor:
    eigenvalues = singular_values.square()
    if not eigenvalues.sum() > 0:
        return torch.zeros_like(eigenvalues.sum())
    return eigenvalues.sum().square() / eigenvalues.square().sum()


def _rankme(singular_values: Tensor) -> Tensor:
    if not singular_values.sum() > 0:
        return torch.zeros_like(singular_values.sum())
    p = singular_values / singular_values.sum() + 1e-7
    return torch.special.entr(p).sum().exp()


def _singular_values(matrix: Tensor) -> Tensor:
    check_features(matrix, "matrix")
    return torch.linalg.svdvals(matrix.double())


def effective_rank(matrix: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values.

    Range [1, rank], and 0 for a zero matrix; C - 1 for the class means of neural collapse. Singular values, not
    eigenvalues of the covariance, whose effective rank is never larger.

    Args:
        matrix: Shape (N, d), floating point; computed in float64. Rows are not centred.

    Returns:
        0-dimensional float64 tensor.

    Raises:
        ValueError: If ``matrix`` does not have two dimensions.

    Source:
        Roy, Vetterli (2007), The effective rank: a measure of effective dimensionality.

    Example:
        >>> round(effective_rank(torch.eye(3)).item(), 6)
        3.0
        >>> effective_rank(torch.zeros(3, 3)).item()
        0.0
    """
    return _entropy_rank(_singular_values(matrix))


def participation_ratio(matrix: Tensor) -> Tensor:
    """Squared sum over sum of squares of the eigenvalues of ``matrix^T matrix``.

    Range [1, rank], and 0 for a zero matrix; C - 1 for the class means of neural collapse.

    Args:
        matrix: Shape (N, d), floating point; computed in float64. Rows are not centred.

    Returns:
        0-dimensional float64 tensor.

    Raises:
        ValueError: If ``matrix`` does not have two dimensions.

    Source:
        Gao et al. (2017), A theory of multineuronal dimensionality.

    Example:
        >>> round(participation_ratio(torch.diag(torch.tensor([3.0, 1.0]))).item(), 4)
        1.2195
    """
    return _participation(_singular_values(matrix))


def rankme(matrix: Tensor) -> Tensor:
    """RankMe: the effective rank with 1e-7 added to every normalised singular value. Range [1, about min(N, d)].

    Args:
        matrix: Shape (N, d), floating point; computed in float64. Rows are not centred.

    Returns:
        0-dimensional float64 tensor.

    Raises:
        ValueError: If ``matrix`` does not have two dimensions.

    Source:
        Garrido et al. (2023), RankMe: assessing the downstream performance by the rank of representations, eq. 1.

    Example:
        >>> round(rankme(torch.eye(3)).item(), 4)
        3.0
    """
    return _rankme(_singular_values(matrix))


def _class_mean_singular_values(stats: ClassStatistics) -> Tensor:
    if int(stats.present.sum()) < 2 or not stats.between_trace > 0:
        return stats.means.new_zeros(1)
    return torch.linalg.svdvals(stats.centred_class_means)


def class_mean_effective_rank(stats: ClassStatistics) -> Tensor:
    """`effective_rank` of the centred class means. Range [0, min(C - 1, d)], ideal C - 1."""
    return _entropy_rank(_class_mean_singular_values(stats))


def class_mean_participation_ratio(stats: ClassStatistics) -> Tensor:
    """`participation_ratio` of the centred class means. Range [0, min(C - 1, d)], ideal C - 1."""
    return _participation(_class_mean_singular_values(stats))


def _feature_singular_values(stats: ClassStatistics, centred: bool) -> Tensor:
    """Singular values of all features seen, from their scatter about the sample mean or about the origin."""
    centre = stats.counts @ stats.means / stats.counts.sum() if centred else torch.zeros_like(stats.means[0])
    offset = stats.class_means - centre
    between = offset.T * stats.counts[stats.present] @ offset
    eigenvalues = torch.linalg.eigvalsh(stats.scatter + between).flip(0).clamp(min=0)
    eigenvalues = eigenvalues[: min(int(stats.num_samples), stats.feature_dim)]
    if not eigenvalues.sum() > stats.zero_level * stats.num_samples:
        return torch.zeros_like(eigenvalues)
    rounding = stats.feature_dim * torch.finfo(eigenvalues.dtype).eps * eigenvalues[0]
    return torch.where(eigenvalues > rounding, eigenvalues, 0.0).sqrt()


def feature_effective_rank(stats: ClassStatistics) -> Tensor:
    """`effective_rank` of all features about their sample mean. Range [0, min(N - 1, d)], ideal C - 1."""
    return _entropy_rank(_feature_singular_values(stats, centred=True))


def feature_rankme(stats: ClassStatistics) -> Tensor:
    """`rankme` of all features, not centred, as its paper has it. Range [1, about min(N, d)], ideal C - 1."""
    return _rankme(_feature_singular_values(stats, centred=False))
