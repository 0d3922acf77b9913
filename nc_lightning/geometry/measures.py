"""The registry of measures: what each is called, how it is computed, and what it is at neural collapse.

To add a measure, add a row here: metrics, the monitor, tables, the dashboard, reports and sweeps show it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from nc_lightning.geometry import centers, collapse, frames, spectra
from nc_lightning.geometry.centers import CenterDistances
from nc_lightning.geometry.statistics import ClassStatistics


@dataclass(frozen=True)
class Measure:
    """A measure of geometry, for every place that computes or shows it.

    Attributes:
        key: Name in logs, tables and files.
        title: Name in words, for charts and tables.
        compute: Function of class statistics, or of distances to class centers; None for a measure that needs more.
        of: What it is computed from: ``statistics`` of classes, distances to class ``centers``, a linear
            ``classifier``, or the ``loss`` of a training.
        ideal: Value at neural collapse; ``rank`` for min(C - 1, d); None for a measure that only informs.
        tolerance: Largest distance from the ideal that counts as met; for a rank, as a share of it.
        floor: Least possible value for C classes in d dimensions, where that is the ideal.
        defined: Whether there is an ideal for C classes in d dimensions; None for always.
        alone: Whether meeting the ideal shows something while other measures are not at theirs.
        label_free: Whether it is a measure of all features, whatever their classes.
        headline: What it is, in the words of the short table (at most 20 characters); empty for one that is not there.
        group: Group of charts in the dashboard; None for no chart.
        scale: Scale of its axis over training.
    """

    key: str
    title: str
    compute: Callable[[Any], Any] | None = None
    of: Literal["statistics", "centers", "classifier", "loss"] = "statistics"
    ideal: float | Literal["rank"] | None = 0.0
    tolerance: float = 0.0
    floor: Callable[[int, int], float] | None = None
    defined: Callable[[int, int], bool] | None = None
    alone: bool = False
    label_free: bool = False
    headline: str = ""
    group: Literal["Neural collapse", "The paper's conditions", "Dimensions", "Accuracy"] | None = None
    scale: Literal["log", "linear"] = "log"


def _rank(key: str, title: str, compute: Callable[[Any], Any], tolerance: float = 0.01, **others: Any) -> Measure:
    return Measure(key, title, compute, ideal="rank", tolerance=tolerance, scale="linear", **others)


def _simplex_fits(num_classes: int, feature_dim: int) -> bool:
    return num_classes <= feature_dim + 1


_MEASURES = [
    Measure(
        "nc1",
        "NC1, within over between classes",
        collapse.nc1,
        tolerance=0.01,
        alone=True,
        headline="within over between",
        group="Neural collapse",
    ),
    Measure("nc1_sample", "NC1, samples counting alike", collapse.nc1_sample, tolerance=0.01, alone=True),
    # Not alone: it sees the variance in C - 1 directions only, which is little of that of random features.
    Measure("nc1_pinv", "NC1 by the pseudo-inverse", collapse.nc1_pinv, tolerance=0.01),
    _rank("nc1_rank", "directions that nc1_pinv inverts", collapse.nc1_rank, tolerance=0.0),
    Measure("nc1_outside_span", "variance that nc1_pinv does not see", collapse.nc1_outside_span, ideal=None),
    Measure("cdnv", "variance over squared distance, by pairs", collapse.cdnv, tolerance=0.01, alone=True),
    Measure(
        "nc2_etf",
        "NC2, distance to the simplex",
        collapse.nc2_etf,
        tolerance=0.1,
        floor=frames.etf_floor,
        headline="distance to simplex",
        group="Neural collapse",
    ),
    Measure("nc2_equinorm", "NC2, spread of norms", collapse.nc2_equinorm, tolerance=0.02, group="Neural collapse"),
    Measure(
        "nc2_equiangular",
        "NC2, spread of angles",
        collapse.nc2_equiangular,
        tolerance=0.02,
        floor=frames.equiangular_floor,
    ),
    Measure(
        "nc2_maxangle",
        "NC2, angles",
        collapse.nc2_maxangle,
        tolerance=0.02,
        defined=_simplex_fits,
        group="Neural collapse",
    ),
    Measure(
        "nc2_tight_frame",
        "NC2, distance to a tight frame",
        frames.nc2_tight_frame,
        tolerance=0.1,
        floor=frames.tight_frame_floor,
    ),
    Measure(
        "nc2_max_cosine",
        "NC2, largest cosine",
        frames.nc2_max_cosine,
        tolerance=0.05,
        floor=frames.max_cosine_floor,
        defined=lambda num_classes, feature_dim: num_classes <= 2 * feature_dim,
        scale="linear",
    ),
    Measure(
        "nc3",
        "NC3, classifier and class means",
        of="classifier",
        tolerance=0.1,
        headline="classifier and means",
        group="Neural collapse",
    ),
    Measure(
        "nc4",
        "NC4, classifier against nearest class mean",
        of="classifier",
        tolerance=0.01,
        headline="classifier disagrees",
        group="Neural collapse",
    ),
    Measure(
        "zero_sum",
        "zero sum",
        collapse.zero_sum,
        tolerance=0.02,
        headline="norm of their mean",
        group="The paper's conditions",
    ),
    Measure(
        "unit_norm",
        "unit norm",
        collapse.unit_norm,
        tolerance=0.01,
        headline="norms, from 1",
        group="The paper's conditions",
    ),
    Measure(
        "equal_inner_product",
        "equal inner product",
        collapse.equal_inner_product,
        tolerance=0.02,
        defined=_simplex_fits,
        headline="cosines, from ideal",
        group="The paper's conditions",
    ),
    Measure(
        "within_class_variation",
        "within-class variation",
        centers.within_class_variation,
        of="centers",
        tolerance=0.1,
        alone=True,
        group="The paper's conditions",
    ),
    _rank(
        "effective_rank",
        "effective rank of class means",
        spectra.class_mean_effective_rank,
        headline="dimensions of means",
        group="Dimensions",
    ),
    _rank(
        "participation_ratio",
        "participation ratio of class means",
        spectra.class_mean_participation_ratio,
        group="Dimensions",
    ),
    # A largest eigenvalue alone is further from the others than all of them are on average.
    _rank("nesum", "eigenvalue sum over the largest, of class means", spectra.class_mean_nesum, tolerance=0.05),
    _rank(
        "feature_effective_rank",
        "effective rank of features",
        spectra.feature_effective_rank,
        label_free=True,
        group="Dimensions",
    ),
    _rank(
        "feature_participation_ratio",
        "participation ratio of features",
        spectra.feature_participation_ratio,
        label_free=True,
    ),
    _rank(
        "feature_nesum",
        "eigenvalue sum over the largest, of features",
        spectra.feature_nesum,
        tolerance=0.05,
        label_free=True,
    ),
    _rank(
        "feature_stable_rank",
        "stable rank of features",
        spectra.feature_stable_rank,
        tolerance=0.05,
        label_free=True,
    ),
    _rank("feature_rank", "dimensions that features use", spectra.feature_rank, tolerance=0.0, label_free=True),
    Measure(
        "feature_alpha_req",
        "decay of the spectrum of features",
        spectra.feature_alpha_req,
        tolerance=0.1,
        defined=lambda num_classes, feature_dim: min(num_classes - 1, feature_dim) >= 3,  # a slope needs three
        label_free=True,
        scale="linear",
    ),
    _rank("rankme", "RankMe of features", spectra.feature_rankme, label_free=True),
    Measure(
        "ncc_accuracy",
        "right by the nearest class mean",
        centers.ncc_accuracy,
        of="centers",
        ideal=1.0,
        tolerance=0.01,
        headline="by the nearest mean",
        group="Accuracy",
        scale="linear",
    ),
    Measure("loss/optimality_gap", "loss above its lower bound", of="loss", headline="loss above its bound"),
]
MEASURES: dict[str, Measure] = {measure.key: measure for measure in _MEASURES}
STATISTICS_MEASURES: dict[str, Callable[[ClassStatistics], Tensor]] = {
    key: measure.compute for key, measure in MEASURES.items() if measure.compute and measure.of == "statistics"
}
CENTER_MEASURES: dict[str, Callable[[CenterDistances], Tensor]] = {
    key: measure.compute for key, measure in MEASURES.items() if measure.compute and measure.of == "centers"
}
