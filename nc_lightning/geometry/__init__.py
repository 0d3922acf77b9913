"""Pure functions on tensors: normalization, the simplex ETF, class statistics, collapse measures, ranks and bounds."""

from nc_lightning.geometry.bounds import collapsed_value, scl_lower_bound, ucl_lower_bound
from nc_lightning.geometry.centers import CenterDistances, ncc_accuracy, within_class_variation
from nc_lightning.geometry.classifier import nc3, nc3_cosine, nc3_etf, nc4_mismatches
from nc_lightning.geometry.collapse import (
    cdnv,
    distance_to_optimum,
    equal_inner_product,
    nc1,
    nc1_outside_span,
    nc1_pinv,
    nc1_rank,
    nc1_sample,
    nc2_equiangular,
    nc2_equinorm,
    nc2_etf,
    nc2_maxangle,
    unit_norm,
    zero_sum,
)
from nc_lightning.geometry.dimension import intrinsic_dimension
from nc_lightning.geometry.discriminants import lidar, lidar_of
from nc_lightning.geometry.etf import simplex_etf
from nc_lightning.geometry.frames import (
    coherence_floor,
    equiangular_floor,
    etf_floor,
    max_cosine_floor,
    nc2_max_cosine,
    nc2_tight_frame,
    tight_frame_floor,
)
from nc_lightning.geometry.hucl import (
    HUCLOptimum,
    hucl_critical_beta,
    hucl_lower_bound,
    hucl_neural_collapse_value,
    hucl_optimum,
)
from nc_lightning.geometry.ideals import Ideal, ideal, ideals_met
from nc_lightning.geometry.imbalance import SCLOptimum, minority_collapse_ratio, scl_optimum
from nc_lightning.geometry.measures import MEASURES, Measure
from nc_lightning.geometry.normalization import Normalization, normalize, unit_ball, unit_sphere
from nc_lightning.geometry.ood import nc5
from nc_lightning.geometry.optimum import optimal_ideals, optimal_values, optimum_met
from nc_lightning.geometry.ranks import alpha_req, effective_rank, nesum, numerical_rank, participation_ratio, rankme
from nc_lightning.geometry.simplex_plane import simplex_plane
from nc_lightning.geometry.spectra import (
    class_mean_effective_rank,
    class_mean_eigenvalues,
    class_mean_nesum,
    class_mean_participation_ratio,
    class_mean_spectrum,
    feature_alpha_req,
    feature_effective_rank,
    feature_eigenvalues,
    feature_nesum,
    feature_participation_ratio,
    feature_rank,
    feature_rankme,
    feature_stable_rank,
)
from nc_lightning.geometry.spread import alignment, self_cluster, uniformity, wasserstein_uniformity
from nc_lightning.geometry.statistics import ClassStatistics
from nc_lightning.geometry.survey import caveats, measure, statistics_measures

__all__ = [
    "MEASURES",
    "CenterDistances",
    "ClassStatistics",
    "HUCLOptimum",
    "Ideal",
    "Measure",
    "Normalization",
    "SCLOptimum",
    "alignment",
    "alpha_req",
    "caveats",
    "cdnv",
    "class_mean_effective_rank",
    "class_mean_eigenvalues",
    "class_mean_nesum",
    "class_mean_participation_ratio",
    "class_mean_spectrum",
    "coherence_floor",
    "collapsed_value",
    "distance_to_optimum",
    "effective_rank",
    "equal_inner_product",
    "equiangular_floor",
    "etf_floor",
    "feature_alpha_req",
    "feature_effective_rank",
    "feature_eigenvalues",
    "feature_nesum",
    "feature_participation_ratio",
    "feature_rank",
    "feature_rankme",
    "feature_stable_rank",
    "hucl_critical_beta",
    "hucl_lower_bound",
    "hucl_neural_collapse_value",
    "hucl_optimum",
    "ideal",
    "ideals_met",
    "intrinsic_dimension",
    "lidar",
    "lidar_of",
    "max_cosine_floor",
    "measure",
    "minority_collapse_ratio",
    "nc1",
    "nc1_outside_span",
    "nc1_pinv",
    "nc1_rank",
    "nc1_sample",
    "nc2_equiangular",
    "nc2_equinorm",
    "nc2_etf",
    "nc2_max_cosine",
    "nc2_maxangle",
    "nc2_tight_frame",
    "nc3",
    "nc3_cosine",
    "nc3_etf",
    "nc4_mismatches",
    "nc5",
    "ncc_accuracy",
    "nesum",
    "normalize",
    "numerical_rank",
    "optimal_ideals",
    "optimal_values",
    "optimum_met",
    "participation_ratio",
    "rankme",
    "scl_lower_bound",
    "scl_optimum",
    "self_cluster",
    "simplex_etf",
    "simplex_plane",
    "statistics_measures",
    "tight_frame_floor",
    "ucl_lower_bound",
    "uniformity",
    "unit_ball",
    "unit_norm",
    "unit_sphere",
    "wasserstein_uniformity",
    "within_class_variation",
    "zero_sum",
]
