"""Ideal values of the measures at the minimum of a loss, where that is not neural collapse."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from nc_lightning.geometry.centers import CenterDistances
from nc_lightning.geometry.ideals import Ideal, goals_met, ideal
from nc_lightning.geometry.measures import CENTER_MEASURES, MEASURES, STATISTICS_MEASURES
from nc_lightning.geometry.ranks import EIGENVALUE_CUTOFF
from nc_lightning.geometry.statistics import ClassStatistics

DISTANCE = "distance_to_optimum"
_COINCIDE = 2e-6


def optimal_values(gram: Tensor, feature_dim: int) -> dict[str, float]:
    """Compute the measures of collapsed classes whose means have a given Gram matrix.

    Measures of features and of a classifier are left out, because they depend on more than the class means. So are
    undefined ones: those that are NaN, and ``cdnv`` and ``ncc_accuracy`` where two class means coincide. Class means
    that fit into d dimensions only when centered, as those of HUCL for d = C - 1, are approached there, not attained.

    Args:
        gram: Gram matrix (C, C) of the class means, as in `SCLOptimum`.
        feature_dim: Dimension d.

    Returns:
        Measures by key; none if the centered class means do not fit into d dimensions.

    Raises:
        ValueError: If ``gram`` is not a square matrix of finite numbers.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> shrunk = 0.8 * simplex_etf(4, 3)
        >>> values = optimal_values(shrunk @ shrunk.T, feature_dim=3)
        >>> round(values["unit_norm"], 4), round(values["effective_rank"], 4), values["nc1"]
        (0.2, 3.0, 0.0)
    """
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.isfinite().all():
        raise ValueError(f"gram: got shape {tuple(gram.shape)}, expected a square matrix of finite numbers")
    classes, gram = len(gram), gram.detach().to("cpu", torch.float64)
    away = gram - gram.mean(0)
    if _rank(torch.linalg.eigvalsh(away - away.mean(1, keepdim=True))) > feature_dim:
        return {}
    eigenvalues, directions = torch.linalg.eigh(gram)
    dim = max(feature_dim, _rank(eigenvalues))  # a vector that all classes share may need one more
    used = min(classes, dim)
    means = torch.zeros(classes, dim, dtype=torch.float64)
    means[:, :used] = (directions * eigenvalues.clamp(min=0).sqrt())[:, -used:]
    labels = torch.arange(classes)
    stats = ClassStatistics(classes, dim).update(means, labels)
    to_centers = CenterDistances(stats).update(means, labels)
    of_means = {key: compute(stats) for key, compute in STATISTICS_MEASURES.items() if not MEASURES[key].label_free}
    values = of_means | {key: compute(to_centers) for key, compute in CENTER_MEASURES.items()}
    undefined = set() if dim == feature_dim else {"nc2_tight_frame"}  # the only measure that depends on d
    if not (torch.nn.functional.pdist(means).square() > _COINCIDE * means.square().sum(1).mean()).all():
        undefined |= {"cdnv", "ncc_accuracy"}
    return {
        key: round(value.item(), 6) + 0.0 for key, value in values.items() if not value.isnan() and key not in undefined
    }


def optimal_ideals(gram: Tensor, feature_dim: int) -> dict[str, Ideal]:
    """Return the ideals of a loss whose minimum has class means with a given Gram matrix.

    Tolerances are those of `ideal`. That of ``distance_to_optimum`` is at most 0.3 of the distance of random class
    means.

    Args:
        gram: Gram matrix (C, C) of the class means, as in `SCLOptimum`.
        feature_dim: Dimension d.

    Returns:
        Ideals by key, also that of ``loss/optimality_gap``; none where `optimal_values` has none.

    Raises:
        ValueError: If ``gram`` is not a square matrix of finite numbers.

    Example:
        >>> from nc_lightning.geometry import scl_optimum
        >>> goals = optimal_ideals(scl_optimum(priors=[0.5, 0.3, 0.2]).gram, feature_dim=2)
        >>> goals["zero_sum"].text, goals["distance_to_optimum"].text
        ('0.1361', '0')
    """
    values = optimal_values(gram, feature_dim)
    goals = {
        key: Ideal(value, goal.tolerance, f"{value:.4g}")
        for key, value in values.items()
        if (goal := ideal(key, len(gram), feature_dim)) is not None
    }
    if goals:
        tolerance = min(MEASURES[DISTANCE].tolerance, 0.3 * _random_distance(gram, feature_dim))
        goals |= {DISTANCE: Ideal(0.0, tolerance, "0"), "loss/optimality_gap": Ideal(0.0, 0.0, "0")}
    return goals


def optimum_met(measured: Mapping[str, float], goals: Mapping[str, Ideal]) -> dict[str, bool]:
    """Check which measures are at the ideals of a loss and indicate its minimum.

    As in `ideals_met`, only measures of within-class variability can meet their ideal by themselves; the others count
    only if ``nc1`` and ``distance_to_optimum`` are also at theirs.

    Args:
        measured: Measures by key; a missing ``nc1`` or ``distance_to_optimum`` counts as not met.
        goals: Ideals by key, from `optimal_ideals`.

    Returns:
        Whether the ideal is met, by key, for the measures that have one.

    Example:
        >>> from nc_lightning.geometry import scl_optimum
        >>> goals = optimal_ideals(scl_optimum(priors=[0.5, 0.3, 0.2]).gram, feature_dim=2)
        >>> optimum_met({"nc1": 0.0, "zero_sum": 0.136, "distance_to_optimum": 0.3}, goals)
        {'nc1': True, 'zero_sum': False, 'distance_to_optimum': False}
    """
    return goals_met(measured, goals, DISTANCE)


def _random_distance(gram: Tensor, feature_dim: int) -> float:
    """Estimate `distance_to_optimum` for independent, isotropic class means of equal norm."""
    classes = len(gram)
    norm = math.sqrt(classes + classes * (classes - 1) / feature_dim)
    cosine = float(gram.trace() / torch.linalg.matrix_norm(gram)) / norm
    return math.sqrt(max(0.0, 2 - 2 * cosine))


def _rank(eigenvalues: Tensor) -> int:
    return int((eigenvalues > EIGENVALUE_CUTOFF * eigenvalues[-1]).sum())
