"""Geometry metrics for torchmetrics: neural collapse as a whole, NC1, NC2 and the effective rank."""

from nc_lightning.geometry.measures import CENTRE_MEASURES, STATISTICS_MEASURES
from nc_lightning.metrics.class_statistics_metric import ClassStatisticsMetric


class NeuralCollapse(ClassStatisticsMetric):
    """Every measure of `nc_lightning.geometry.measure`, as a flat dict, of features that arrive in batches.

    ``within_class_variation`` and ``ncc_accuracy`` compare features with class means that are known only at the end:
    they are exact when all features come in one update, and NaN after several. `GeometryMonitor` reads the data twice
    and has them in any case.

    Args:
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        **kwargs: Of `torchmetrics.Metric`.

    Raises:
        ValueError: If a size is below 1, shapes do not fit, a label is out of range, or a feature is not finite.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> metric = NeuralCollapse(num_classes=4, feature_dim=3)
        >>> labels = torch.arange(4).repeat(5)
        >>> metric.update(simplex_etf(4, 3)[labels], labels)
        >>> geometry = metric.compute()
        >>> round(geometry["effective_rank"].item(), 6), geometry["ncc_accuracy"].item()
        (3.0, 1.0)
    """

    keys = (*STATISTICS_MEASURES, *CENTRE_MEASURES)


class NC1(ClassStatisticsMetric):
    """NC1, tr Sigma_W / tr Sigma_B: within-class over between-class variance. Range [0, inf], ideal 0.

    Args and errors as for `NeuralCollapse`; the definition is `nc_lightning.geometry.nc1`.

    Example:
        >>> import torch
        >>> metric = NC1(num_classes=2, feature_dim=2)
        >>> metric.update(torch.tensor([[1.1, 0.0], [0.9, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]))
        >>> round(metric.compute().item(), 4)
        0.0067
    """

    keys = ("nc1",)
    higher_is_better = False


class NC2(ClassStatisticsMetric):
    """NC2, how far the class means are from a simplex ETF: a dict of its four measures, each ideally 0.

    Args and errors as for `NeuralCollapse`; the definitions are those of `nc_lightning.geometry`.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> metric = NC2(num_classes=4, feature_dim=3)
        >>> metric.update(simplex_etf(4, 3), torch.arange(4))
        >>> sorted(metric.compute())
        ['nc2_equiangular', 'nc2_equinorm', 'nc2_etf', 'nc2_maxangle']
    """

    keys = ("nc2_equinorm", "nc2_equiangular", "nc2_maxangle", "nc2_etf")
    higher_is_better = False


class EffectiveRank(ClassStatisticsMetric):
    """Effective rank of the centred class means. Range [0, min(C - 1, d)], ideal C - 1; low in dimensional collapse.

    Args and errors as for `NeuralCollapse`; the definition is `nc_lightning.geometry.class_mean_effective_rank`.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> metric = EffectiveRank(num_classes=4, feature_dim=3)
        >>> metric.update(simplex_etf(4, 3), torch.arange(4))
        >>> round(metric.compute().item(), 6)
        3.0
    """

    keys = ("effective_rank",)
    higher_is_better = True
