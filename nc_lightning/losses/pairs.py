"""Which samples of a batch are an anchor's positives and which its negatives."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nc_lightning.checks import check_choice

Negatives = Literal["other_classes", "all"]
Positives = Literal["label", "view"]


class Pairs(NamedTuple):
    """Masks over all (anchor, other) pairs of N anchors with the batch and, behind it, what a queue holds.

    Attributes:
        positives: (N, M) bool.
        negatives: (N, M) bool.
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
        [3, 3, -3, -3]
    """
    if positives == "view":
        return torch.arange(len(labels), device=labels.device) if instances is None else instances
    if instances is None:
        alone = torch.arange(-1, -1 - len(labels), -1, device=labels.device)
    else:
        alone = -1 - instances.to(labels.device, torch.int64)
    return torch.where(labels >= 0, labels, alone)


def past_ids(labels: Tensor, positives: Positives) -> Tensor:
    """Reduce the labels of a queue to ids that compare with `positive_ids`.

    A queue does not record views: by ``view``, or with an unknown label, a past feature differs from every class.

    Example:
        >>> past_ids(torch.tensor([3, -1]), "label").tolist()
        [3, -9223372036854775808]
    """
    has_class = (labels >= 0) & (positives == "label")
    return torch.where(has_class, labels, torch.iinfo(torch.long).min)


def label_pairs(
    labels: Tensor,
    negatives: Negatives,
    include_self: bool = False,
    past: Tensor | None = None,
    rows: slice = slice(None),
) -> Pairs:
    """Pair the samples of a batch by their labels.

    | objective  | positives of i    | negatives of i, ``negatives=``        | self pairs                       |
    |------------|-------------------|---------------------------------------|----------------------------------|
    | SCL, HSCL  | same label, j != i| other labels, ``other_classes``       | positive with ``include_self``   |
    | UCL, HUCL  | same label, j != i| every other sample, ``all``           | both with ``include_self``       |

    Args:
        labels: (N,) integers; equal labels are positives of each other.
        negatives: Which samples are negatives.
        include_self: Count an anchor as its own positive, and among ``all`` as its own negative, as the paper's code.
        past: (M,) labels of features that are negatives only, behind the samples of the batch.
        rows: Which samples are anchors.

    Returns:
        The masks, with as many rows as there are anchors, and N + M columns.

    Example:
        >>> label_pairs(torch.tensor([0, 0, 1]), "other_classes").positives.int()
        tensor([[0, 1, 0],
                [1, 0, 0],
                [0, 0, 0]], dtype=torch.int32)
    """
    check_choice("negatives", negatives, Negatives)
    n = len(labels)
    columns = labels if past is None else torch.cat([labels, past])
    same = labels[rows, None] == columns
    position = torch.arange(len(columns), device=labels.device)
    other = position[:n][rows, None] != position
    positives = same & (position < n) if include_self else same & (position < n) & other
    everyone = torch.ones_like(same) if include_self else other
    negative = ~same if negatives == "other_classes" else everyone
    return Pairs(positives, negative, positives.any(1) & negative.any(1))
