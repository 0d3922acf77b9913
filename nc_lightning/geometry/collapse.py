"""Neural-collapse measures of class statistics: NC1, NC2 and the three conditions of the paper.

Every function takes a `ClassStatistics` and returns a 0-dimensional float64 tensor. C counts the classes that are
present, Sigma_W weighs samples alike, Sigma_B weighs classes alike and is centered by the mean of class means. A
measure that is undefined, because fewer than two classes are present or all class means coincide, is NaN; a ratio of
something to nothing is infinite.
"""

import torch
from torch import Tensor

from nc_lightning.geometry.ranks import EIGENVALUE_CUTOFF
from nc_lightning.geometry.spectra import class_mean_directions
from nc_lightning.geometry.statistics import ClassStatistics


def _constant(stats: ClassStatistics, value: float) -> Tensor:
    return stats.means.new_full((), value)


def separated(stats: ClassStatistics) -> bool:
    """Whether at least two classes are present and their means do not all coincide."""
    return int(stats.present.sum()) > 1 and bool(stats.between_trace > 0)


def _off_diagonal(gram: Tensor) -> Tensor:
    return gram[~torch.eye(len(gram), dtype=torch.bool, device=gram.device)]


# --------------------------------------------------------------------------------------------- NC1


def nc1(stats: ClassStatistics) -> Tensor:
    """Within-class over between-class variance, tr Sigma_W / tr Sigma_B: the headline NC1.

    Range [0, inf], ideal 0; smooth in the noise and free of any cut-off, unlike `nc1_pinv`.

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
    """NC1 with every sample counting alike in both traces: tr Sigma_W over the variance of class means about the mean.

    Range [0, inf], ideal 0. It is `nc1` for balanced classes; else large classes decide. Sigma_W and this Sigma_B add
    up to the covariance of all features.

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
    """Eigenvalues (r,) of Sigma_B above the cut-off, and their directions (r, d)."""
    eigenvalues, directions = class_mean_directions(stats)
    keep = eigenvalues > EIGENVALUE_CUTOFF * eigenvalues[0]
    return eigenvalues[keep], directions[keep]


def _within_along(stats: ClassStatistics, directions: Tensor) -> Tensor:
    """(r,) within-class variance along each direction."""
    return (directions @ stats.within_covariance * directions).sum(1)


