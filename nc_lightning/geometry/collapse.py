"""Neural-collapse measures of class statistics: NC1, NC2 and the three conditions of the paper.

Every function takes a `ClassStatistics` and returns a 0-dimensional float64 tensor. C is the number of classes that
are present. Sigma_W weights all samples equally; Sigma_B weights all classes equally and is centered at the mean of the
class means. A measure is NaN where it is undefined: with fewer than two classes present, or if all class means
coincide. A ratio of a positive number to zero is infinite.
"""

import torch
from torch import Tensor

from nc_lightning.geometry.class_pairs import centered_pairs, off_simplex
from nc_lightning.geometry.ranks import EIGENVALUE_CUTOFF
from nc_lightning.geometry.spectra import class_mean_directions
from nc_lightning.geometry.statistics import ClassStatistics


def _constant(stats: ClassStatistics, value: float) -> Tensor:
    return stats.means.new_full((), value)


def separated(stats: ClassStatistics) -> bool:
    """Check whether at least two classes are present and their means do not all coincide."""
    return int(stats.present.sum()) > 1 and bool(stats.between_trace > 0)


# --------------------------------------------------------------------------------------------- NC1


def nc1(stats: ClassStatistics) -> Tensor:
    """Compute NC1 as within-class over between-class variance, tr Sigma_W / tr Sigma_B.

    Range [0, inf], ideal 0. Unlike `nc1_pinv`, it needs no cut-off and changes smoothly with noise.

    Source:
        Tirer, Huang, Niles-Weed (2023), Perturbation analysis of neural collapse.

    Example:
        >>> z = torch.tensor([[1.1, 0.0], [0.9, 0.0], [-1.1, 0.0], [-0.9, 0.0]])
        >>> stats = ClassStatistics(2, 2).update(z, torch.tensor([0, 0, 1, 1]))
        >>> round(nc1(stats).item(), 4)
        0.01
    """
    return stats.within_trace / stats.between_trace


def nc1_sample(stats: ClassStatistics) -> Tensor:
    """Compute NC1 with samples weighted equally in both traces, so that large classes dominate.

    Range [0, inf], ideal 0. It equals `nc1` for balanced classes. Sigma_W and this Sigma_B, the covariance of the class
    means about the sample mean, sum to the covariance of all features.

    Example:
        >>> z = torch.tensor([[1.1, 0.0], [0.9, 0.0], [-1.0, 0.0]])
        >>> stats = ClassStatistics(2, 2).update(z, torch.tensor([0, 0, 1]))
        >>> round(nc1_sample(stats).item(), 4)
        0.0075
    """
    share = stats.counts / stats.counts.sum()
    offset = stats.means - share @ stats.means
    between = share @ offset.square().sum(1)
    return stats.within_trace / torch.where(between <= stats.zero_level, 0.0, between)


