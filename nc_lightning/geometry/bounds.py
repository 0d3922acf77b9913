"""Theoretical values of the losses: the bound that neural collapse meets, and the value of total collapse.

For a link psi(t_1, ..., t_k), t = (s_negative - s_positive) / temperature, convex and non-decreasing in each t,
features in the unit ball and balanced classes. The bounds hold in expectation: one unbalanced batch may lie below them.
"""

import math
from collections.abc import Sequence
from typing import Protocol

from nc_lightning.checks import check_count, check_fraction, check_number


class Mixture(Protocol):
    """What the bounds ask of a link: its value where negatives take a few values of t."""

    def mixture(self, t: list[float], weights: list[float], count: int = 1) -> float:
        """Return psi at values t with weights that sum to 1, of ``count`` negatives."""


class _MeanInfoNCE:
    def mixture(self, t: list[float], weights: list[float], count: int = 1) -> float:
        return math.log1p(math.fsum(w * math.exp(x) for x, w in zip(t, weights, strict=True)))


def _check(num_classes: int, temperature: float, num_negatives: int | None, feature_dim: int | None) -> None:
    check_count("num_classes", num_classes, at_least=2)
    check_number("temperature", temperature, above=0)
    if num_negatives is not None:
        check_count("num_negatives", num_negatives)
    if feature_dim is not None:
        check_count("feature_dim", feature_dim)
        if feature_dim < num_classes - 1:
            raise ValueError(
                f"feature_dim: got {feature_dim}, expected at least {num_classes - 1} for {num_classes} classes: fewer "
                "dimensions hold no simplex that meets the bound"
            )


def _collisions(priors: Sequence[float], num_classes: int) -> float:
    """Return the probability that two samples are of the same class."""
    shares = [float(share) for share in priors]
    if len(shares) != num_classes or min(shares) < 0 or abs(math.fsum(shares) - 1) > 1e-6:
        raise ValueError(f"priors: got {shares}, expected {num_classes} probabilities that sum to 1")
    return math.fsum(share**2 for share in shares)


def collapsed_value(link: Mixture | None = None, num_negatives: int | None = None) -> float:
    """Loss when all features are equal: every t is 0, whatever the temperature and the hardness.

    Args:
        link: psi; None for InfoNCE in its mean form.
        num_negatives: k, for links that sum over them.

    Returns:
        psi(0, ..., 0); log 2 for InfoNCE in its mean form.

    Example:
        >>> round(collapsed_value(), 6)
        0.693147
    """
    return (link or _MeanInfoNCE()).mixture([0.0], [1.0], num_negatives or 1)


def scl_lower_bound(
    num_classes: int,
    temperature: float = 1.0,
    num_negatives: int | None = None,
    link: Mixture | None = None,
    feature_dim: int | None = None,
    priors: Sequence[float] | None = None,
) -> float:
    """Lower bound of SCL, and so of HSCL, for balanced classes on the unit ball; neural collapse meets it.

    psi(u, ..., u) at u = -C / ((C - 1) temperature): psi is convex, the inner products of C classes average at least
    -1/(C - 1), and positives are at most 1. For InfoNCE in its mean form log(1 + e^u), for any number of negatives.

    Args:
        num_classes: Number of classes C >= 2.
        temperature: tau > 0.
        num_negatives: k, for links that sum over the negatives, of which an exact loss has all in the batch.
        link: psi, of `nc_lightning.losses.links`; None for InfoNCE in its mean form.
        feature_dim: Dimension of the features, to be sure that it is large enough.
        priors: Probabilities of the classes, to be sure that they are balanced.

    Returns:
        The bound, in nats where psi is a logarithm.

    Raises:
        ValueError: If an argument is out of its range; if classes are unbalanced, which can go below; or if there are
            fewer than C - 1 dimensions, in which nothing gets there.

    Source:
        Jiang, Nguyen, Aeron, Ishwar (2023), arXiv 2311.05139, the theorem on the optimality of NC for SCL.

    Example:
        >>> round(scl_lower_bound(num_classes=100), 12)
        0.31055512208
    """
    _check(num_classes, temperature, num_negatives, feature_dim)
    if priors is not None and _collisions(priors, num_classes) > 1 / num_classes + 1e-6:
        raise ValueError(f"priors: got {list(priors)}, expected equal ones: with others SCL can be below the bound")
    u = -num_classes / ((num_classes - 1) * temperature)
    return (link or _MeanInfoNCE()).mixture([u], [1.0], num_negatives or 1)


