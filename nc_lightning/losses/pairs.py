"""Which samples of a batch are an anchor's positives and which its negatives."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nc_lightning.geometry.checks import check_choice

Negatives = Literal["other_classes", "all"]
Positives = Literal["label", "view"]


class Pairs(NamedTuple):
    """Masks over all (anchor, other) pairs of a batch.

    Attributes:
        positives: (N, N) bool, symmetric.
        negatives: (N, N) bool, symmetric.
        anchors: (N,) bool, anchors with at least one positive and one negative; the others contribute nothing.
    """

    positives: Tensor
    negatives: Tensor
    anchors: Tensor

    def usable(self) -> tuple[Tensor, Tensor]:
        """Indices (P,) of the anchors and (P,) of the positives of all usable pairs."""
        anchor, positive = torch.nonzero(self.positives & self.anchors[:, None], as_tuple=True)
        return anchor, positive


def positive_ids(labels: Tensor, instances: Tensor | None, positives: Positives) -> Tensor:
    """Reduce labels and views to one id for each sample: equal ids are each other's positives.

    Args:
        labels: (N,) integers, negative where unknown.
        instances: (N,) integers >= 0, equal for views of the same sample; None if every row is a sample of its own.
        positives: By ``label``, where an unknown one leaves the sample to its own views; or by ``view`` alone.

    Returns:
        (N,) integers.

    Example:
        >>> positive_ids(torch.tensor([3, 3, -1, -1]), torch.tensor([0, 1, 2, 2]), "label").tolist()
        [3, 3, 6, 6]
    """
    if instances is None:
        instances = torch.arange(len(labels), device=labels.device)
    if positives == "view" or len(labels) == 0:
        return instances
    return torch.where(labels >= 0, labels, labels.max().clamp(min=0) + 1 + instances.to(labels.device))


def any_usable(ids: Tensor, negatives: Negatives, include_self: bool = False) -> bool:
    """Tell whether any anchor has both a positive and a negative, from the sizes of the classes alone.

    Example:
        >>> any_usable(torch.tensor([0, 0, 1]), "other_classes"), any_usable(torch.tensor([0, 0]), "other_classes")
        (True, False)
    """
    sizes = ids.unique(return_counts=True)[1]
    positive = len(ids) > 0 and (include_self or int(sizes.max()) > 1)
    return positive and (len(sizes) > 1 if negatives == "other_classes" else include_self or len(ids) > 1)


def label_pairs(labels: Tensor, negatives: Negatives, include_self: bool = False) -> Pairs:
    """Pair the samples of a batch by their labels.

    | objective  | positives of i    | negatives of i, ``negatives=``        | self pairs                       |
    |------------|-------------------|---------------------------------------|----------------------------------|
    | SCL, HSCL  | same label, j != i| other labels, ``other_classes``       | positive with ``include_self``   |
    | UCL, HUCL  | same label, j != i| every other sample, ``all``           | both with ``include_self``       |

    Args:
        labels: (N,) integers; equal labels are positives of each other.
        negatives: Which samples are negatives.
        include_self: Count an anchor as its own positive, and among ``all`` as its own negative, as the paper's code.

    Returns:
        The masks.

    Example:
        >>> label_pairs(torch.tensor([0, 0, 1]), "other_classes").positives.int()
        tensor([[0, 1, 0],
                [1, 0, 0],
                [0, 0, 0]], dtype=torch.int32)
    """
    check_choice("negatives", negatives, Negatives)
    same = labels[:, None] == labels
    other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positives = same if include_self else same & other
    everyone = torch.ones_like(same) if include_self else other
    negative = ~same if negatives == "other_classes" else everyone
    return Pairs(positives, negative, positives.any(1) & negative.any(1))
