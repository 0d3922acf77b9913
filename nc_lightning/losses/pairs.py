"""Positives and negatives of each anchor in a batch."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from nc_lightning.checks import check_choice

Negatives = Literal["other_classes", "all"]
Positives = Literal["label", "view"]


class Pairs(NamedTuple):
    """Masks over all pairs of N anchors with M samples: the batch, followed by the queue.

    Attributes:
        positives: Boolean mask (N, M).
        negatives: Boolean mask (N, M).
        anchors: Boolean mask (N,) of anchors with at least one positive and one negative; the others are skipped.
    """

    positives: Tensor
    negatives: Tensor
    anchors: Tensor

    def usable(self) -> tuple[Tensor, Tensor]:
        """Return the indices (P,) of the anchors and (P,) of the positives of all usable pairs."""
        anchor, positive = torch.nonzero(self.positives & self.anchors[:, None], as_tuple=True)
        return anchor, positive


def positive_ids(labels: Tensor, instances: Tensor | None, positives: Positives) -> Tensor:
    """Combine labels and views into one id per sample; samples with equal ids are each other's positives.

    Args:
        labels: Classes (N,), integers, negative where unknown.
        instances: Sample ids (N,), integers >= 0, equal for views of the same sample; None if every row is a separate
            sample.
        positives: ``label``, where the only positives of an unlabeled sample are its own views; or ``view``.

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
    """Convert the labels of a queue to ids comparable with `positive_ids`.

    A queue does not record which sample a feature came from, so by ``view``, or with an unknown label, a past feature
    is a negative of every anchor.

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
    """Compute the masks of positives and negatives from labels.

    | objective  | positives of i    | negatives of i, ``negatives=``        | self pairs                       |
    |------------|-------------------|---------------------------------------|----------------------------------|
    | SCL, HSCL  | same label, j != i| other labels, ``other_classes``       | positive with ``include_self``   |
    | UCL, HUCL  | same label, j != i| every other sample, ``all``           | both with ``include_self``       |

    Args:
        labels: Ids (N,), integers; samples with equal ids are each other's positives.
        negatives: ``other_classes`` or ``all`` other samples.
        include_self: Count an anchor as its own positive, and among ``all`` as its own negative, as the paper's code.
        past: Ids (M,) of the queue; its features are negatives only and follow the samples of the batch.
        rows: Slice of the samples that are anchors.

    Returns:
        The masks, with one row per anchor and N + M columns.

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
