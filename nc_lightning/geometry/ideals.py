"""Ideal values of the measures at neural collapse, and their tolerances."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from nc_lightning.geometry import frames
from nc_lightning.geometry.measures import MEASURES


@dataclass(frozen=True)
class Ideal:
    """Ideal value of a measure at neural collapse, and its tolerance.

    Attributes:
        value: Ideal value.
        tolerance: Largest distance from the ideal value that counts as met.
        text: Ideal value as text, for tables.
    """

    value: float
    tolerance: float
    text: str

    def met(self, measured: float) -> bool:
        """Check whether a measured value is within the tolerance; NaN is not.

        Example:
            >>> Ideal(0.0, 0.01, "0").met(0.002)
            True
        """
        return abs(measured - self.value) <= self.tolerance


def ideal(key: str, num_classes: int, feature_dim: int) -> Ideal | None:
    """Return the ideal of a measure for C classes in d dimensions; None if it has none.

    For C > d + 1, where no simplex exists, the ideal is the lower bound of the measure, or None if none is known. A
    single class has no ideal. Class means of random features approach a simplex as d grows, so the tolerance of
    measures of class means is at most 0.3 of their deviation.

    Example:
        >>> ideal("effective_rank", num_classes=10, feature_dim=9).value
        9
        >>> ideal("nc1_outside_span", num_classes=10, feature_dim=9) is None
        True
        >>> ideal("nc2_etf", num_classes=10, feature_dim=4).text
        '0.816'
    """
    measure = MEASURES.get(key)
    if num_classes < 2 or measure is None or measure.ideal is None:
        return None
    if measure.defined is not None and not measure.defined(num_classes, feature_dim):
        return None
    if measure.ideal == "rank":
        rank = min(num_classes - 1, feature_dim)
        return Ideal(rank, _tolerance(key, measure.tolerance * rank, rank, num_classes, feature_dim), f"{rank}")
    value = measure.ideal if measure.floor is None else measure.floor(num_classes, feature_dim)
    return Ideal(value, _tolerance(key, measure.tolerance, value, num_classes, feature_dim), f"{value:.3g}")


def ideals_met(measured: Mapping[str, float], num_classes: int, feature_dim: int) -> dict[str, bool]:
    """Check which measures are at their ideal and indicate neural collapse.

    Most ideals are also reached without neural collapse: isotropic random features have full rank, two class means
    are always a simplex, and zero means sum to zero. Except for measures of within-class variability, an ideal
    therefore counts as met only if ``nc1`` and ``nc2_etf`` are also at theirs.

    Args:
        measured: Measures by key; a missing ``nc1`` or ``nc2_etf`` counts as not met.
        num_classes: Number of classes C.
        feature_dim: Dimension d.

    Returns:
        Whether the ideal is met, by key, for the measures that have one.

    Example:
        >>> ideals_met({"nc1": 0.5, "nc2_etf": 0.0, "effective_rank": 9.0}, num_classes=10, feature_dim=9)
        {'nc1': False, 'nc2_etf': False, 'effective_rank': False}
        >>> ideals_met({"nc1": 0.0, "nc2_etf": 0.0, "effective_rank": 9.0}, num_classes=10, feature_dim=9)
        {'nc1': True, 'nc2_etf': True, 'effective_rank': True}
    """
    goals = {key: goal for key in measured if (goal := ideal(key, num_classes, feature_dim)) is not None}
    return goals_met(measured, goals, "nc2_etf")


def goals_met(measured: Mapping[str, float], goals: Mapping[str, Ideal], distance: str) -> dict[str, bool]:
    """Check which measures meet their goals; most count only if ``nc1`` and a distance of the class means do too.

    Args:
        measured: Measures by key.
        goals: Ideals by key; measures without one are left out.
        distance: Key of the distance of the class means from those that the goals describe.

    Example:
        >>> goals_met({"nc1": 0.0, "zero_sum": 0.0}, {"zero_sum": Ideal(0.0, 0.02, "0")}, "nc2_etf")
        {'zero_sum': False}
    """
    near = {key: goals[key].met(value) for key, value in measured.items() if key in goals}
    collapsed = near.get("nc1", False) and near.get(distance, False)
    return {key: at_goal and (collapsed or MEASURES[key].alone) for key, at_goal in near.items()}


def _tolerance(key: str, at_most: float, value: float, num_classes: int, feature_dim: int) -> float:
    """Return the tolerance, reduced where random class means are near the ideal."""
    near = random_class_means(key, num_classes, feature_dim, deviation=0.3)
    return at_most if near is None else min(at_most, abs(near - value))


def random_class_means(key: str, num_classes: int, feature_dim: int, deviation: float = 1.0) -> float | None:
    """Estimate a measure of class means for independent, isotropic random class means.

    Their covariance has a Marchenko-Pastur spectrum: r = min(C - 1, d) eigenvalues with a squared coefficient of
    variation of r / max(C - 1, d).

    Args:
        key: Key of the measure.
        num_classes: Number of classes C.
        feature_dim: Dimension d.
        deviation: Deviation of cosines, norms and eigenvalues from the ideal, relative to random class means.

    Returns:
        The value to leading order; None for other measures, and for two classes, whose means are always a simplex.

    Example:
        >>> round(random_class_means("participation_ratio", 10, 512), 2)
        8.84
    """
    if num_classes < 3:
        return None
    rank = min(num_classes - 1, feature_dim)
    spread = deviation**2 * rank / max(num_classes - 1, feature_dim)
    cosine = deviation * feature_dim**-0.5
    floor = frames.equiangular_floor(num_classes, feature_dim)
    participation = rank / (1 + spread)
    return {
        "nc2_equinorm": cosine / 2**0.5,
        "nc2_equiangular": math.sqrt(floor**2 + deviation**2 * max(0.0, 1 / feature_dim - floor**2)),
        "nc2_maxangle": cosine * (2 / math.pi) ** 0.5,
        "equal_inner_product": cosine * (2 / math.pi) ** 0.5,
        "nc2_max_cosine": frames.max_cosine_floor(num_classes, feature_dim) + cosine,
        "nc2_etf": _of_participation(participation, num_classes - 1),
        "nc2_tight_frame": _of_participation(participation, feature_dim),
        "participation_ratio": participation,
        "effective_rank": rank * (1 - spread / 8),
        "nesum": rank / (1 + spread**0.5) ** 2,
    }.get(key)


def _of_participation(ratio: float, size: int) -> float:
    """Return the distance from a spectrum with this participation ratio to a flat one, both at unit norm."""
    return math.sqrt(2 - 2 * math.sqrt(ratio / size))
