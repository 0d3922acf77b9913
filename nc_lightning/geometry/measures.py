"""All measures by name: their values for given statistics, and what each is at ideal neural collapse."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nc_lightning.geometry import centres, collapse, spectra
from nc_lightning.geometry.centres import CentreDistances
from nc_lightning.geometry.checks import check_features, check_labels
from nc_lightning.geometry.statistics import ClassStatistics

STATISTICS_MEASURES: dict[str, Callable[[ClassStatistics], Tensor]] = {
    "nc1": collapse.nc1,
    "nc1_pinv": collapse.nc1_pinv,
    "nc1_rank": collapse.nc1_rank,
    "nc1_outside_span": collapse.nc1_outside_span,
    "cdnv": collapse.cdnv,
    "nc2_equinorm": collapse.nc2_equinorm,
    "nc2_equiangular": collapse.nc2_equiangular,
    "nc2_maxangle": collapse.nc2_maxangle,
    "nc2_etf": collapse.nc2_etf,
    "zero_sum": collapse.zero_sum,
    "unit_norm": collapse.unit_norm,
    "equal_inner_product": collapse.equal_inner_product,
    "effective_rank": spectra.class_mean_effective_rank,
    "participation_ratio": spectra.class_mean_participation_ratio,
    "feature_effective_rank": spectra.feature_effective_rank,
    "rankme": spectra.feature_rankme,
}
"""The measures that one pass over the features can tell."""

CENTRE_MEASURES: dict[str, Callable[[CentreDistances], Tensor]] = {
    "within_class_variation": centres.within_class_variation,
    "ncc_accuracy": centres.ncc_accuracy,
}
"""The measures that need the class centres before they look at the features."""


@dataclass(frozen=True)
class Ideal:
    """What a measure is at neural collapse, and how near to it counts as arrived.

    Attributes:
        value: The ideal value.
        tolerance: Largest distance from it that counts as met.
        text: The condition in words, for tables.
    """

    value: float
    tolerance: float
    text: str

    def met(self, measured: float) -> bool:
        """Whether a measured value counts as ideal; NaN does not.

        Example:
            >>> Ideal(0.0, 0.01, "0").met(0.002)
            True
        """
        return abs(measured - self.value) <= self.tolerance


def ideal(key: str, num_classes: int, feature_dim: int) -> Ideal | None:
    """Return the ideal of a measure for C classes in d dimensions, or None where the measure only informs.

    Example:
        >>> ideal("effective_rank", num_classes=10, feature_dim=9).value
        9
        >>> ideal("nc1_outside_span", num_classes=10, feature_dim=9) is None
        True
    """
    rank = min(num_classes - 1, feature_dim)
    near_zero = {
        "nc1": 1e-2,
        "nc1_pinv": 1e-2,
        "cdnv": 1e-2,
        "within_class_variation": 0.1,
        "nc2_equinorm": 0.02,
        "nc2_equiangular": 0.02,
        "nc2_maxangle": 0.02,
        "nc2_etf": 0.1,
        "zero_sum": 0.02,
        "unit_norm": 0.01,
        "equal_inner_product": 0.02,
    }
    if key in near_zero:
        return Ideal(0.0, near_zero[key], "0")
    if key in ("effective_rank", "participation_ratio", "feature_effective_rank", "rankme"):
        return Ideal(rank, 0.01 * rank, f"{rank}")
    if key == "nc1_rank":
        return Ideal(rank, 0.0, f"{rank}")
    if key == "ncc_accuracy":
        return Ideal(1.0, 0.01, "1")
    return None


def statistics_measures(stats: ClassStatistics) -> dict[str, Tensor]:
    """Compute every measure that one pass can tell, on the CPU in float64.

    Args:
        stats: Statistics of all features.

    Returns:
        Measure by key, each a 0-dimensional float64 tensor. Without any sample every value is NaN.
    """
    stats = stats.to("cpu")
    if not stats.present.any():
        return {key: torch.tensor(torch.nan, dtype=torch.float64) for key in STATISTICS_MEASURES}
    return {key: function(stats) for key, function in STATISTICS_MEASURES.items()}


def measure(z: Tensor, labels: Tensor, num_classes: int | None = None) -> dict[str, float]:
    """Measure the geometry of features that are already there, by every measure we have.

    Features are taken as they are: normalise them first (`unit_ball`, `unit_sphere`) if the model was trained so.

    Args:
        z: Features (N, d), floating point.
        labels: Classes (N,), integers in [0, num_classes).
        num_classes: C; the largest label plus one if not given.

    Returns:
        Measure by key.

    Raises:
        TypeError: If ``z`` is not floating point or ``labels`` not integer.
        ValueError: If shapes do not fit, there is no sample, a label is out of range, or a feature is not finite.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> labels = torch.arange(4).repeat(5)
        >>> geometry = measure(simplex_etf(4, 3)[labels], labels)
        >>> round(geometry["effective_rank"], 6), round(geometry["nc1"], 6), geometry["ncc_accuracy"]
        (3.0, 0.0, 1.0)
    """
    check_features(z)
    check_labels(labels, len(z))
    if len(z) == 0:
        raise ValueError("z: got 0 samples, expected at least 1")
    if num_classes is None:
        num_classes = int(labels.max()) + 1
    stats = ClassStatistics(num_classes, z.shape[1], z.device).update(z, labels)
    seen = CentreDistances(stats).update(z, labels)
    values = statistics_measures(stats) | {key: function(seen) for key, function in CENTRE_MEASURES.items()}
    return {key: float(value) for key, value in values.items()}
