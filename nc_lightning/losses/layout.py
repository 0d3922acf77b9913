"""Who is whose positive and negative in a batch sorted by label, where a class is a window and needs no mask."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.losses.pairs import Negatives


class Layout(NamedTuple):
    """The N samples of a batch sorted by label, and behind them M past ones by label, which are negatives only.

    Attributes:
        order: (N,) where the sorted samples were before.
        past_order: (M,) the same of the past ones.
        label: (N + M,)
        anchor_label: Of each anchor; all samples are anchors but for `of_anchors`.
        position: Of each anchor, where it stands among the sorted samples; None if all are anchors.
        first: Of each anchor, where its class begins in the batch.
        end: Of each anchor, where its class ends in the batch.
        past_first: Of each anchor, where its class begins behind the batch.
        past_end: Of each anchor, where its class ends behind the batch.
        num_negatives: Of each anchor.
        usable: Of each anchor, whether it has a positive and a negative; pairs are theirs.
        num_pairs: How many pairs there are in the whole batch.
        other_classes: Whether only samples of other classes are negatives.
        include_self: Whether an anchor is its own positive, and among all its own negative.
    """

    order: Tensor
    past_order: Tensor
    label: Tensor
    anchor_label: Tensor
    position: Tensor | None
    first: Tensor
    end: Tensor
    past_first: Tensor
    past_end: Tensor
    num_negatives: Tensor
    usable: Tensor
    num_pairs: int
    other_classes: bool
    include_self: bool

    def windows_on_cpu(self) -> "Layout":
        """Return the same with the windows where reading one of their bounds does not wait for a device."""
        return self._replace(
            first=self.first.cpu(),
            end=self.end.cpu(),
            past_first=self.past_first.cpu(),
            past_end=self.past_end.cpu(),
        )

    def of_anchors(self, position: Tensor) -> "Layout":
        """Return the same with some of the samples as anchors, those at ``position`` in ascending order."""
        return self._replace(
            anchor_label=self.anchor_label[position],
            position=position,
            first=self.first[position],
            end=self.end[position],
            past_first=self.past_first[position],
            past_end=self.past_end[position],
            num_negatives=self.num_negatives[position],
            usable=self.usable[position],
        )

    def pairs_per_sample(self) -> Tensor:
        """Return how many pairs each sample (N,) is the anchor of, in the order from before it was sorted."""
        pairs = (self.end - self.first - int(not self.include_self)) * self.usable
        return torch.empty_like(pairs).index_copy_(0, self.order, pairs)

    def tiles(self, num_rows: int, num_columns: int) -> Iterator[tuple[slice, slice]]:
        """Cut the upper half of the matrix, and past columns: squares on the diagonal, then what holds any negative."""
        n = len(self.order)
        for rows in blocks(0, n, num_rows):
            yield rows, rows
            start = max(rows.stop, int(self.end[rows.start])) if self.other_classes else rows.stop
            for columns in blocks(start, n, num_columns):
                yield rows, columns
            for columns in blocks(n, len(self.label), num_columns):
                yield rows, columns

    def window(self, rows: slice) -> slice:
        """Return the columns that hold all positives of these rows."""
        return slice(int(self.first[rows.start]), int(self.end[rows.stop - 1]))

    def hide(self, tile: Tensor, rows: slice, columns: slice) -> None:
        """Set the entries of a tile that are not of negatives to -inf."""
        if self.other_classes:
            past = slice(int(self.past_first[rows.start]), int(self.past_end[rows.stop - 1]))
            for window in (self.window(rows), past):
                start, stop = max(columns.start, window.start), min(columns.stop, window.stop)
                if start < stop:
                    same = self.anchor_label[rows, None] == self.label[start:stop]
                    tile[:, start - columns.start : stop - columns.start].masked_fill_(same, -torch.inf)
        elif not self.include_self and columns.start < len(self.order):
            self._fill_selves(tile, rows, columns, -torch.inf)

    def no_positive(self, rows: slice) -> Tensor:
        """Return a mask of what in the window of these rows is not a positive."""
        window = self.window(rows)
        mask = self.anchor_label[rows, None] != self.label[window]
        if not self.include_self:
            self._fill_selves(mask, rows, window, True)
        return mask

    def _fill_selves(self, tile: Tensor, rows: slice, columns: slice, value: float) -> None:
        """Set the entries of anchors with themselves; where only some samples are anchors, the columns hold them."""
        if self.position is None:
            tile.diagonal(rows.start - columns.start).fill_(value)
        else:
            at = self.position[rows] - columns.start
            tile[torch.arange(len(at), device=at.device), at] = value

    def same_class(self) -> tuple[Tensor, Tensor]:
        """Return all (anchor, other) of the batch with the same label, an anchor with itself included: two of (P,)."""
        size = self.end - self.first
        position = torch.arange(len(size), device=size.device)
        anchor = position.repeat_interleave(size)
        before = size.cumsum(0) - size
        other = torch.arange(len(anchor), device=size.device) + (self.first - before)[anchor]
        return anchor, other


def sorted_layout(
    labels: Tensor, negatives: Negatives, include_self: bool, past: Tensor | None = None
) -> Layout | None:
    """Sort a batch and what is past.

    Args:
        labels: (N,) integers; equal labels are positives of each other.
        negatives: ``other_classes`` or ``all`` other samples.
        include_self: Count an anchor as its own positive, and among ``all`` as its own negative.
        past: (M,) labels of features that are negatives only.

    Returns:
        The layout, or None if no anchor has both a positive and a negative.

    Example:
        >>> layout = sorted_layout(torch.tensor([1, 0, 1]), "other_classes", False)
        >>> layout.label.tolist(), layout.first.tolist(), layout.end.tolist(), layout.usable.tolist()
        ([0, 1, 1], [0, 1, 1], [1, 3, 3], [False, True, True])
    """
    other_classes = negatives == "other_classes"
    label, order = labels.sort()
    past_label, past_order = labels.new_empty(0).sort() if past is None else past.sort()
    first, end = torch.searchsorted(label, label), torch.searchsorted(label, label, right=True)
    past_first = torch.searchsorted(past_label, label)
    past_end = torch.searchsorted(past_label, label, right=True)
    size, past_size = end - first, past_end - past_first
    myself = int(not include_self)
    num_negatives = len(label) + len(past_label) - (size + past_size if other_classes else myself)
    num_negatives = torch.as_tensor(num_negatives, device=label.device).expand(len(label))
    usable = (size > myself) & (num_negatives > 0)
    num_pairs = int(((size - myself) * usable).sum())
    if num_pairs == 0:
        return None
    past_first, past_end = past_first + len(label), past_end + len(label)
    everyone = torch.cat([label, past_label])
    return Layout(
        order, past_order, everyone, label, None, first, end, past_first, past_end, num_negatives, usable, num_pairs,
        other_classes, include_self,
    )  # fmt: skip


def blocks(start: int, stop: int, size: int) -> Iterator[slice]:
    """Cut [start, stop) into slices of at most a size."""
    return (slice(begin, min(begin + size, stop)) for begin in range(start, stop, size))