def _between_directions(stats: ClassStatistics) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues (r,) of Sigma_B above the cut-off, and their directions (r, d)."""
    eigenvalues, directions = class_mean_directions(stats)
    keep = eigenvalues > EIGENVALUE_CUTOFF * eigenvalues[0]
    return eigenvalues[keep], directions[keep]


def _within_along(stats: ClassStatistics, directions: Tensor) -> Tensor:
    """Return the within-class variance (r,) along each direction."""
    return (directions @ stats.within_covariance * directions).sum(1)


def nc1_pinv(stats: ClassStatistics) -> Tensor:
    """Compute NC1 as originally defined, tr(Sigma_W Sigma_B^+) / C.

    Range [0, inf], ideal 0. The pseudo-inverse drops eigenvalues of Sigma_B below `EIGENVALUE_CUTOFF` of the largest,
    which determines the value under dimensional collapse, and ignores noise outside the span of the class means: read
    it together with `nc1_rank` and `nc1_outside_span`.

    Source:
        Papyan, Han, Donoho (2020), Prevalence of neural collapse, NC1.

    Example:
        >>> z = torch.tensor([[1.1, 0.0], [0.9, 0.0], [-1.1, 0.0], [-0.9, 0.0]])
        >>> stats = ClassStatistics(2, 2).update(z, torch.tensor([0, 0, 1, 1]))
        >>> round(nc1_pinv(stats).item(), 4)
        0.005
    """
    if not separated(stats):
        return nc1(stats)
    eigenvalues, directions = _between_directions(stats)
    return (_within_along(stats, directions) / eigenvalues).sum() / stats.present.sum()


def nc1_rank(stats: ClassStatistics) -> Tensor:
    """Count the eigenvalues of Sigma_B that `nc1_pinv` inverts. Range [0, min(C - 1, d)], ideal C - 1."""
    return _constant(stats, len(_between_directions(stats)[0]) if separated(stats) else 0)


def nc1_outside_span(stats: ClassStatistics) -> Tensor:
    """Compute the share of the within-class variance outside the span of the class means, which `nc1_pinv` ignores.

    Range [0, 1]; NaN at exact collapse, where the within-class variance is 0.
    """
    within = stats.within_trace
    if not separated(stats):
        return within / within
    inside = _within_along(stats, _between_directions(stats)[1]).sum()
    return torch.where(within > 0, (1 - inside / within).clamp(min=0), torch.nan)


def cdnv(stats: ClassStatistics) -> Tensor:
    """Compute class-distance normalized variance: (var_a + var_b) / (2 ||mu_a - mu_b||^2), averaged over class pairs.

    Range [0, inf], ideal 0. var_c is the mean squared distance of class c to its mean.

    Source:
        Galanti, Gyorgy, Hutter (2021), On the role of neural collapse in transfer learning, arXiv 2112.15121.

    Example:
        >>> z = torch.tensor([[1.1, 0.0], [0.9, 0.0], [-1.1, 0.0], [-0.9, 0.0]])
        >>> stats = ClassStatistics(2, 2).update(z, torch.tensor([0, 0, 1, 1]))
        >>> round(cdnv(stats).item(), 4)
        0.0025
    """
    return centered_pairs(stats).normalized_variance


# --------------------------------------------------------------------------------------------- NC2


def nc2_equinorm(stats: ClassStatistics) -> Tensor:
    """Compute the coefficient of variation of the centered class means' norms. Range [0, sqrt(C/2 - 1)], ideal 0.

    The largest value is that of two opposite means with all others at their center: no norm can exceed the sum of the
    others.

    Source:
        Papyan, Han, Donoho (2020), NC2, with the population standard deviation.
    """
    if not separated(stats):
        return _constant(stats, torch.nan)
    norms: Tensor = torch.linalg.vector_norm(stats.centered_class_means, dim=1)
    return norms.std(correction=0) / norms.mean()


def nc2_equiangular(stats: ClassStatistics) -> Tensor:
    """Compute the standard deviation of the cosines between centered class means. Range [0, 1], ideal 0.

    Source:
        Papyan, Han, Donoho (2020), NC2.
    """
    return centered_pairs(stats).spread if separated(stats) else _constant(stats, torch.nan)


def nc2_maxangle(stats: ClassStatistics) -> Tensor:
    """Compute the mean ``|cos + 1/(C - 1)|`` over pairs of centered class means. Range [0, 1 + 1/(C - 1)], ideal 0.

    Source:
        Papyan, Han, Donoho (2020), NC2: a simplex ETF has the largest angle that C vectors can have pairwise.
    """
    return centered_pairs(stats).off_simplex if separated(stats) else _constant(stats, torch.nan)


def nc2_etf(stats: ClassStatistics) -> Tensor:
    """Compute the Frobenius distance from the Gram matrix of the centered class means to a simplex ETF's, at unit norm.

    Range [0, sqrt(2 - 2/sqrt(C - 1))], ideal 0. It equals sqrt(2 - 2 sqrt(PR/(C - 1))) for the participation ratio PR.

    Source:
        Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features (there for W).

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4))
        >>> round(nc2_etf(stats).item(), 6)
        0.0
    """
    return centered_pairs(stats).to_etf if separated(stats) else _constant(stats, torch.nan)


def distance_to_optimum(stats: ClassStatistics, gram: Tensor) -> Tensor:
    """Compute the Frobenius distance from the Gram matrix of the class means to an optimal one, both at unit norm.

    Range [0, sqrt(2)], ideal 0; NaN if all means are zero. The means are not centered, unlike those of `nc2_etf`: the
    loss determines their inner products, and for unbalanced classes their sum is not zero.

    Args:
        stats: Statistics with P present classes.
        gram: Optimal Gram matrix (P, P), as in `SCLOptimum`.

    Returns:
        The distance, a scalar in float64.

    Raises:
        ValueError: If ``gram`` does not fit the present classes.

    Source:
        `nc2_etf`, with the optimum of `scl_optimum` instead of the simplex ETF.

    Example:
        >>> from nc_lightning.geometry import scl_optimum, simplex_etf
        >>> stats = ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4))
        >>> round(distance_to_optimum(stats, scl_optimum(counts=[9, 9, 9, 9]).gram).item(), 6)
        0.0
    """
    means = stats.class_means
    if gram.shape != (len(means), len(means)):
        raise ValueError(
            f"gram: got shape {tuple(gram.shape)}, expected ({len(means)}, {len(means)}) for the classes with samples"
        )
    products, gram = means @ means.T, gram.to(means)
    distance: Tensor = torch.linalg.matrix_norm(
        products / torch.linalg.matrix_norm(products) - gram / torch.linalg.matrix_norm(gram)
    )
    return distance


# ------------------------------------------------------------- the paper's three conditions (uncentered class means)


def zero_sum(stats: ClassStatistics) -> Tensor:
    """Compute the norm of the mean of class means. Range [0, 1] in the unit ball, ideal 0 (arXiv 2311.05139)."""
    norm: Tensor = torch.linalg.vector_norm(stats.class_means.mean(0))
    return norm


def unit_norm(stats: ClassStatistics) -> Tensor:
    """Compute the mean of abs(||mu_c|| - 1). Range [0, 1] in the unit ball, ideal 0 (arXiv 2311.05139)."""
    norms: Tensor = torch.linalg.vector_norm(stats.class_means, dim=1)
    return (norms - 1).abs().mean()


def equal_inner_product(stats: ClassStatistics) -> Tensor:
    """Compute the mean of ``|cos(mu_a, mu_b) + 1/(C - 1)|`` over pairs of class means, not centered.

    Range [0, 1 + 1/(C - 1)], ideal 0; NaN if a mean is zero. It uses cosines, as the paper's code (arXiv 2311.05139).
    """
    means = stats.class_means
    norms = torch.linalg.vector_norm(means, dim=1, keepdim=True)
    if len(means) < 2 or not (norms > 0).all():
        return _constant(stats, torch.nan)
    return off_simplex(means / norms)
