"""Theoretical values of the losses: lower bounds of SCL and UCL, and the value at total collapse.

The bounds assume a link psi(t_1, ..., t_k), t = (s_negative - s_positive) / temperature, convex and non-decreasing in
each t, and features in the unit ball. For balanced classes neural collapse attains them; they hold in expectation, so
an unbalanced batch may be below. See `nc_lightning.geometry.hucl` for HUCL.
"""

import math
from collections.abc import Sequence
from typing import Protocol

from nc_lightning.checks import check_count, check_fraction, check_number
from nc_lightning.geometry.imbalance import DifferentiableLink, present_shares, scl_optimum


class Mixture(Protocol):
    """Protocol of a link that the bounds can evaluate."""

    def mixture(self, t: list[float], weights: list[float], count: int = 1) -> float:
        """Return psi at values of t with weights that sum to 1, for ``count`` negatives."""


class _SmoothMixture(Mixture, DifferentiableLink, Protocol):
    """A link for classes of any balance."""


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
                f"feature_dim: got {feature_dim}, expected at least {num_classes - 1} for {num_classes} classes: no "
                "simplex fits into fewer dimensions, so the bound cannot be reached"
            )


def _collisions(priors: Sequence[float], num_classes: int) -> float:
    """Compute the probability that two samples are of the same class."""
    shares = [float(share) for share in priors]
    if len(shares) != num_classes or min(shares) < 0 or abs(math.fsum(shares) - 1) > 1e-6:
        raise ValueError(f"priors: got {shares}, expected {num_classes} probabilities that sum to 1")
    return math.fsum(share**2 for share in shares)


