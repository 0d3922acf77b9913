"""The registry of measures: their names, functions and ideal values at neural collapse.

To add a measure, add a row here: metrics, the monitor, tables, the dashboard, reports and sweeps then include it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from torch import Tensor

from nc_lightning.geometry import centers, collapse, discriminants, frames, spectra, spread
from nc_lightning.geometry.centers import CenterDistances
from nc_lightning.geometry.statistics import ClassStatistics

Group = Literal["Neural collapse", "The paper's conditions", "Dimensions", "Accuracy"] | None


@dataclass(frozen=True)
class Measure:
    """Definition of a measure, used wherever it is computed or shown.

    Attributes:
        key: Name in logs, tables and files.
        title: Name in words, for charts and tables.
        compute: Function of class statistics, or of distances to class centers; None for a measure that needs more.
        tolerance: Largest distance from the ideal that counts as met; for a rank, relative to it.
        group: Group of charts in the dashboard; None for no chart.
        headline: Description in the short table (at most 20 characters); empty to leave it out of that table.
        of: Input of the measure: ``statistics`` of classes, distances to class ``centers``, a linear ``classifier``,
            the ``optimum`` of the loss, the training ``loss``, out-of-distribution features (``ood``), or distances to
            nearest ``neighbors``.
        ideal: Value at neural collapse; ``rank`` for min(C - 1, d); None for a measure without an ideal.
        floor: Function that returns the ideal as the smallest possible value for C collapsed classes in d dimensions.
        defined: Function that returns whether there is an ideal for C classes in d dimensions; None for always.
        alone: Whether meeting the ideal is meaningful if ``nc1`` and ``nc2_etf`` are not at theirs.
        label_free: Whether the measure does not depend on labels.
        scale: Scale of the axis in charts over training.
    """

    key: str
    title: str
    compute: Callable[[Any], Any] | None = None
    tolerance: float = 0.0
    group: Group = None
    headline: str = ""
    of: Literal["statistics", "centers", "classifier", "optimum", "loss", "ood", "neighbors"] = "statistics"
    ideal: float | Literal["rank"] | None = 0.0
    floor: Callable[[int, int], float] | None = None
    defined: Callable[[int, int], bool] | None = None
    alone: bool = False
    label_free: bool = False
    scale: Literal["log", "linear"] = "log"


def _rank(
    key: str, title: str, compute: Callable[[Any], Any], tolerance: float = 0.01, group: Group = None, **others: Any
) -> Measure:
    return Measure(key, title, compute, tolerance, group, ideal="rank", scale="linear", **others)


def _feature_rank(
    key: str, title: str, compute: Callable[[Any], Any], tolerance: float = 0.01, group: Group = None, **others: Any
) -> Measure:
    return _rank(key, title, compute, tolerance, group, label_free=True, **others)


def _fits(num_classes: int, feature_dim: int) -> bool:
    return num_classes <= feature_dim + 1


NC: Final = "Neural collapse"
PAPER: Final = "The paper's conditions"
DIMS: Final = "Dimensions"

# key, title, function, tolerance, group, headline
_MEASURES = [
    Measure("nc1", "NC1, within over between classes", collapse.nc1, 0.01, NC, "within/between var.", alone=True),
    Measure("nc1_sample", "NC1, weighted by samples", collapse.nc1_sample, 0.01, alone=True),
    # Not alone: it covers only C - 1 directions, which hold little of the variance of random features.
    Measure("nc1_pinv", "NC1 by the pseudo-inverse", collapse.nc1_pinv, 0.01),
    _rank("nc1_rank", "directions that nc1_pinv inverts", collapse.nc1_rank, 0.0),
    Measure("nc1_outside_span", "variance that nc1_pinv does not see", collapse.nc1_outside_span, ideal=None),
    Measure("cdnv", "variance over squared distance, by pairs", collapse.cdnv, 0.01, alone=True),
    Measure(
        "nc2_etf",
        "NC2, distance to the simplex",
        collapse.nc2_etf,
        0.1,
        NC,
        "distance to simplex",
        floor=frames.etf_floor,
    ),
    # Its ideal, 0, is at the minimum of the loss that is trained, see nc_lightning.geometry.optimum.
    Measure(
        "distance_to_optimum",
        "NC2, distance to the minimum of the loss",
        None,
        0.1,
        NC,
        "distance to minimum",
        of="optimum",
        ideal=None,
    ),
    Measure("nc2_equinorm", "NC2, spread of norms", collapse.nc2_equinorm, 0.02, NC),
    Measure("nc2_equiangular", "NC2, spread of angles", collapse.nc2_equiangular, 0.02, defined=_fits),
    Measure("nc2_maxangle", "NC2, angles", collapse.nc2_maxangle, 0.02, NC, defined=_fits),
    Measure(
        "nc2_tight_frame", "NC2, distance to a tight frame", frames.nc2_tight_frame, 0.1, floor=frames.tight_frame_floor
    ),
    Measure(
        "nc2_max_cosine",
        "NC2, largest cosine",
        frames.nc2_max_cosine,
        0.05,
        floor=frames.max_cosine_floor,
        defined=lambda num_classes, feature_dim: num_classes <= 2 * feature_dim,
        scale="linear",
    ),
    Measure("nc3", "NC3, classifier and class means", None, 0.1, NC, "classifier vs. means", of="classifier"),
    Measure(
        "nc4", "NC4, classifier against nearest class mean", None, 0.01, NC, "classifier disagrees", of="classifier"
    ),
    Measure("zero_sum", "zero sum", collapse.zero_sum, 0.02, PAPER, "norm of global mean"),
    Measure("unit_norm", "unit norm", collapse.unit_norm, 0.01, PAPER, "norms, from 1"),
    Measure(
        "equal_inner_product",
        "equal inner product",
        collapse.equal_inner_product,
        0.02,
        PAPER,
        "cosines, from ideal",
        defined=_fits,
    ),
    Measure(
        "within_class_variation",
        "within-class variation",
        centers.within_class_variation,
        0.1,
        PAPER,
        of="centers",
        alone=True,
    ),
    _rank(
        "effective_rank",
        "effective rank of class means",
        spectra.class_mean_effective_rank,
        0.01,
        DIMS,
        headline="dimensions in use",
    ),
    _rank(
        "participation_ratio", "participation ratio of class means", spectra.class_mean_participation_ratio, 0.01, DIMS
    ),
    # The largest eigenvalue deviates more from the mean than the average eigenvalue does.
    _rank("nesum", "eigenvalue sum over the largest, of class means", spectra.class_mean_nesum, 0.05),
    # It weights directions by how well they separate classes, which noise that differs between directions changes.
    _rank("lidar", "LiDAR, directions that separate classes", discriminants.lidar, 0.05),
    _feature_rank("feature_effective_rank", "effective rank of features", spectra.feature_effective_rank, 0.01, DIMS),
    _feature_rank(
        "feature_participation_ratio", "participation ratio of features", spectra.feature_participation_ratio
    ),
    _feature_rank("feature_nesum", "eigenvalue sum over the largest, of features", spectra.feature_nesum, 0.05),
    _feature_rank("feature_stable_rank", "stable rank of features", spectra.feature_stable_rank, 0.05),
    # It counts noise above the cutoff: near neural collapse it can be d, however small nc1 is.
    _feature_rank(
        "feature_rank",
        "dimensions that features use",
        spectra.feature_rank,
        0.0,
        defined=lambda num_classes, feature_dim: feature_dim < num_classes,
    ),
    Measure(
        "feature_alpha_req",
        "decay of the spectrum of features",
        spectra.feature_alpha_req,
        0.1,
        defined=lambda num_classes, feature_dim: min(num_classes - 1, feature_dim) >= 3,  # a slope needs three
        label_free=True,
        scale="linear",
    ),
    _feature_rank("rankme", "RankMe of features", spectra.feature_rankme),
    Measure(
        "wasserstein_uniformity",
        "Wasserstein distance to the even spread",
        spread.wasserstein_uniformity,
        0.1,
        floor=frames.tight_frame_floor,
        label_free=True,
    ),
    Measure(
        "intrinsic_dimension",
        "dimension of the manifold of features",
        ideal=None,
        of="neighbors",
        label_free=True,
        scale="linear",
    ),
    Measure("nc5", "NC5, class means and out-of-distribution features", ideal=None, of="ood", scale="linear"),
    Measure(
        "ncc_accuracy",
        "accuracy of the nearest class mean",
        centers.ncc_accuracy,
        0.01,
        "Accuracy",
        "nearest class mean",
        of="centers",
        ideal=1.0,
        scale="linear",
    ),
    Measure("loss/optimality_gap", "loss above its lower bound", headline="loss minus its bound", of="loss"),
]
MEASURES: dict[str, Measure] = {measure.key: measure for measure in _MEASURES}
HEADLINES = [measure.key for measure in _MEASURES if measure.headline and measure.of == "statistics"]
LOSS_REFERENCES = ("loss/bound", "loss/optimality_gap", "loss/neural_collapse", "loss/collapsed")
"""Reference values logged next to the loss where they are defined, in the order of tables."""
STATISTICS_MEASURES: dict[str, Callable[[ClassStatistics], Tensor]] = {
    key: measure.compute for key, measure in MEASURES.items() if measure.compute and measure.of == "statistics"
}
CENTER_MEASURES: dict[str, Callable[[CenterDistances], Tensor]] = {
    key: measure.compute for key, measure in MEASURES.items() if measure.compute and measure.of == "centers"
}
