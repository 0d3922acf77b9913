"""Which samples of a batch are an anchor's positives and which its negatives."""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Negatives = Literal["other_classes", "all"]


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


def check_negatives(negatives: str) -> None:
    """Raise unless ``negatives`` is ``other_classes`` or ``all``.

    Raises:
        ValueError: If it is not.
    """
    if negatives not in get_args(Negatives):
        raise ValueError(f"negatives: got {negatives!r}, expected one of {', '.join(get_args(Negatives))}")


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
    check_negatives(negatives)
    same = labels[:, None] == labels
    other = ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    positives = same if include_self else same & other
    everyone = torch.ones_like(same) if include_self else other
    negative = ~same if negatives == "other_classes" else everyone
    return Pairs(positives, negative, positives.any(1) & negative.any(1))
