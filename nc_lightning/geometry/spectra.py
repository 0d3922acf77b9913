"""Spectra of the centered class means and of all features, computed from class statistics without keeping features.

Each spectrum is computed once and shared by all measures.
"""

import torch
from torch import Tensor

from nc_lightning.geometry.ranks import (
    EIGENVALUE_CUTOFF,
    alpha_req,
    effective_rank_of,
    nesum_of,
    participation_of,
    rankme_of,
)
from nc_lightning.geometry.statistics import ClassStatistics


def class_mean_eigenvalues(stats: ClassStatistics) -> Tensor:
    """Return the eigenvalues (min(C, d),) of Sigma_B, the covariance of class means, in descending order.

    Eigenvalues at rounding level are set to 0; all are 0 if the means coincide. At neural collapse C - 1 are equal.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(3, 2).update(simplex_etf(3, 2), torch.arange(3))
        >>> class_mean_eigenvalues(stats)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    return class_mean_directions(stats)[0]


def class_mean_directions(stats: ClassStatistics) -> tuple[Tensor, Tensor]:
    """Return `class_mean_eigenvalues` (r,) and their directions (r, d)."""
    return stats.remember("class mean directions", lambda: _class_mean_directions(stats))


def _class_mean_directions(stats: ClassStatistics) -> tuple[Tensor, Tensor]:
    means = stats.centered_class_means / max(1, len(stats.class_means)) ** 0.5
    if len(means) < 2 or not stats.between_trace > 0:
        nothing = means.new_zeros(min(means.shape), means.shape[1])
        return nothing.sum(1), nothing
    # An SVD of the means; their Gram matrix would lose singular values below 1e-8 of the largest.
    _, singular, directions = torch.linalg.svd(means, full_matrices=False)
    rounding = max(means.shape) * torch.finfo(means.dtype).eps * singular[0]
    return torch.where(singular > rounding, singular, 0.0).square(), directions


def class_mean_spectrum(stats: ClassStatistics) -> Tensor:
    """Return `class_mean_eigenvalues` (min(C, d),) over the largest, in descending order. Ideal C - 1 ones and a zero.

    Source:
        Jiang et al. (2023), arXiv 2311.05139, figures of the spectrum (on a logarithmic axis).
    """
    eigenvalues = class_mean_eigenvalues(stats)
    return eigenvalues / eigenvalues[0] if eigenvalues[0] > 0 else eigenvalues


def class_mean_effective_rank(stats: ClassStatistics) -> Tensor:
    """Compute `effective_rank` of the centered class means. Range [0, min(C - 1, d)], ideal C - 1."""
    return effective_rank_of(class_mean_eigenvalues(stats).sqrt())


def class_mean_participation_ratio(stats: ClassStatistics) -> Tensor:
    """Compute `participation_ratio` of the centered class means. Range [0, min(C - 1, d)], ideal C - 1."""
    return participation_of(class_mean_eigenvalues(stats).sqrt())


def class_mean_nesum(stats: ClassStatistics) -> Tensor:
    """Compute `nesum` of the centered class means. Range [0, min(C - 1, d)], ideal C - 1."""
    return nesum_of(class_mean_eigenvalues(stats).sqrt())


def feature_eigenvalues(stats: ClassStatistics, centered: bool = True) -> Tensor:
    """Return the eigenvalues (min(N, d),) of the covariance of all features, in descending order.

    The covariance is about the sample mean or, if not ``centered``, the origin. Eigenvalues at rounding level are set
    to 0.
    """
    return stats.remember(f"feature eigenvalues, {centered}", lambda: _feature_eigenvalues(stats, centered))


def _feature_eigenvalues(stats: ClassStatistics, centered: bool) -> Tensor:
    center = stats.counts @ stats.means / stats.counts.sum() if centered else torch.zeros_like(stats.means[0])
    offset = stats.class_means - center
    between = offset.T * stats.counts[stats.present] @ offset
    eigenvalues = torch.linalg.eigvalsh((stats.scatter + between) / stats.counts.sum()).flip(0).clamp(min=0)
    eigenvalues = eigenvalues[: min(int(stats.num_samples), stats.feature_dim)]
    if not eigenvalues.sum() > stats.zero_level:
        return torch.zeros_like(eigenvalues)
    rounding = stats.feature_dim * torch.finfo(eigenvalues.dtype).eps * eigenvalues[0]
    return torch.where(eigenvalues > rounding, eigenvalues, 0.0)


def feature_effective_rank(stats: ClassStatistics) -> Tensor:
    """Compute `effective_rank` of all features about their sample mean. Range [0, min(N - 1, d)], ideal C - 1."""
    return effective_rank_of(feature_eigenvalues(stats).sqrt())


def feature_participation_ratio(stats: ClassStatistics) -> Tensor:
    """Compute `participation_ratio` of all features about their mean. Range [0, min(N - 1, d)], ideal C - 1."""
    return participation_of(feature_eigenvalues(stats).sqrt())


def feature_nesum(stats: ClassStatistics) -> Tensor:
    """Compute `nesum` of all features about their sample mean. Range [0, min(N - 1, d)], ideal C - 1."""
    return nesum_of(feature_eigenvalues(stats).sqrt())


def feature_stable_rank(stats: ClassStatistics) -> Tensor:
    """Compute the stable rank: `nesum` of all features, not centered. Range [1, min(N, d)], ideal C - 1."""
    return nesum_of(feature_eigenvalues(stats, centered=False).sqrt())


def feature_rank(stats: ClassStatistics) -> Tensor:
    """Count the eigenvalues of the covariance of all features above 1e-5 of the largest. Range [0, min(N - 1, d)].

    It is C - 1 at exact neural collapse. In d > C - 1 dimensions within-class noise far below the tolerance of `nc1`
    already raises it to d, so `ideal` returns none there.
    """
    eigenvalues = feature_eigenvalues(stats)
    return (eigenvalues > EIGENVALUE_CUTOFF * eigenvalues[0]).sum().double()


def feature_rankme(stats: ClassStatistics) -> Tensor:
    """Compute `rankme` of all features, not centered. Range [1, about min(N, d)], ideal C - 1."""
    return rankme_of(feature_eigenvalues(stats, centered=False).sqrt())


def feature_alpha_req(stats: ClassStatistics) -> Tensor:
    """Compute `alpha_req` of the covariance of all features. Ideal 0; NaN if fewer than 3 directions are used."""
    return alpha_req(feature_eigenvalues(stats))
