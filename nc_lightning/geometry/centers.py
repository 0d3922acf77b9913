"""Distances of features to class centers: what only a second look at the data can tell, once the centers are known."""

import torch
from torch import Tensor

from nc_lightning.checks import check_features, check_labels, check_values
from nc_lightning.geometry.placement import in_float64, outside_inference
from nc_lightning.geometry.statistics import ClassStatistics


class CenterDistances:
    """Distances to given class centers, streamed: to the own center, and whether that is the nearest one.

    Args:
        centers: Statistics whose class means are the centers: of the same features for a measure of collapse, of the
            training features to classify held-out ones. Absent classes are no candidates.

    Attributes:
        counts: (C,) samples seen of each class.
        distances: (C,) sum of their Euclidean distances to their own center.
        correct: (C,) how many lie nearest to their own center; ties go to the lowest class.

    Raises:
        ValueError: If ``centers`` has seen no class.

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
        >>> centers = ClassStatistics(2, 2).update(z, labels)
        >>> to_centers = CenterDistances(centers).update(z, labels)
        >>> to_centers.distances.tolist(), to_centers.correct.tolist()
        ([2.0, 0.0], [2.0, 1.0])
    """

    def __init__(self, centers: ClassStatistics) -> None:
        if not centers.present.any():
            raise ValueError("centers: got statistics without a sample, expected at least one class")
        self.centers = centers
        self.counts = torch.zeros_like(centers.counts)
        self.distances = torch.zeros_like(centers.counts)
        self.correct = torch.zeros_like(centers.counts)

    @classmethod
    def from_state(
        cls, centers: ClassStatistics, counts: Tensor, distances: Tensor, correct: Tensor
    ) -> "CenterDistances":
        """Wrap sums that were kept elsewhere."""
        to_centers = cls(centers)
        to_centers.counts, to_centers.distances, to_centers.correct = counts, distances, correct
        return to_centers

    @torch.no_grad()
    def update(self, z: Tensor, labels: Tensor) -> "CenterDistances":
        """Add a batch, in place, with the arguments and errors of `ClassStatistics.update`; return itself."""
        check_features(z)
        check_labels(labels, len(z))
        place = self.centers.means.device
        z, labels = in_float64(z.detach(), place), labels.to(place, torch.int64)
        check_values(z, labels, self.centers.num_classes)
        state = (self.counts, self.distances, self.correct)
        self.counts, self.distances, self.correct = (outside_inference(t) for t in state)
        with torch.autocast(z.device.type, enabled=False):
            own = torch.linalg.vector_norm(z - self.centers.means[labels], dim=1)
            self.counts.index_add_(0, labels, torch.ones_like(own))
            self.distances.index_add_(0, labels, own)
            self.correct.index_add_(0, labels, (self.nearest(z) == labels).to(own))
        return self

    def nearest(self, z: Tensor) -> Tensor:
        """(N,) label of the nearest center; both are centered first, or a common offset would cancel the digits."""
        candidates, origin, centers = self.centers.remember("candidates", self._candidates)
        z = z - origin
        return candidates[(centers.square().sum(1) - 2 * z @ centers.T).argmin(1)]

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """(P,) labels of the centers there are, their mean, and the centers (P, d) less that."""
        candidates = torch.nonzero(self.centers.present).squeeze(1)
        centers = self.centers.means[candidates]
        origin = centers.mean(0)
        return candidates, origin, centers - origin


def within_class_variation(to_centers: CenterDistances) -> Tensor:
    """Mean over classes of the mean distance (not squared) of a class to its center.

    Range [0, 2] on the unit ball, ideal 0; NaN without samples. The paper's within-class variation
    (arXiv 2311.05139) when the centers are the class means of the same features.

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
        >>> centers = ClassStatistics(2, 2).update(z, labels)
        >>> within_class_variation(CenterDistances(centers).update(z, labels)).item()
        0.5
    """
    present = to_centers.counts > 0
    return (to_centers.distances[present] / to_centers.counts[present]).mean()


def ncc_accuracy(to_centers: CenterDistances) -> Tensor:
    """Nearest-class-center accuracy: the share of samples that lie nearest to the center of their own class.

    Range [0, 1], ideal 1; NaN without samples. By Euclidean distance, as in Papyan, Han, Donoho (2020), NC4.

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
        >>> centers = ClassStatistics(2, 2).update(z, labels)
        >>> ncc_accuracy(CenterDistances(centers).update(z, labels)).item()
        1.0
    """
    return to_centers.correct.sum() / to_centers.counts.sum()