def ucl_lower_bound(
    num_classes: int,
    temperature: float = 1.0,
    num_negatives: int | None = None,
    link: Mixture | None = None,
    collision: float | None = None,
    feature_dim: int | None = None,
    priors: Sequence[float] | None = None,
    positives: str = "label",
) -> float:
    """Lower bound of UCL, with positives of the same class, for balanced classes on the unit ball.

    Negatives fall into the anchor's class with probability q, and at neural collapse they then have t = 0, all others
    t = u = -C / ((C - 1) temperature). The bound is the expectation of psi over the number m ~ Binomial(k, q) of such
    collisions, and psi of the mixture of q and 1 - q in the limit of many negatives.

    Args:
        num_classes: Number of classes C >= 2.
        temperature: tau > 0.
        num_negatives: k, negatives drawn for each pair, or None for the exact loss of a link that takes a mean.
        link: psi, of `nc_lightning.losses.links`; None for InfoNCE in its mean form.
        collision: q; 1/C if not given. A batch of n samples a class in which an anchor is not its own negative has
            (n - 1)/(n C - 1).
        feature_dim: Dimension of the features, to be sure that it is large enough.
        priors: Probabilities of the classes. Unbalanced ones have a bound for a single negative only, which is not
            tight: r psi(0) + (1 - r) psi(-1 / ((1 - r) temperature)), with r the probability of a collision.
        positives: ``label``, to be sure that they are not by ``view``.

    Returns:
        The bound, in nats where psi is a logarithm.

    Raises:
        ValueError: If an argument is out of its range; if positives are views of the same sample, or classes unbalanced
            with more than one negative, which can go below; or if there are fewer than C - 1 dimensions, in which
            nothing gets there.

    Source:
        Jiang, Nguyen, Aeron, Ishwar (2023), arXiv 2311.05139, the theorem on the optimality of NC for UCL.

    Example:
        >>> round(ucl_lower_bound(num_classes=10), 9)
        0.333807037
        >>> round(ucl_lower_bound(num_classes=10, num_negatives=2), 9)
        0.329159672
    """
    _check(num_classes, temperature, num_negatives, feature_dim)
    if positives != "label":
        raise ValueError(
            f"positives: got {positives!r}, expected 'label': with views of the same sample as positives, UCL can be "
            "below the bound"
        )
    psi = link or _MeanInfoNCE()
    if priors is not None and (r := _collisions(priors, num_classes)) > 1 / num_classes + 1e-6:
        if num_negatives != 1 or collision is not None:
            raise ValueError(
                f"priors: got {list(priors)}, expected equal ones: others have a bound for num_negatives=1 only"
            )
        return math.fsum([r * psi.mixture([0.0], [1.0]), (1 - r) * psi.mixture([-1 / ((1 - r) * temperature)], [1.0])])
    q = 1 / num_classes if collision is None else collision
    check_fraction("collision", q, "[0, 1]", "a probability")
    t = [0.0, -num_classes / ((num_classes - 1) * temperature)]
    if num_negatives is None:
        return psi.mixture(t, [q, 1 - q])
    k = num_negatives
    return math.fsum(_binomial(k, m, q) * psi.mixture(t, [m / k, 1 - m / k], k) for m in range(k + 1))


def _binomial(k: int, m: int, q: float) -> float:
    """P(m of k draws succeed), in logarithms, as the coefficient overflows for a few thousand draws."""
    if q in (0, 1):
        return float(m == k * q)
    coefficient = math.lgamma(k + 1) - math.lgamma(m + 1) - math.lgamma(k - m + 1)
    return math.exp(coefficient + m * math.log(q) + (k - m) * math.log1p(-q))