def collapsed_value(link: Mixture | None = None, num_negatives: int | None = None) -> float:
    """Return the loss when all features are equal, so that every t is 0 with any temperature and hardness.

    Args:
        link: psi; None for InfoNCE in its mean form.
        num_negatives: Number of negatives k, for links that sum over them.

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
    link: _SmoothMixture | None = None,
    feature_dim: int | None = None,
    priors: Sequence[float] | None = None,
    counts: Sequence[int] | None = None,
) -> float:
    r"""Return the lower bound of SCL, and thus of HSCL, in the unit ball; it is attained.

    For balanced classes it is :math:`\psi(u, \ldots, u)` with :math:`u = -C / ((C - 1) \tau)`, at neural collapse. For
    InfoNCE in its mean form it is :math:`\log(1 + e^u)`, for any number of negatives. For unbalanced classes it is the
    loss of `scl_optimum`.

    Args:
        num_classes: Number of classes C >= 2.
        temperature: tau > 0.
        num_negatives: Number of negatives k, for links that sum over them; for an exact loss, all those in the batch.
        link: psi, from `nc_lightning.losses.links`; None for InfoNCE in its mean form.
        feature_dim: Dimension d of the features, checked to be at least C - 1.
        priors: Probabilities (C,) of the classes; None for equal ones.
        counts: Samples (C,) of each class in a batch, whose exact loss is bounded, instead of ``priors``.

    Returns:
        The bound, in nats if psi is a logarithm.

    Raises:
        ValueError: If an argument is out of its range; if d < C - 1, where the bound cannot be reached; or as in
            `scl_optimum`, if the classes are unbalanced.

    Source:
        Jiang, Nguyen, Aeron, Ishwar (2023), arXiv 2311.05139, the theorem on the optimality of NC for SCL.

    Example:
        >>> round(scl_lower_bound(num_classes=100), 12)
        0.31055512208
        >>> round(scl_lower_bound(num_classes=10, priors=[10 / 19] + 9 * [1 / 19]), 12)
        0.230657753676
    """
    _check(num_classes, temperature, num_negatives, feature_dim)
    number = num_negatives or 1
    if priors is not None:
        _collisions(priors, num_classes)
    if counts is not None:
        if len(counts) != num_classes:
            raise ValueError(f"counts: got {len(counts)} numbers, expected one for each of the {num_classes} classes")
        number = num_negatives or sum(counts) - max(counts)
    if priors is not None or counts is not None:
        shares = present_shares(priors, counts)
        if len(shares) < num_classes or shares.max() > (1 + 1e-9) * shares.min():
            return scl_optimum(priors, counts, temperature, link, num_negatives).loss
    u = -num_classes / ((num_classes - 1) * temperature)
    return (link or _MeanInfoNCE()).mixture([u], [1.0], number)


def ucl_lower_bound(
    num_classes: int,
    temperature: float = 1.0,
    num_negatives: int | None = None,
    link: Mixture | None = None,
    collision: float | None = None,
    feature_dim: int | None = None,
    priors: Sequence[float] | None = None,
    positives: str = "label",
    drawn_from: int | None = None,
) -> float:
    """Return the lower bound of UCL, with positives of the same class, for balanced classes in the unit ball.

    A negative is of the anchor's class with probability q (a collision); at neural collapse it then has t = 0, and
    t = u = -C / ((C - 1) temperature) otherwise. The bound is the expectation of psi over the number m of collisions,
    which is binomial for independent draws and hypergeometric for draws without replacement, or, in the limit of many
    negatives, psi of the mixture with weights q and 1 - q.

    Args:
        num_classes: Number of classes C >= 2.
        temperature: tau > 0.
        num_negatives: Number k of negatives drawn for each pair; None for the exact loss of a link that takes a mean.
        link: psi, from `nc_lightning.losses.links`; None for InfoNCE in its mean form.
        collision: Probability q; None for 1/C. In a batch with n samples per class whose anchors are not their own
            negatives, it is (n - 1)/(n C - 1).
        feature_dim: Dimension d of the features, checked to be at least C - 1.
        priors: Probabilities of the classes. Unequal ones are supported for a single negative only, with a bound that
            is not tight: r psi(0) + (1 - r) psi(-1 / ((1 - r) temperature)), with r the probability of a collision.
        positives: Kind of positives, checked to be ``label``.
        drawn_from: Number of negatives in the batch that k are drawn from without replacement, q of them of the
            anchor's class; all are drawn if there are fewer than k. None for independent draws.

    Returns:
        The bound, in nats if psi is a logarithm.

    Raises:
        ValueError: If an argument is out of its range; if positives are by view, or the classes are unbalanced and
            there is more than one negative, where the loss can fall below the bound; or if d < C - 1, where the bound
            cannot be reached.

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
                f"priors: got {list(priors)}, expected equal ones; others have a bound for num_negatives=1 only"
            )
        return math.fsum([r * psi.mixture([0.0], [1.0]), (1 - r) * psi.mixture([-1 / ((1 - r) * temperature)], [1.0])])
    q = 1 / num_classes if collision is None else collision
    check_fraction("collision", q, "[0, 1]", "a probability")
    t = [0.0, -num_classes / ((num_classes - 1) * temperature)]
    if num_negatives is None:
        return psi.mixture(t, [q, 1 - q])
    if drawn_from is None:
        k = num_negatives
        chances = [_binomial(k, m, q) for m in range(k + 1)]
    else:
        check_count("drawn_from", drawn_from)
        k, own = min(num_negatives, drawn_from), round(q * drawn_from)
        if abs(q * drawn_from - own) > 1e-6:
            raise ValueError(f"drawn_from: got {drawn_from}, expected one that times {q:g} is a whole number")
        chances = [
            math.comb(own, m) * math.comb(drawn_from - own, k - m) / math.comb(drawn_from, k) for m in range(k + 1)
        ]
    return math.fsum(p * psi.mixture(t, [m / k, 1 - m / k], k) for m, p in enumerate(chances) if p > 0)


def _binomial(k: int, m: int, q: float) -> float:
    """Return P(m of k draws succeed), via logarithms because the coefficient overflows for thousands of draws."""
    if q in (0, 1):
        return float(m == k * q)
    coefficient = math.lgamma(k + 1) - math.lgamma(m + 1) - math.lgamma(k - m + 1)
    return math.exp(coefficient + m * math.log(q) + (k - m) * math.log1p(-q))
