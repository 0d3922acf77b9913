"""The second pass over the features of a layer, once its class means are known, and the measures of both passes."""

from typing import Any

import torch
from torch import Tensor

from nc_lightning.geometry import (
    CenterDistances,
    ClassStatistics,
    distance_to_optimum,
    nc3,
    nc4_mismatches,
    statistics_measures,
)
from nc_lightning.geometry.centers import ncc_accuracy, within_class_variation


class SecondPass:
    """Sums over the samples of a set: distances to class centers, and disagreement with a linear classifier.

    Args:
        stats: Class statistics of the set.
        centers: Class statistics of the training set, whose class means classify the samples; they may be ``stats``.
        classifier: Linear layer with ``weight`` and ``bias``; None to leave out ``nc3`` and ``nc4``.
        gram: Gram matrix of the class means at the minimum of the loss; None to leave out ``distance_to_optimum``.
    """

    def __init__(
        self, stats: ClassStatistics, centers: ClassStatistics, classifier: Any = None, gram: Tensor | None = None
    ) -> None:
        self.stats, self.centers, self.classifier, self.gram = stats, centers, classifier, gram
        self._to_own = CenterDistances(stats)
        self._to_given = self._to_own if centers is stats else CenterDistances(centers)
        self._looks = [self._to_own] if centers is stats else [self._to_own, self._to_given]
        self._disagree = stats.counts.new_zeros(1)

    def update(self, z: Tensor, labels: Tensor) -> None:
        """Add a batch."""
        for look in self._looks:
            look.update(z, labels)
        if self.classifier is not None:
            self._disagree += nc4_mismatches(z, self.classifier.weight, self.classifier.bias, self._to_given).sum()

    def sums(self) -> list[Tensor]:
        """Return the sums, to be added over processes in place."""
        of_looks = (total for look in self._looks for total in (look.counts, look.distances, look.correct))
        return [self._disagree, *of_looks]

    def values(self) -> dict[str, Tensor]:
        """Return every measure by its key."""
        values = statistics_measures(self.stats)
        if self.gram is not None:
            values["distance_to_optimum"] = self._distance(self.gram)
        values["within_class_variation"] = within_class_variation(self._to_own)
        values["ncc_accuracy"] = ncc_accuracy(self._to_given)
        if self.classifier is not None:
            values["nc3"] = nc3(self.stats, self.classifier.weight)
            values["nc4"] = self._disagree[0] / self.stats.num_samples
        return values

    def _distance(self, gram: Tensor) -> Tensor:
        """Return the distance to the optimum; NaN without all classes of the optimum, which are those in training."""
        present = self.stats.present.cpu()
        if len(gram) != int(present.sum()) or not torch.equal(present, self.centers.present.cpu()):
            return torch.tensor(torch.nan, dtype=torch.float64)
        return distance_to_optimum(self.stats, gram)
