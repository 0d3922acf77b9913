"""The summary that a data module logs at setup: classes, splits and their origins, and what was skipped."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


class PassedOver:
    """Count what is skipped, by reason, with the first of each as an example.

    Example:
        >>> passed_over = PassedOver()
        >>> passed_over.add("not an image", "notes.txt")
        >>> passed_over.add("not an image", "clip.mp4")
        >>> print(passed_over)
        2 not an image (notes.txt first)
    """

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, reason: str, what: object, count: int = 1) -> None:
        """Count something that is skipped."""
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count
            self._first.setdefault(reason, str(what))

    def __str__(self) -> str:
        return ", ".join(
            f"{count} {reason} ({self._first[reason]}{' first' if count > 1 else ''})"
            for reason, count in self.counts.items()
        )


def summarize(
    splits: Mapping[Any, Any], names: Sequence[str | int], origins: Mapping[Any, str], passed_over: PassedOver
) -> str:
    """Return the summary of a data set, with the size and the origin of each split on a line.

    Example:
        >>> import torch
        >>> from nc_lightning.data.loader import LabeledTensors
        >>> train = LabeledTensors(torch.zeros(5, 2), torch.tensor([0, 0, 0, 1, 1]))
        >>> print(summarize({"train": train}, ["ant", "bee"], {"train": "/insects"}, PassedOver()))
        data: 2 classes, 'ant' to 'bee'
          train: 5 inputs, 2 to 3 of each class (/insects)
    """
    lines = [f"data: {len(names)} classes, {names[0]!r} to {names[-1]!r}"]
    for split, images in splits.items():
        origin = f" ({origins[split]})" if split in origins else ""
        lines.append(f"  {split}: {_counts(images.labels, names)}{origin}")
    if passed_over.counts:
        lines.append(f"  skipped: {passed_over}")
    return "\n".join(lines)


def _counts(labels: Tensor, names: Sequence[str | int]) -> str:
    total = f"{len(labels)} inputs"
    if len(labels) == 0 or int(labels.min()) < 0:
        return f"{total}, unlabeled" if len(labels) else total
    counts = labels.bincount(minlength=len(names))
    least, most = int(counts.min()), int(counts.max())
    text = f"{total}, {least} of each class" if least == most else f"{total}, {least} to {most} of each class"
    if least == 0:
        empty = (counts == 0).nonzero().flatten().tolist()
        text += f", none of {len(empty)} classes ({names[empty[0]]!r} first)"
    return text
