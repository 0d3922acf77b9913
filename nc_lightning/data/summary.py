"""What a data module logs at setup: classes, splits and their origins, and what was passed over."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nc_lightning.data.finding import PassedOver


def summarize(
    splits: Mapping[Any, Any],
    num_classes: int,
    class_names: Sequence[str] | None,
    origins: Mapping[Any, str],
    passed_over: PassedOver,
) -> str:
    """Return the summary of a data set, a line for each split.

    Args:
        splits: Sets with ``labels`` (n,), by name.
        num_classes: Number of classes.
        class_names: Their names, if they have any.
        origins: Where each split comes from.
        passed_over: What was not read.

    Example:
        >>> import torch
        >>> from nc_lightning.data.loader import LabelledTensors
        >>> train = LabelledTensors(torch.zeros(5, 2), torch.tensor([0, 0, 0, 1, 1]))
        >>> print(summarize({"train": train}, 2, ["ant", "bee"], {"train": "/insects"}, PassedOver()))
        data: 2 classes, 'ant' to 'bee'
          train: 5 inputs, 2 to 3 of each class (/insects)
    """
    named = "" if class_names is None else f", {class_names[0]!r} to {class_names[-1]!r}"
    lines = [f"data: {num_classes} classes{named}"]
    for split, images in splits.items():
        origin = f" ({origins[split]})" if split in origins else ""
        lines.append(f"  {split}: {_counts(images.labels, num_classes, class_names)}{origin}")
    if passed_over.counts:
        lines.append(f"  passed over: {passed_over}")
    return "\n".join(lines)


def _counts(labels: Tensor, num_classes: int, class_names: Sequence[str] | None) -> str:
    total = f"{len(labels)} inputs"
    if len(labels) == 0 or int(labels.min()) < 0:
        return f"{total}, unlabelled" if len(labels) else total
    counts = labels.bincount(minlength=num_classes)
    least, most = int(counts.min()), int(counts.max())
    text = f"{total}, {least} of each class" if least == most else f"{total}, {least} to {most} of each class"
    if least == 0:
        first = int((counts == 0).nonzero()[0])
        name = first if class_names is None else class_names[first]
        text += f", none of {int((counts == 0).sum())} classes ({name!r} first)"
    return text
