"""Geometry metrics as torchmetrics: all measures of neural collapse, NC1, NC2, effective rank and spectrum."""

from typing import Any

import torch
from torch import Tensor

from nc_lightning.geometry import CenterDistances, ClassStatistics, class_mean_spectrum
from nc_lightning.geometry.measures import CENTER_MEASURES, STATISTICS_MEASURES
from nc_lightning.metrics.base import ClassStatisticsMetric, StatisticsOptions, statistics_of
from nc_lightning.metrics.classifier import Classifier, ClassifierMetric
from nc_lightning.options import Unpack


class NeuralCollapse(ClassifierMetric):
    """Compute every measure of `nc_lightning.geometry.measure` over batches, as a flat dict.

    ``within_class_variation`` and ``ncc_accuracy`` compare features with class centers, which must be known in advance.
    They are exact with ``centers``, which come from a first pass over the same features (``metric.statistics``) or, for
    held-out features, from the training set. Without ``centers`` they are exact if a single update on a single process
    has all features, whose class means then serve as centers; otherwise they are NaN. With a ``classifier`` the dict
    also has ``nc3`` and ``nc4``; see `NC3` and `NC4`.

    Args:
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        centers: Statistics whose class means are the centers.
        classifier: A linear layer, or its weight (C, d) and bias (C,).
        **kwargs: ``dataset_size``, see `ClassStatisticsMetric`, and the arguments of `torchmetrics.Metric`.

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

    keys = (*STATISTICS_MEASURES, *CENTER_MEASURES)
    sums = ("distances", "correct", "mismatches")

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        centers: ClassStatistics | None = None,
        classifier: Classifier | None = None,
        **kwargs: Unpack[StatisticsOptions],
    ) -> None:
        if classifier is not None:
            self.keys = (*self.keys, "nc3", "nc4")
        super().__init__(num_classes, feature_dim, classifier, centers, **kwargs)

    def _look(self, parts: dict[str, Tensor], z: Tensor, labels: Tensor) -> None:
        if len(z) == 0:
            return
        centers = self.centers
        if centers is None and int(parts["offered"]) == 0:
            centers = statistics_of(parts)
        if centers is None:
            for name in self.sums:
                parts[name].fill_(torch.nan)
            return
        to_centers = CenterDistances(centers.to(z.device)).update(z, labels)
        parts["distances"] += to_centers.distances.to(parts["distances"])
        parts["correct"] += to_centers.correct.to(parts["correct"])
        if "nc4" in self.keys:
            self._count_mismatches(parts["mismatches"], z, labels, to_centers)

    def _of_all_processes(self, state: Tensor, group: Any = None) -> list[Tensor]:
        (merged,) = super()._of_all_processes(state, group)
        if self.centers is None:
            for name in self.sums:  # each process only has the distances to its own class means
                self._parts(merged)[name].fill_(torch.nan)
        return [merged]

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        if not stats.present.any() or key in STATISTICS_MEASURES or key == "nc3":
            return super()._measure(key, stats)
        sums = {name: self._sum(name).cpu() for name in self.sums}
        if key == "nc4":
            return sums["mismatches"].sum() / stats.counts.sum()
        to_centers = CenterDistances.from_state(stats, stats.counts, sums["distances"], sums["correct"])
        return CENTER_MEASURES[key](to_centers)


class NC1(ClassStatisticsMetric):
    """Compute NC1, within-class over between-class variance, tr Sigma_W / tr Sigma_B. Range [0, inf], ideal 0.

    See `ClassStatisticsMetric` for args and errors, and `nc_lightning.geometry.nc1` for the definition.

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
    """Compute NC2, the deviation of the class means from a simplex ETF: a dict of four measures, each ideally 0.

    See `ClassStatisticsMetric` for args and errors, and `nc_lightning.geometry` for the definitions.

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
    """Compute the effective rank of the centered class means, which is low under dimensional collapse.

    Range [0, min(C - 1, d)], ideal C - 1. See `ClassStatisticsMetric` for args and errors, and
    `nc_lightning.geometry.class_mean_effective_rank` for the definition.

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


class Spectrum(ClassStatisticsMetric):
    """Compute the sorted eigenvalues (min(C, d),) of the class means' covariance over the largest.

    Ideal C - 1 ones and a zero. See `ClassStatisticsMetric` for args and errors, and
    `nc_lightning.geometry.class_mean_spectrum` for the definition.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> metric = Spectrum(num_classes=3, feature_dim=2)
        >>> metric.update(simplex_etf(3, 2), torch.arange(3))
        >>> metric.compute()
        tensor([1.0000, 1.0000], dtype=torch.float64)
    """

    keys = ("spectrum",)

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        size = min(self.num_classes, self.feature_dim)
        if not stats.present.any():
            return stats.means.new_full((size,), torch.nan)
        spectrum = class_mean_spectrum(stats)
        return torch.nn.functional.pad(spectrum, (0, size - len(spectrum)))  # zeros for absent classes

    def _plot_steps(self, steps: list[Any], ax: Any) -> Any:
        from nc_lightning.plots import values as charts  # noqa: PLC0415 - matplotlib takes a second to import

        spectra = [each.detach().cpu() for each in steps]
        figure, axes = charts.new_axes(self.keys, 2) if ax is None else (None, ax)
        charts.draw_spectra(axes, spectra, max(1, min(self.num_classes - 1, self.feature_dim)))
        return figure, axes
