"""NC3 and NC4 as torchmetrics: a linear classifier compared with the class means."""

from typing import Any

import torch
from torch import Tensor, nn

from nc_lightning.geometry import CenterDistances, ClassStatistics, nc3, nc4_mismatches
from nc_lightning.geometry.classifier import check_classifier
from nc_lightning.geometry.placement import in_float64
from nc_lightning.metrics.base import ClassStatisticsMetric, StatisticsOptions
from nc_lightning.options import Unpack

Classifier = nn.Linear | tuple[Tensor, Tensor | None]
"""A linear layer, or its weight (C, d) and bias (C,)."""


class ClassifierMetric(ClassStatisticsMetric):
    """Base of the metrics that use a linear classifier or class centers.

    Raises:
        ValueError: If the centers have another number of classes or dimension, or no samples; or if the classifier
            does not fit.
    """

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        classifier: Classifier | None,
        centers: ClassStatistics | None = None,
        **kwargs: Unpack[StatisticsOptions],
    ) -> None:
        if centers is not None:
            if tuple(centers.means.shape) != (num_classes, feature_dim):
                raise ValueError(
                    f"centers: got statistics of (num_classes, feature_dim) = {tuple(centers.means.shape)}, expected "
                    f"{(num_classes, feature_dim)}"
                )
            CenterDistances(centers)
        self.centers = centers
        # Hidden from nn.Module: this metric must not move, save or train the classifier.
        self.__dict__["_classifier"] = classifier
        if classifier is not None:
            check_classifier(*self.classifier, num_classes, feature_dim)
        super().__init__(num_classes, feature_dim, **kwargs)

    @property
    def classifier(self) -> tuple[Tensor, Tensor | None]:
        """Current weight (C, d) and bias (C,), or None without a bias; detached."""
        given: Classifier = self.__dict__["_classifier"]
        weight, bias = (given.weight, given.bias) if isinstance(given, nn.Linear) else given
        return weight.detach(), None if bias is None else bias.detach()

    def _settings(self) -> tuple[Any, ...]:
        return (*super()._settings(), id(self.centers), id(self.__dict__["_classifier"]))

    def _count_mismatches(self, sums: Tensor, z: Tensor, labels: Tensor, to_centers: CenterDistances) -> None:
        """Add to sums (C,) the number of samples of each class on which classifier and nearest center disagree."""
        wrong = in_float64(nc4_mismatches(z, *self.classifier, to_centers), sums.device)
        sums.index_add_(0, labels.to(wrong.device, torch.int64), wrong)

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        is_nc3 = key == "nc3" and bool(stats.present.any())
        return nc3(stats, self.classifier[0]) if is_nc3 else super()._measure(key, stats)


class NC3(ClassifierMetric):
    """Compute NC3, the distance between a linear classifier and the centered class means. Range [0, 2], ideal 0.

    See `nc_lightning.geometry.nc3` for the definition. The classifier is read in `compute`.

    Args:
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        classifier: A linear layer, such as that of an `OnlineLinearProbe`, or its weight (C, d) and bias (C,).
        **kwargs: ``dataset_size``, see `ClassStatisticsMetric`, and the arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If a size is below 1, or a shape does not fit.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> means = simplex_etf(4, 3)
        >>> metric = NC3(num_classes=4, feature_dim=3, classifier=(2 * means, None))
        >>> metric.update(means, torch.arange(4))
        >>> round(metric.compute().item(), 6)
        0.0
    """

    keys = ("nc3",)
    higher_is_better = False


class NC4(ClassifierMetric):
    """Compute NC4, the share of samples on which a linear classifier and the nearest class center disagree.

    Range [0, 1], ideal 0. See `nc_lightning.geometry.nc4_mismatches` for the definition. The classifier is read in
    `update`. The centers must be known in advance: use the ``statistics`` of another metric after a first pass, or
    those of the training set for held-out features. No features are kept.

    Args:
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        classifier: A linear layer, such as that of an `OnlineLinearProbe`, or its weight (C, d) and bias (C,).
        centers: Statistics whose class means are the centers.
        **kwargs: ``dataset_size``, see `ClassStatisticsMetric`, and the arguments of `torchmetrics.Metric`.

    Raises:
        ValueError: If a size is below 1, or a shape does not fit.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> means, labels = simplex_etf(4, 3), torch.arange(4)
        >>> first = NC3(4, 3, classifier=(means, None))
        >>> first.update(means, labels)
        >>> metric = NC4(4, 3, classifier=(means, torch.tensor([0.0, 0.0, 0.0, 9.0])), centers=first.statistics)
        >>> metric.update(means, labels)
        >>> metric.compute().item()
        0.75
    """

    keys = ("nc4",)
    higher_is_better = False
    sums = ("mismatches",)

    def __init__(
        self,
        num_classes: int,
        feature_dim: int,
        classifier: Classifier,
        centers: ClassStatistics,
        **kwargs: Unpack[StatisticsOptions],
    ) -> None:
        super().__init__(num_classes, feature_dim, classifier, centers, **kwargs)

    def _look(self, parts: dict[str, Tensor], z: Tensor, labels: Tensor) -> None:
        to_centers = CenterDistances(self.centers.to(z.device))  # type: ignore[union-attr]
        self._count_mismatches(parts["mismatches"], z, labels, to_centers)

    def _measure(self, key: str, stats: ClassStatistics) -> Tensor:
        return self._sum("mismatches").sum().cpu() / stats.counts.sum()