def nc1_pinv(stats: ClassStatistics) -> Tensor:
    """NC1 as in its first paper, tr(Sigma_W Sigma_B^+) / C.

    Range [0, inf], ideal 0. The pseudo-inverse drops eigenvalues of Sigma_B below `EIGENVALUE_CUTOFF` of the largest,
    which decides the value when class means lie in fewer dimensions than they could, and it is blind to noise outside
    the span of the class means: read it beside `nc1_rank` and `nc1_outside_span`.

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
    """Number of eigenvalues of Sigma_B that `nc1_pinv` inverts. Range [0, min(C - 1, d)], ideal C - 1."""
    return _constant(stats, len(_between_directions(stats)[0]) if separated(stats) else 0)


def nc1_outside_span(stats: ClassStatistics) -> Tensor:
    """Share of the within-class variance that `nc1_pinv` does not see, as it lies outside the span of class means.

    Range [0, 1]; NaN at exact collapse, where there is no variance to share.
    """
    within = stats.within_trace
    if not separated(stats):
        return within / within
    inside = _within_along(stats, _between_directions(stats)[1]).sum()
    return torch.where(within > 0, (1 - inside / within).clamp(min=0), torch.nan)


def cdnv(stats: ClassStatistics) -> Tensor:
    """Class-distance normalized variance, the mean over pairs of classes of (var_a + var_b) / (2 ||mu_a - mu_b||^2).

    Range [0, inf], ideal 0. var_c is the mean squared distance of class c to its mean.

    Source:
        Galanti, Gyorgy, Hutter (2021), On the role of neural collapse in transfer learning, arXiv 2112.15121.

    Example:
        >>> z = torch.tensor([[1.1, 0.0], [0.9, 0.0], [-1.1, 0.0], [-0.9, 0.0]])
        >>> stats = ClassStatistics(2, 2).update(z, torch.tensor([0, 0, 1, 1]))
        >>> round(cdnv(stats).item(), 4)
        0.0025
    """
    variances = (stats.traces / stats.counts)[stats.present]
    variances = torch.where(variances <= stats.zero_level, 0.0, variances)
    pairs = torch.combinations(torch.arange(len(variances), device=variances.device))
    squared_distances = torch.nn.functional.pdist(stats.class_means).square()
    squared_distances = torch.where(squared_distances <= stats.zero_level, 0.0, squared_distances)
    return (variances[pairs].mean(1) / squared_distances).mean()


# --------------------------------------------------------------------------------------------- NC2


def nc2_equinorm(stats: ClassStatistics) -> Tensor:
    """Coefficient of variation of the norms of the centered class means. Range [0, sqrt(C - 1)], ideal 0.

    Source:
        Papyan, Han, Donoho (2020), NC2, with the population standard deviation.
    """
    if not separated(stats):
        return _constant(stats, torch.nan)
    norms: Tensor = torch.linalg.vector_norm(stats.centered_class_means, dim=1)
    return norms.std(correction=0) / norms.mean()


def centered_cosines(stats: ClassStatistics) -> Tensor:
    """(C (C - 1),) cosines between different centered class means."""
    means = stats.centered_class_means
    directions = means / torch.linalg.vector_norm(means, dim=1, keepdim=True)
    return _off_diagonal(directions @ directions.T)


def nc2_equiangular(stats: ClassStatistics) -> Tensor:
    """Standard deviation of the cosines between centered class means. Range [0, 1], ideal 0.

    Source:
        Papyan, Han, Donoho (2020), NC2.
    """
    return centered_cosines(stats).std(correction=0) if separated(stats) else _constant(stats, torch.nan)


def nc2_maxangle(stats: ClassStatistics) -> Tensor:
    """Mean of ``|cos + 1/(C - 1)|`` over pairs of centered class means. Range [0, 1 + 1/(C - 1)], ideal 0.

    Source:
        Papyan, Han, Donoho (2020), NC2: the angle of a simplex ETF is the largest that C vectors can share.
    """
    if not separated(stats):
        return _constant(stats, torch.nan)
    return (centered_cosines(stats) + 1 / (int(stats.present.sum()) - 1)).abs().mean()


def nc2_etf(stats: ClassStatistics) -> Tensor:
    """Frobenius distance between the unit-norm Gram matrix of the centered class means and that of a simplex ETF.

    Range [0, sqrt(2 - 2/sqrt(C - 1))], ideal 0. It equals sqrt(2 - 2 sqrt(PR/(C - 1))) for the participation ratio PR.

    Source:
        Zhu et al. (2021), A geometric analysis of neural collapse with unconstrained features (there for W).

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4))
        >>> round(nc2_etf(stats).item(), 6)
        0.0
    """
    if not separated(stats):
        return _constant(stats, torch.nan)
    means = stats.centered_class_means
    return distance_to_etf(means @ means.T)


def distance_to_etf(products: Tensor) -> Tensor:
    """Frobenius distance between products (C, C), at unit norm, and the Gram matrix of a simplex ETF, at unit norm.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> round(distance_to_etf(5 * simplex_etf(4, 3) @ simplex_etf(4, 3).T).item(), 6)
        0.0
    """
    classes = len(products)
    etf = torch.eye(classes, dtype=products.dtype, device=products.device) - 1 / classes
    distance: Tensor = torch.linalg.matrix_norm(
        products / torch.linalg.matrix_norm(products) - etf / (classes - 1) ** 0.5
    )
    return distance


# ------------------------------------------------------------- the paper's three conditions (uncentered class means)


def zero_sum(stats: ClassStatistics) -> Tensor:
    """Norm of the mean of class means. Range [0, 1] on the unit ball, ideal 0 (arXiv 2311.05139, NC condition)."""
    norm: Tensor = torch.linalg.vector_norm(stats.class_means.mean(0))
    return norm


def unit_norm(stats: ClassStatistics) -> Tensor:
    """Mean of abs(||mu_c|| - 1). Range [0, 1] on the unit ball, ideal 0 (arXiv 2311.05139, NC condition)."""
    norms: Tensor = torch.linalg.vector_norm(stats.class_means, dim=1)
    return (norms - 1).abs().mean()


def equal_inner_product(stats: ClassStatistics) -> Tensor:
    """Mean of ``|cos(mu_a, mu_b) + 1/(C - 1)|`` over pairs of class means, not centered.

    Range [0, 1 + 1/(C - 1)], ideal 0. Cosines, as in the paper's code (arXiv 2311.05139); NaN if a mean is zero.
    """
    means = stats.class_means
    norms = torch.linalg.vector_norm(means, dim=1, keepdim=True)
    if len(means) < 2 or not (norms > 0).all():
        return _constant(stats, torch.nan)
    directions = means / norms
    return (_off_diagonal(directions @ directions.T) + 1 / (len(means) - 1)).abs().mean()
