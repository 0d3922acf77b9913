"""Pure functions on tensors: normalisation, the simplex ETF, class statistics, collapse measures, ranks and bounds."""

from nc_lightning.geometry.bounds import collapsed_value, scl_lower_bound, ucl_lower_bound
from nc_lightning.geometry.centres import CentreDistances, ncc_accuracy, within_class_variation
from nc_lightning.geometry.collapse import (
    cdnv,
    equal_inner_product,
    nc1,
    nc1_outside_span,
    nc1_pinv,
    nc1_rank,
    nc2_equiangular,
    nc2_equinorm,
    nc2_etf,
    nc2_maxangle,
    unit_norm,
    zero_sum,
)
from nc_lightning.geometry.etf import simplex_etf
from nc_lightning.geometry.measures import Ideal, ideal, measure, statistics_measures
from nc_lightning.geometry.normalization import Normalization, normalize, unit_ball, unit_sphere
from nc_lightning.geometry.spectra import (
    class_mean_effective_rank,
    class_mean_participation_ratio,
    effective_rank,
    feature_effective_rank,
    feature_rankme,
    participation_ratio,
    rankme,
)
from nc_lightning.geometry.statistics import ClassStatistics

__all__ = [
    "CentreDistances",
    "ClassStatistics",
    "Ideal",
    "Normalization",
    "cdnv",
    "class_mean_effective_rank",
    "class_mean_participation_ratio",
    "collapsed_value",
    "effective_rank",
    "equal_inner_product",
    "feature_effective_rank",
    "feature_rankme",
    "ideal",
    "measure",
    "nc1",
    "nc1_outside_span",
    "nc1_pinv",
    "nc1_rank",
    "nc2_equiangular",
    "nc2_equinorm",
    "nc2_etf",
    "nc2_maxangle",
    "ncc_accuracy",
    "normalize",
    "participation_ratio",
    "rankme",
    "scl_lower_bound",
    "simplex_etf",
    "statistics_measures",
    "ucl_lower_bound",
    "unit_ball",
    "unit_norm",
    "unit_sphere",
    "within_class_variation",
    "zero_sum",
]
