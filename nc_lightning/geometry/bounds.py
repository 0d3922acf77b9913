"""Theoretical values of the losses: the bound that neural collapse meets, and the value of total collapse.

For the InfoNCE link in its mean form, psi(t) = log(1 + mean_n e^{t_n}) with t = (s_negative - s_positive)/tau, features
in the unit ball and balanced classes. The bounds hold in expectation: one unbalanced batch may lie below them.
"""

import math

from nc_lightning.geometry.checks import check_count, check_number

TOTAL_COLLAPSE = math.log(2)
"""Loss in nats when all features are equal: every t is 0, so psi = log 2 at any temperature and any hardness."""


def _check(num_classes: int, temperature: float, num_negatives: int | None) -> None:
    check_count("num_classes", num_classes, at_least=2)
    check_number("temperature", temperature, above=0)
    if num_negatives is not None:
        check_count("num_negatives", num_negatives)


def scl_lower_bound(num_classes: int, temperature: float = 1.0, num_negatives: int | None = None) -> float:
    """Lower bound of SCL, and so of HSCL, for balanced classes on the unit ball; neural collapse meets it.

    log(1 + exp(-C / ((C - 1) tau))) in nats: convexity of psi, inner products of C classes that average at least
    -1/(C - 1), and positives at most 1.

    Args:
        num_classes: Number of classes C >= 2.
        temperature: tau > 0.
        num_negatives: k, negatives to a pair, or None for the exact loss. The mean form has the same bound for all.

    Returns:
        The bound in nats.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Jiang, Nguyen, Aeron, Ishwar (2023), arXiv 2311.05139, the theorem on the optimality of NC for SCL.

    Example:
        >>> round(scl_lower_bound(num_classes=100), 12)
        0.31055512208
    """
    _check(num_classes, temperature, num_negatives)
    return math.log1p(math.exp(-num_classes / ((num_classes - 1) * temperature)))


def ucl_lower_bound(
    num_classes: int, temperature: float = 1.0, num_negatives: int | None = None, collision: float | None = None
) -> float:
    """Lower bound of UCL, with positives of the same class, for balanced classes on the unit ball.

    Negatives fall into the anchor's class with probability q, and at neural collapse they then have t = 0, all others
    t = u = -C / ((C - 1) tau). The bound is the expectation over the number m ~ Binomial(k, q) of such collisions of
    log(1 + (m + (k - m) e^u) / k), and log(1 + q + (1 - q) e^u) in the limit of many negatives. It does not hold for
    positives that are views of the same image.

    Args:
        num_classes: Number of classes C >= 2.
        temperature: tau > 0.
        num_negatives: k, negatives drawn for each pair, or None for the exact loss.
        collision: q; 1/C if not given. A batch of n samples a class in which an anchor is not its own negative has
            (n - 1)/(n C - 1).

    Returns:
        The bound in nats.

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        Jiang, Nguyen, Aeron, Ishwar (2023), arXiv 2311.05139, the theorem on the optimality of NC for UCL.

    Example:
        >>> round(ucl_lower_bound(num_classes=10), 9)
        0.333807037
        >>> round(ucl_lower_bound(num_classes=10, num_negatives=2), 9)
        0.329159672
    """
    _check(num_classes, temperature, num_negatives)
    q = 1 / num_classes if collision is None else collision
    check_number("collision", q, at_least=0)
    if q > 1:
        raise ValueError(f"collision: got {q!r}, expected a probability in [0, 1]")
    other = math.exp(-num_classes / ((num_classes - 1) * temperature))
    if num_negatives is None:
        return math.log1p(q + (1 - q) * other)
    k = num_negatives
    return math.fsum(_binomial(k, m, q) * math.log1p((m + (k - m) * other) / k) for m in range(k + 1))


def _binomial(k: int, m: int, q: float) -> float:
    """P(m of k draws succeed), in logarithms, as the coefficient overflows for a few thousand draws."""
    if q in (0, 1):
        return float(m == k * q)
    coefficient = math.lgamma(k + 1) - math.lgamma(m + 1) - math.lgamma(k - m + 1)
    return math.exp(coefficient + m * math.log(q) + (k - m) * math.log1p(-q))
