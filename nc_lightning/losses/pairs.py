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


def ignores_labels(positives: Positives, negatives: Negatives) -> bool:
    """Check whether a loss makes no use of labels: positives are views, and negatives are all other samples.

    Example:
        >>> ignores_labels("view", "all"), ignores_labels("view", "other_classes")
        (True, False)
    """
    return positives == "view" and negatives == "all"


def sample_ids(labels: Tensor, instances: Tensor | None, positives: Positives, negatives: Negatives) -> Tensor:
    """Compute the positive id of each sample and, where they differ from it, its class id.

    Samples with equal positive ids are each other's positives, and samples with different class ids are of other
    classes. By ``label`` the two ids are the same.

    Args:
        labels: Classes (N,), integers, negative where unknown.
        instances: Sample ids (N,), integers >= 0, equal for views of the same sample; None if every row is a separate
            sample.
        positives: ``label``, where the only positives of an unlabeled sample are its own views; or ``view``.
        negatives: ``other_classes`` or ``all`` other samples, for which class ids are not needed.

    Returns:
        Positive ids (N, 1) of type int64, or positive and class ids (N, 2).

    Example:
        >>> labels, instances = torch.tensor([3, 3, -1, -1]), torch.tensor([0, 1, 2, 2])
        >>> sample_ids(labels, instances, "label", "other_classes").T.tolist()
        [[3, 3, -3, -3]]
        >>> sample_ids(labels, instances, "view", "other_classes").T.tolist()
        [[0, 1, 2, 2], [3, 3, -3, -3]]
    """
    if positives == "label":
        return _class_ids(labels, instances).to(torch.int64)[:, None]
    ids = torch.arange(len(labels), device=labels.device) if instances is None else instances.to(torch.int64)
    if ignores_labels(positives, negatives):
        return ids[:, None]
    classes = _class_ids(labels, instances)
    return torch.stack([ids.to(classes.device), classes.to(torch.int64)], 1)


def _class_ids(labels: Tensor, instances: Tensor | None) -> Tensor:
    """Return the labels (N,), with a negative id of its own for each unlabeled sample."""
    if instances is None:
        alone = torch.arange(-1, -1 - len(labels), -1, device=labels.device)
    else:
        alone = -1 - instances.to(labels.device, torch.int64)
    return torch.where(labels >= 0, labels, alone)


def past_ids(labels: Tensor, positives: Positives, negatives: Negatives) -> Tensor:
    """Convert the labels of a queue to ids comparable with the class ids of `sample_ids`.

    A queue does not record which sample a feature came from, so where its label is unknown or ignored, a past feature
    is a negative of every anchor.

    Example:
        >>> past_ids(torch.tensor([3, -1]), "view", "other_classes").tolist()
        [3, -9223372036854775808]
    """
    has_class = (labels >= 0) & (not ignores_labels(positives, negatives))
    return torch.where(has_class, labels, torch.iinfo(torch.long).min)


def label_pairs(
    ids: Tensor,
    negatives: Negatives,
    include_self: bool = False,
    past: Tensor | None = None,
    rows: slice = slice(None),
    classes: Tensor | None = None,
) -> Pairs:
    """Compute the masks of positives and negatives from labels.

    | objective  | positives of i   | negatives of i, ``negatives=``  | self pairs                     |
    |------------|------------------|---------------------------------|--------------------------------|
    | SCL, HSCL  | same id, j != i  | other classes, ``other_classes``| positive with ``include_self`` |
    | UCL, HUCL  | same id, j != i  | every other sample, ``all``     | both with ``include_self``     |

    By ``label`` an id is a class. By ``view`` it is the sample that a row is a view of; other samples of the anchor's
    class are then neither positives nor, for SCL and HSCL, negatives.

    Args:
        ids: Positive ids (N,), integers; samples with equal ids (and classes) are each other's positives.
        negatives: ``other_classes`` or ``all`` other samples.
        include_self: Count an anchor as its own positive, and among ``all`` as its own negative, as the paper's code.
        past: Class ids (M,) of the queue; its features are negatives only and follow the samples of the batch.
        rows: Slice of the samples that are anchors.
        classes: Class ids (N,), integers; None if the positive ids are the classes.

    Returns:
        The masks, with one row per anchor and N + M columns.

    Example:
        >>> label_pairs(torch.tensor([0, 0, 1]), "other_classes").positives.int()
        tensor([[0, 1, 0],
                [1, 0, 0],
                [0, 0, 0]], dtype=torch.int32)
    """
    check_choice("negatives", negatives, Negatives)
    n, label = len(ids), ids if classes is None else classes
    columns = label if past is None else torch.cat([label, past])
    same = label[rows, None] == columns
    position = torch.arange(len(columns), device=ids.device)
    other = position[:n][rows, None] != position
    positives = same & (position < n) if include_self else same & (position < n) & other
    if classes is not None:
        positives[:, :n] &= ids[rows, None] == ids
    everyone = torch.ones_like(same) if include_self else other
    negative = ~same if negatives == "other_classes" else everyone
    return Pairs(positives, negative, positives.any(1) & negative.any(1))
