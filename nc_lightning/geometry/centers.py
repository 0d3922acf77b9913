"""Distances of features to class centers; these need a second pass over the data, once the centers are known."""

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, as_labels, check_features, check_labels, check_values
from nc_lightning.geometry.blocks import row_blocks
from nc_lightning.geometry.placement import in_float64, outside_inference
from nc_lightning.geometry.statistics import ClassStatistics


class CenterDistances:
    """Streaming sums over samples: the distance to the center of their class, and whether it is the nearest center.

    Args:
        centers: Statistics whose class means are the centers: those of the same features to measure collapse, or of
            the training features to classify held-out ones. Absent classes are not candidates.

    Attributes:
        counts: Number (C,) of samples of each class.
        distances: Sum (C,) of their Euclidean distances to the center of their class.
        correct: Number (C,) of samples nearest to the center of their class; ties go to the lowest class.

    Raises:
        ValueError: If ``centers`` has no samples.

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
        """Wrap the three tensors of sums without copying them."""
        to_centers = cls(centers)
        to_centers.counts, to_centers.distances, to_centers.correct = counts, distances, correct
        return to_centers

    @torch.no_grad()
    def update(self, z: Array, labels: Array) -> "CenterDistances":
        """Add a batch in place; arguments and errors are those of `ClassStatistics.update`. Return self."""
        z, labels = as_features(z), as_labels(labels)
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
        """Return the label (N,) of the nearest center, shifted first so that a common offset costs no precision."""
        candidates, origin, centers = self.centers.remember("candidates", self._candidates)
        offsets = centers.square().sum(1)
        nearest = candidates.new_empty(len(z))
        for rows in row_blocks(len(z), len(centers)):
            nearest[rows] = candidates[torch.addmm(offsets, z[rows] - origin, centers.T, alpha=-2).argmin(1)]
        return nearest

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the labels (P,) of the present classes, the mean of their centers, and the centers (P, d) minus it."""
        candidates = torch.nonzero(self.centers.present).squeeze(1)
        centers = self.centers.means[candidates]
        origin = centers.mean(0)
        return candidates, origin, centers - origin


def within_class_variation(to_centers: CenterDistances) -> Tensor:
    """Compute the mean over classes of the mean distance (not squared) of samples to their class center.

    Range [0, 2] in the unit ball, ideal 0; NaN without samples. If the centers are the class means of the same
    features, it is the paper's within-class variation (arXiv 2311.05139).

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
        >>> centers = ClassStatistics(2, 2).update(z, labels)
        >>> within_class_variation(CenterDistances(centers).update(z, labels)).item()
        0.5
    """
    present = to_centers.counts > 0
    return (to_centers.distances[present] / to_centers.counts[present]).mean()


def ncc_accuracy(to_centers: CenterDistances) -> Tensor:
    """Compute the nearest-class-center accuracy: the share of samples nearest to the center of their own class.

    Range [0, 1], ideal 1; NaN without samples. Distances are Euclidean, as in Papyan, Han, Donoho (2020), NC4.

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
        >>> centers = ClassStatistics(2, 2).update(z, labels)
        >>> ncc_accuracy(CenterDistances(centers).update(z, labels)).item()
        1.0
    """
    return to_centers.correct.sum() / to_centers.counts.sum()
