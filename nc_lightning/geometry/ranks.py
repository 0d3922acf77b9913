"""Dimension measures of a matrix: the number of directions its rows use, from its singular values.

A measure takes a floating-point ``matrix`` (N, d) whose rows are samples, does not center it, computes in float64 and
returns a 0-dimensional tensor; other shapes raise a ValueError. `spectra` has these measures for class statistics.
"""

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, check_count, check_features
from nc_lightning.geometry.placement import in_float64

EIGENVALUE_CUTOFF = 1e-5
"""Fraction of the largest eigenvalue below which eigenvalues count as zero when directions are counted or inverted. It
does not depend on the dtype, so that neither does NC1 by the pseudo-inverse."""


def effective_rank_of(singular_values: Tensor, added: float = 0.0) -> Tensor:
    """Compute `effective_rank` from singular values, adding a number to each normalized one."""
    total = singular_values.sum()
    if not total > 0:
        return torch.zeros_like(total)
    p = singular_values / total + added
    rank: Tensor = torch.special.entr(p).sum().exp()
    return rank


def participation_of(singular_values: Tensor) -> Tensor:
    """Compute `participation_ratio` from singular values."""
    eigenvalues = singular_values.square()
    if not eigenvalues.sum() > 0:
        return torch.zeros_like(eigenvalues.sum())
    return eigenvalues.sum().square() / eigenvalues.square().sum()


def nesum_of(singular_values: Tensor) -> Tensor:
    """Compute `nesum` from singular values in descending order."""
    eigenvalues = singular_values.square()
    return eigenvalues.sum() / eigenvalues[0] if eigenvalues[0] > 0 else torch.zeros_like(eigenvalues[0])


def rankme_of(singular_values: Tensor) -> Tensor:
    """Compute `rankme` from singular values."""
    return effective_rank_of(singular_values, added=1e-7)


def _singular_values(matrix: Array) -> Tensor:
    matrix = as_features(matrix, "matrix")
    check_features(matrix, "matrix")
    values: Tensor = torch.linalg.svdvals(in_float64(matrix))
    return values


def effective_rank(matrix: Array) -> Tensor:
    """Compute the exponential of the entropy of the normalized singular values.

    Range [1, rank], and 0 for a zero matrix; C - 1 for class means at neural collapse. It is based on singular values;
    the eigenvalues of the covariance would give a value that is never larger.

    Source:
        Roy, Vetterli (2007), The effective rank: a measure of effective dimensionality.

    Example:
        >>> round(effective_rank(torch.eye(3)).item(), 6)
        3.0
        >>> effective_rank(torch.zeros(3, 3)).item()
        0.0
    """
    return effective_rank_of(_singular_values(matrix))


def participation_ratio(matrix: Array) -> Tensor:
    """Compute the squared sum over the sum of squares of the eigenvalues of ``matrix^T matrix``.

    Range [1, rank], and 0 for a zero matrix; C - 1 for class means at neural collapse.

    Source:
        Gao et al. (2017), A theory of multineuronal dimensionality.

    Example:
        >>> round(participation_ratio(torch.diag(torch.tensor([3.0, 1.0]))).item(), 4)
        1.2195
    """
    return participation_of(_singular_values(matrix))


def rankme(matrix: Array) -> Tensor:
    """Compute RankMe: the effective rank with 1e-7 added to every normalized singular value.

    Range [1, about min(N, d)].

    Source:
        Garrido et al. (2023), RankMe: assessing the downstream performance by the rank of representations, eq. 1.

    Example:
        >>> round(rankme(torch.eye(3)).item(), 4)
        3.0
    """
    return rankme_of(_singular_values(matrix))


def nesum(matrix: Array) -> Tensor:
    """Compute the sum of the eigenvalues of ``matrix^T matrix`` over the largest one.

    It is the stable rank, and NESum for a centered matrix. Range [1, rank], and 0 for a zero matrix; C - 1 for class
    means at neural collapse. Never above `participation_ratio`, which is never above `effective_rank`.

    Source:
        He, Ozay (2022), Exploring the gap between collapsed and whitened features; Rudelson, Vershynin (2007).

    Example:
        >>> nesum(torch.diag(torch.tensor([2.0, 1.0]))).item()
        1.25
    """
    return nesum_of(_singular_values(matrix))


def numerical_rank(matrix: Array) -> Tensor:
    """Count the singular values above max(N, d) eps of the largest, eps being that of the dtype. Range [0, min(N, d)].

    Source:
        The default tolerance of ``numpy.linalg.matrix_rank``.

    Example:
        >>> numerical_rank(torch.ones(4, 3)).item()
        1.0
    """
    matrix = as_features(matrix, "matrix")
    singular = _singular_values(matrix)
    rounding = max(matrix.shape) * torch.finfo(matrix.dtype).eps * singular[0]
    return (singular > rounding).sum().double()


def alpha_req(eigenvalues: Array, first: int = 1, last: int | None = None, weighted: bool = True) -> Tensor:
    """Fit the exponent alpha of a power law k^-alpha to the eigenvalues of a covariance; 0 for a flat spectrum.

    A line is fitted to (log k, log lambda_k) for k from ``first`` to ``last``, without eigenvalues below 1e-5 of the
    largest. At neural collapse the spectrum is flat on its C - 1 directions, so that alpha = 0.

    Args:
        eigenvalues: Eigenvalues (d,) in descending order.
        first: First index of the window, at least 1.
        last: Last index of the window; None for all.
        weighted: Whether to weight index k by 1/k, which weights the logarithmic axis evenly.

    Returns:
        0-dimensional float64 tensor; NaN if fewer than 3 eigenvalues are left.

    Raises:
        ValueError: If the window is empty.

    Source:
        Agrawal et al. (2022), alpha-ReQ, with the weights of Stringer et al. (2019).

    Example:
        >>> round(alpha_req(torch.arange(1, 20).double() ** -1.5).item(), 6)
        1.5
    """
    check_count("first", first)
    if last is not None:
        check_count("last", last, at_least=first)
    eigenvalues = in_float64(as_features(eigenvalues, "eigenvalues"))
    k = torch.arange(1, len(eigenvalues) + 1, dtype=torch.float64, device=eigenvalues.device)
    used = (k >= first) & (k <= (last or len(k))) & (eigenvalues > EIGENVALUE_CUTOFF * eigenvalues[0])
    if used.sum() < 3:
        return eigenvalues.new_full((), torch.nan)
    x, y = k[used].log(), eigenvalues[used].log()
    weights = 1 / k[used] if weighted else torch.ones_like(x)
    x, y = x - (weights @ x) / weights.sum(), y - (weights @ y) / weights.sum()
    return -(weights * x) @ y / ((weights * x) @ x)
