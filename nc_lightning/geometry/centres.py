"""Distances of features to class centres: what only a second look at the data can tell, once the centres are known."""

import torch
from torch import Tensor

from nc_lightning.geometry.checks import check_features, check_labels, check_values
from nc_lightning.geometry.placement import in_float64, outside_inference
from nc_lightning.geometry.statistics import ClassStatistics


class CentreDistances:
    """Distances to given class centres, streamed: to the own centre, and whether that is the nearest one.

    Args:
        centres: Statistics whose class means are the centres: of the same features for a measure of collapse, of the
            training features to classify held-out ones. Absent classes are no candidates.

    Attributes:
        counts: (C,) samples seen of each class.
        distances: (C,) sum of their Euclidean distances to their own centre.
        correct: (C,) how many lie nearest to their own centre; ties go to the lowest class.

    Raises:
        ValueError: If ``centres`` has seen no class.

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
        >>> centres = ClassStatistics(2, 2).update(z, labels)
        >>> seen = CentreDistances(centres).update(z, labels)
        >>> seen.distances.tolist(), seen.correct.tolist()
        ([2.0, 0.0], [2.0, 1.0])
    """

    def __init__(self, centres: ClassStatistics) -> None:
        if not centres.present.any():
            raise ValueError("centres: got statistics without a sample, expected at least one class")
        self.centres = centres
        self.counts = torch.zeros_like(centres.counts)
        self.distances = torch.zeros_like(centres.counts)
        self.correct = torch.zeros_like(centres.counts)

    @classmethod
    def from_state(
        cls, centres: ClassStatistics, counts: Tensor, distances: Tensor, correct: Tensor
    ) -> "CentreDistances":
        """Wrap sums that were kept elsewhere."""
        seen = cls(centres)
        seen.counts, seen.distances, seen.correct = counts, distances, correct
        return seen

    @torch.no_grad()
    def update(self, z: Tensor, labels: Tensor) -> "CentreDistances":
        """Add a batch, in place.

        Args:
            z: Features (N, d) of any floating-point dtype.
            labels: Classes (N,), integers in [0, C).

        Returns:
            Itself.

        Raises:
            TypeError: If ``z`` is not floating point or ``labels`` not integer.
            ValueError: If shapes do not fit, a label lies outside [0, C), or a feature is NaN or infinite.
        """
        check_features(z)
        check_labels(labels, len(z))
        place = self.centres.means.device
        z, labels = in_float64(z.detach(), place), labels.to(place, torch.int64)
        check_values(z, labels, self.centres.num_classes)
        state = (self.counts, self.distances, self.correct)
        self.counts, self.distances, self.correct = (outside_inference(t) for t in state)
        with torch.autocast(z.device.type, enabled=False):
            own = torch.linalg.vector_norm(z - self.centres.means[labels], dim=1)
            self.counts.index_add_(0, labels, torch.ones_like(own))
            self.distances.index_add_(0, labels, own)
            self.correct.index_add_(0, labels, (self.nearest(z) == labels).to(own))
        return self

    def nearest(self, z: Tensor) -> Tensor:
        """(N,) label of the nearest centre; both are centred first, or a common offset would cancel the digits."""
        candidates, origin, centres = self.centres.remember("candidates", self._candidates)
        z = z - origin
        return candidates[(centres.square().sum(1) - 2 * z @ centres.T).argmin(1)]

    def _candidates(self) -> tuple[Tensor, Tensor, Tensor]:
        """(P,) labels of the centres there are, their mean, and the centres (P, d) less that."""
        candidates = torch.nonzero(self.centres.present).squeeze(1)
        centres = self.centres.means[candidates]
        origin = centres.mean(0)
        return candidates, origin, centres - origin


def within_class_variation(seen: CentreDistances) -> Tensor:
    """Mean over classes of the mean distance (not squared) of a class to its centre.

    Range [0, 2] on the unit ball, ideal 0; NaN without samples. The paper's within-class variation
    (arXiv 2311.05139) when the centres are the class means of the same features.

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
        >>> centres = ClassStatistics(2, 2).update(z, labels)
        >>> within_class_variation(CentreDistances(centres).update(z, labels)).item()
        0.5
    """
    present = seen.counts > 0
    return (seen.distances[present] / seen.counts[present]).mean()


def ncc_accuracy(seen: CentreDistances) -> Tensor:
    """Nearest-class-centre accuracy: the share of samples that lie nearest to the centre of their own class.

    Range [0, 1], ideal 1; NaN without samples. By Euclidean distance, as in Papyan, Han, Donoho (2020), NC4.

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 0, 1])
        >>> centres = ClassStatistics(2, 2).update(z, labels)
        >>> ncc_accuracy(CentreDistances(centres).update(z, labels)).item()
        1.0
    """
    return seen.correct.sum() / seen.counts.sum()
