r"""The loss of an anchor of HUCL as a function of how far apart two classes are, and its minimum.

Let D be the mean similarity of an anchor to its positives minus that to the negatives of other classes. If classes are
collapsed and equally far apart, the loss with InfoNCE is

.. math::
    g(D) = \log(\alpha + q(D) + (1 - q(D)) e^{-D/\tau}), \qquad q(D) = \frac{1}{1 + \kappa e^{-\beta D}}

where q is the share of the hardened weight on negatives of the own class, and kappa the number of negatives of other
classes over that of the own class. For k drawn negatives, it is the mean over a binomial number of draws from the own
class.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

CERTIFIED_WITHIN = 1e-9
"""Largest violation, by rounding, of the inequality that is checked on a grid."""
_GRID = np.linspace(-2.0, 2.0, 41)
"""All D that features in the unit ball can have."""
_SMALLEST_LOG = -700.0


class Curve(NamedTuple):
    """The function g; hashable, so that what is derived from it can be cached.

    Attributes:
        beta: Hardness >= 0.
        temperature: tau > 0.
        kappa: Number of negatives of other classes over that of the own class, > 0.
        num_negatives: Number k of independent draws; None for all negatives.
        alpha: Weight >= 0 of the positive in the denominator of InfoNCE.
    """

    beta: float
    temperature: float
    kappa: float
    num_negatives: int | None
    alpha: float

    def value_and_slope(self, distance: Array, own: Array | float = 0.0) -> tuple[Array, Array]:
        """Return g and its derivative at D (n,), with negatives of the own class at ``own`` (n,) instead of 0."""
        tau, k = self.temperature, self.num_negatives
        log_odds = self.beta * (distance - own) - math.log(self.kappa)
        log_q, log_rest = -np.logaddexp(0.0, -log_odds), -np.logaddexp(0.0, log_odds)
        if k is None:
            total = np.logaddexp(_log(self.alpha), np.logaddexp(log_q - own / tau, log_rest - distance / tau))
            moved = np.exp(log_q + log_rest - own / tau - total) - np.exp(log_q + log_rest - distance / tau - total)
            return total, self.beta * moved - np.exp(log_rest - distance / tau - total) / tau
        draws = np.arange(k + 1)  # from the own class
        probability = np.exp(_log_choices(k) + draws * log_q[:, None] + (k - draws) * log_rest[:, None])
        others = _log(1 - draws / k) - distance[:, None] / tau
        same = np.logaddexp(_log(self.alpha), _log(draws / k) - np.broadcast_to(own, distance.shape)[:, None] / tau)
        total = np.logaddexp(same, others)
        slope = self.beta * (draws - k * np.exp(log_q)[:, None]) * total - np.exp(others - total) / tau
        return (probability * total).sum(1), (probability * slope).sum(1)

    def infimum(self) -> float:
        """Return the limit of g without hardness as D grows; -inf if the loss has no lower bound."""
        q, k = 1 / (1 + self.kappa), self.num_negatives
        if k is None:
            return float(_log(self.alpha + q))
        draws = np.arange(k + 1)
        probability = np.exp(_log_choices(k) + draws * math.log(q) + (k - draws) * math.log1p(-q))
        return float((probability * _log(self.alpha + draws / k)).sum())

    def sign_of_slope(self, distance: float) -> float:
        """Return a number of the sign of the derivative of g at D > 0, without overflow at low temperatures."""
        if self.num_negatives is not None:
            return float(self.value_and_slope(np.array([distance]))[1][0])
        # beta q (e^{D / tau} - 1) tau, which is 1 at the minimum
        log_q = -np.logaddexp(0.0, math.log(self.kappa) - self.beta * distance)
        gain = distance / self.temperature + math.log(-math.expm1(-distance / self.temperature))
        return float(math.log(self.beta) + math.log(self.temperature) + log_q + gain)


@lru_cache(maxsize=4096)
def best_distance(curve: Curve) -> float:
    """Return D*, the minimum of g; infinite for beta = 0.

    Example:
        >>> round(best_distance(Curve(beta=5.0, temperature=1.0, kappa=99.0, num_negatives=None, alpha=1.0)), 6)
        0.659194
    """
    if curve.beta == 0:
        return math.inf
    exact = _root(curve._replace(num_negatives=None).sign_of_slope, 0.0, curve.temperature)
    return exact if curve.num_negatives is None else _root(curve.sign_of_slope, 0.0, exact)


@lru_cache(maxsize=256)
def critical_beta(curve: Curve, largest: float) -> float:
    """Return the hardness at which D* is ``largest``; 0 if it is below the smallest number.

    Example:
        >>> round(critical_beta(Curve(0.0, 1.0, 99.0, None, 1.0), largest=100 / 99), 3)
        3.085
    """

    def exact(log_beta: float) -> float:
        return curve._replace(beta=math.exp(log_beta), num_negatives=None).sign_of_slope(largest)

    if exact(_SMALLEST_LOG) > 0:
        return 0.0
    beta = math.exp(_root(exact, _SMALLEST_LOG, 0.0))
    if curve.num_negatives is None:
        return beta
    return _root(lambda beta: curve._replace(beta=beta).sign_of_slope(largest), 0.0, beta)


@lru_cache(maxsize=4096)
def tangent(curve: Curve, largest: float) -> tuple[float, float, float]:
    """Return D = min(D*, largest), g(D), and a slope <= 0 with which a line through it lies below the loss.

    The line is checked on a grid over all D that the unit ball allows, so that anchors with different D have a mean
    loss above the line at their mean D. ``largest`` is infinite without normalization, where D* is the best for all;
    that it is the only minimum is checked up to 10 D*.

    Raises:
        ValueError: If the line is above the loss anywhere.

    Example:
        >>> [round(x, 4) for x in tangent(Curve(1.0, 1.0, 9.0, None, 1.0), largest=10 / 9)]
        [1.1111, 0.4044, -0.0798]
    """
    best = best_distance(curve)
    if math.isinf(min(best, largest)):
        return math.inf, curve.infimum(), 0.0
    at = np.array([min(best, largest)])
    value, slope = (float(found[0]) for found in curve.value_and_slope(at))
    slope = min(slope, 0.0) if best > largest else 0.0
    if math.isfinite(largest):
        gap = (value + slope * (_GRID - at) - _lowest(curve)).max()
    else:
        gap = value - curve.value_and_slope(at * np.linspace(0.0, 10.0, 101))[0].min()
    if gap > CERTIFIED_WITHIN * max(1.0, abs(value)):
        raise ValueError(
            f"beta, temperature: got {curve.beta:g}, {curve.temperature:g}, for which the loss is below its tangent, "
            "so that its minimum is not known; use others"
        )
    return float(at[0]), value, slope


@lru_cache(maxsize=4096)
def _lowest(curve: Curve) -> Array:
    """Return the smallest loss of an anchor with a mean D of at most those of the grid, however classes are spread.

    Spread classes act like points that are nearer to the anchor: other classes at D' <= D, the own class at D' <= 0.
    For D' >= 0 of other classes, the own class has the smallest loss at 0.
    """
    behind = _GRID[_GRID < 0]
    others, own = np.tile(behind, 5), np.outer(np.linspace(0.0, 1.0, 5), behind).ravel()
    smallest = curve.value_and_slope(others, own)[0].reshape(5, -1).min(0)
    return np.minimum.accumulate(np.concatenate([smallest, curve.value_and_slope(_GRID[_GRID >= 0])[0]]))


@lru_cache(maxsize=16)
def _log_choices(k: int) -> Array:
    """Return the logarithms of the binomial coefficients (k + 1,)."""
    return np.array([math.lgamma(k + 1) - math.lgamma(m + 1) - math.lgamma(k - m + 1) for m in range(k + 1)])


def _log(x: Array | float) -> Array:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(x))


def _root(function: Callable[[float], float], low: float, guess: float) -> float:
    """Return the root of a function that is negative just above ``low`` and positive from some point on."""
    from scipy.optimize import brentq  # noqa: PLC0415 - heavy

    step = guess - low
    while function(low + step) < 0:
        step *= 2
    least = step / 2
    while function(low + least) > 0:
        least /= 2
    return float(brentq(function, low + least, low + step, xtol=1e-300, rtol=1e-15, maxiter=500))
