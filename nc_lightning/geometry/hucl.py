"""Lower bound of HUCL, the hardness up to which neural collapse attains it, and the geometry that attains it beyond.

Every anchor has a loss of at least g(D), see `nc_lightning.geometry.hucl_curve`; its minimum D* is where all other
classes want to be, and features in the unit ball allow D = C / (C - 1) on average over balanced classes. The page "HUCL
and its critical hardness" of the documentation has the proof.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nc_lightning.checks import check_choice, check_count, check_number
from nc_lightning.geometry.hucl_curve import Array, Curve, critical_beta, tangent
from nc_lightning.geometry.normalization import Normalization

_LARGEST = 1e12
"""Largest hardness and temperature, and the inverse of the smallest, for which the bound is computed."""


class HUCLOptimum(NamedTuple):
    """Minimum of HUCL on the unit ball and sphere for balanced classes, and the geometry that attains it.

    Attributes:
        loss: Minimal loss, in nats.
        distance: Similarity within a class minus that of two classes, G_cc - G_cj; C / (C - 1) at neural collapse.
        norm: Norm of the centered class means, which form a simplex; 1 at neural collapse.
        zero_sum: Norm of the mean of the class means: on the unit sphere (for d >= C) the only one, in the unit ball
            the largest one; 0 at neural collapse.
        critical_beta: Hardness up to which neural collapse is the minimum.
    """

    loss: float
    distance: float
    norm: float
    zero_sum: float
    critical_beta: float


def hucl_lower_bound(
    num_classes: int,
    beta: float,
    temperature: float = 1.0,
    num_negatives: int | None = None,
    counts: Sequence[float] | None = None,
    normalization: Normalization = "unit_ball",
    include_self: bool = False,
    alpha: float = 1.0,
) -> float:
    """Return the lower bound of HUCL with InfoNCE and exponential hardening, for features of any dimension.

    For balanced classes it is tight: g(min(D*, C / (C - 1))) in the unit ball, g(D*) without normalization. For
    unbalanced ones it is the mean of g over classes, which is tight as well without normalization and where every D*
    fits into the unit ball (on the sphere, only if they are equal). Elsewhere it is below the minimum: the effect of
    the unit ball is linearized at neural collapse.

    Args:
        num_classes: Number of classes C >= 2.
        beta: Hardness >= 0; for 0, the bound is that of UCL.
        temperature: tau > 0.
        num_negatives: Number k of negatives drawn independently for each pair; None for the exact loss.
        counts: Samples of each class in a batch; classes without a sample are left out. None for the population, where
            a negative is of the anchor's class with probability 1/C.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``.
        include_self: Whether an anchor is its own positive and negative, in a batch.
        alpha: Weight >= 0 of the positive in the denominator of InfoNCE.

    Returns:
        The bound, in nats. For ``none`` and beta = 0 it is approached as norms grow, and not attained.

    Raises:
        ValueError: If an argument is out of its range, no class of ``counts`` has a pair, or the inequality that the
            bound rests on fails on a grid (which no hardness and temperature is known to do).

    Source:
        The documentation of this package; to our knowledge, not published elsewhere.

    Example:
        >>> round(hucl_lower_bound(num_classes=10, beta=1.0), 6), round(hucl_lower_bound(num_classes=10, beta=5.0), 6)
        (0.404446, 0.598069)
        >>> round(hucl_lower_bound(num_classes=3, beta=1.0, counts=[4, 3, 2]), 6)
        0.534326
    """
    curve = _curve(num_classes, beta, temperature, num_negatives, alpha, num_classes - 1.0)
    check_choice("normalization", normalization, Normalization)
    limited = normalization != "none"
    if counts is None:
        return tangent(curve, num_classes / (num_classes - 1) if limited else math.inf)[1]
    found = _checked_counts(counts, num_classes)
    sizes, number, own = _class_sizes(found, include_self)
    total, present = float(found.sum()), len(found)
    if present == 1:
        return math.log1p(alpha)  # all negatives are of the own class
    largest = present / (present - 1) if limited else math.inf
    tangents = [
        tangent(curve._replace(kappa=(total - size) / same), largest) if same > 0 else (0.0, 0.0, 0.0)
        for size, same in zip(sizes.tolist(), own.tolist(), strict=True)
    ]
    distance, value, slope = np.array(tangents).T
    weights = sizes * own / (number @ (sizes * own))  # a class of one sample has no pair
    pull = -weights * slope
    if not pull.any():
        return float(number @ (weights * value))
    return float(number @ (weights * value + pull * distance)) - _most_similarity(pull, sizes, number, total)


def hucl_neural_collapse_value(
    num_classes: int,
    beta: float,
    temperature: float = 1.0,
    num_negatives: int | None = None,
    counts: Sequence[float] | None = None,
    include_self: bool = False,
    alpha: float = 1.0,
) -> float:
    """Return the loss of HUCL at the neural collapse of C classes, for the population or the counts of a batch.

    Args:
        num_classes: Number of classes C >= 2.
        beta: Hardness >= 0.
        temperature: tau > 0.
        num_negatives: Number k of negatives drawn for each pair; None for the exact loss.
        counts: Samples of each class in a batch, also of fewer classes; None for the population.
        include_self: Whether an anchor is its own positive and negative, in a batch.
        alpha: Weight >= 0 of the positive in the denominator of InfoNCE.

    Raises:
        ValueError: If an argument is out of its range, or no class of ``counts`` has a pair.

    Example:
        >>> round(hucl_neural_collapse_value(num_classes=100, beta=5.0), 4)
        0.5615
    """
    curve = _curve(num_classes, beta, temperature, num_negatives, alpha, num_classes - 1.0)
    at = np.array([num_classes / (num_classes - 1)])
    if counts is None:
        return float(curve.value_and_slope(at)[0][0])
    found = _checked_counts(counts, len(counts))
    sizes, number, own = _class_sizes(found, include_self)
    if len(found) == 1:
        return math.log1p(alpha)
    paired = own > 0
    pairs, kappa = (number * sizes * own)[paired], (found.sum() - sizes[paired]) / own[paired]
    values = [curve._replace(kappa=each).value_and_slope(at)[0][0] for each in kappa.tolist()]
    return float(pairs @ np.array(values) / pairs.sum())


def hucl_critical_beta(
    num_classes: int,
    temperature: float = 1.0,
    num_negatives: int | None = None,
    counts: Sequence[float] | None = None,
    include_self: bool = False,
    alpha: float = 1.0,
) -> float:
    r"""Return the hardness up to which neural collapse minimizes HUCL on the unit ball and sphere.

    For the exact loss it solves :math:`\beta q(a) (e^{a / \tau} - 1) = 1 / \tau` with a = C / (C - 1). Beyond it, a
    smaller or shifted simplex has a lower loss, see `hucl_optimum`.

    Args:
        num_classes: Number of classes C >= 2.
        temperature: tau > 0.
        num_negatives: Number k of negatives drawn for each pair; None for the exact loss.
        counts: Samples of each class in a batch, all equal; None for the population.
        include_self: Whether an anchor is its own positive and negative, in a batch.
        alpha: Weight >= 0 of the positive in the denominator of InfoNCE.

    Returns:
        The critical hardness; 0 if it is below the smallest number, at a very low temperature.

    Raises:
        ValueError: If an argument is out of its range, or the counts differ.

    Example:
        >>> [round(hucl_critical_beta(num_classes), 3) for num_classes in (3, 10, 100)]
        [0.542, 1.411, 3.085]
        >>> round(hucl_critical_beta(100, counts=[5] * 100), 3)
        3.245
    """
    kappa = _balanced_kappa(num_classes, counts, include_self)
    curve = _curve(num_classes, 0.0, temperature, num_negatives, alpha, kappa)
    return critical_beta(curve, num_classes / (num_classes - 1))


def hucl_optimum(
    num_classes: int,
    beta: float,
    temperature: float = 1.0,
    num_negatives: int | None = None,
    counts: Sequence[float] | None = None,
    include_self: bool = False,
    alpha: float = 1.0,
) -> HUCLOptimum:
    """Return the minimum of HUCL on the unit ball and sphere for balanced classes, and the geometry that attains it.

    Args:
        num_classes: Number of classes C >= 2.
        beta: Hardness >= 0.
        temperature: tau > 0.
        num_negatives: Number k of negatives drawn for each pair; None for the exact loss.
        counts: Samples of each class in a batch, all equal; None for the population.
        include_self: Whether an anchor is its own positive and negative, in a batch.
        alpha: Weight >= 0 of the positive in the denominator of InfoNCE.

    Raises:
        ValueError: If an argument is out of its range, or the counts differ.

    Example:
        >>> optimum = hucl_optimum(num_classes=100, beta=10.0)
        >>> round(optimum.loss, 4), round(optimum.norm, 4), round(optimum.zero_sum, 4)
        (0.5759, 0.5848, 0.8111)
    """
    kappa = _balanced_kappa(num_classes, counts, include_self)
    curve = _curve(num_classes, beta, temperature, num_negatives, alpha, kappa)
    largest = num_classes / (num_classes - 1)
    distance, loss, _ = tangent(curve, largest)
    share = distance / largest
    return HUCLOptimum(loss, distance, math.sqrt(share), math.sqrt(1 - share), critical_beta(curve, largest))


def _most_similarity(pull: Array, sizes: Array, number: Array, total: float) -> float:
    """Return an upper bound of the sum of pull_c D_c over all classes in the unit ball.

    With G the Gram matrix of the class means and u_c = pull_c / (N - n_c), the sum is <A, G> for A = diag(pull + u n) -
    (u n^T + n u^T) / 2. For every s > 0 the second term is at most w w^T / 4 with w = (s u - n) / sqrt(s), and that at
    most the diagonal matrix of |w_c| sum |w| / 4, by the inequality of Cauchy and Schwarz. It is exact for equal sizes.
    """
    u = pull / (total - sizes)
    s = sizes[u > 0] / u[u > 0]
    spread = (number * np.abs(s[:, None] * u - sizes)).sum(1) ** 2 / (4 * s)
    return float(number @ (pull + u * sizes) + spread.min())


def _class_sizes(counts: Array, include_self: bool) -> tuple[Array, Array, Array]:
    """Return the distinct class sizes (J,), the number of classes of each, and of positives of one of their samples."""
    sizes, multiplicity = np.unique(counts, return_counts=True)
    own = np.maximum(sizes - (not include_self), 0.0)
    if not own.any():
        raise ValueError(f"counts: got {counts.tolist()}, expected a class with two samples or more: there is no pair")
    return sizes, multiplicity.astype(np.float64), own


def _balanced_kappa(num_classes: int, counts: Sequence[float] | None, include_self: bool) -> float:
    if counts is None:
        return num_classes - 1.0
    found = _checked_counts(counts, num_classes)
    if len(found) < num_classes or found.min() < found.max():
        raise ValueError(f"counts: got {found.tolist()}, expected equal ones; hucl_lower_bound takes others")
    sizes, _, own = _class_sizes(found, include_self)
    return float((found.sum() - sizes[0]) / own[0])


def _checked_counts(counts: Sequence[float], num_classes: int) -> Array:
    found = np.asarray(counts, dtype=np.float64)
    if found.shape != (num_classes,) or not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(f"counts: got {list(counts)}, expected {num_classes} numbers of samples >= 0")
    return found[found > 0]


def _curve(
    num_classes: int, beta: float, temperature: float, num_negatives: int | None, alpha: float, kappa: float
) -> Curve:
    check_count("num_classes", num_classes, at_least=2)
    check_number("beta", beta, at_least=0)
    check_number("temperature", temperature, above=0)
    for name, value in (("beta", beta), ("temperature", temperature)):
        if value > _LARGEST or 0 < value < 1 / _LARGEST:
            raise ValueError(f"{name}: got {value:g}, expected {1 / _LARGEST:g} to {_LARGEST:g}")
    check_number("alpha", alpha, at_least=0)
    if num_negatives is not None:
        check_count("num_negatives", num_negatives)
    return Curve(float(beta), float(temperature), kappa, num_negatives, float(alpha))
