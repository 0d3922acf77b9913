"""Who is whose positive and negative in a batch sorted by label, where a class is a window and needs no mask."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.losses.pairs import Negatives


class Windows(NamedTuple):
    """Where the class of each anchor begins and ends, on the host, where reading a bound waits for no device.

    Attributes:
        first: Start of each anchor's class in the batch.
        end: End of each anchor's class in the batch.
        past_first: Start of each anchor's class in the past samples behind the batch.
        past_end: End of each anchor's class there.
        order: (N,) where the sorted samples of the batch were before.
    """

    first: Tensor
    end: Tensor
    past_first: Tensor
    past_end: Tensor
    order: Tensor

    @property
    def largest_class(self) -> int:
        """Number of samples of the largest class in the batch."""
        return int((self.end - self.first).max())


class SortedBatch(NamedTuple):
    """The N samples of a batch sorted by label, and behind them M past ones by label, which are negatives only.

    Attributes:
        order: (N,) where the sorted samples were before.
        past_order: (M,) the same of the past ones; None without any.
        label: (N + M,)
        anchor_label: Label of each anchor; all samples are anchors, except after `of_anchors`.
        position: Index of each anchor among the sorted samples; None if all are anchors.
        end: (N,) where the class of each sample ends in the batch.
        size: (N,) how many samples its class has there.
        negative_counts: Number of negatives of each anchor.
        windows: What of this is on the host.
        num_pairs: How many pairs there are in the whole batch.
        other_classes: Whether only samples of other classes are negatives.
        include_self: Whether an anchor is its own positive, and among all its own negative.
    """

    order: Tensor
    past_order: Tensor | None
    label: Tensor
    anchor_label: Tensor
    position: Tensor | None
    end: Tensor
    size: Tensor
    negative_counts: Tensor
    windows: Windows
    num_pairs: int
    other_classes: bool
    include_self: bool

    def of_anchors(self, own: slice) -> tuple["SortedBatch", Tensor]:
        """Return the same with some of the samples (of before sorting) as anchors, and where each was among them."""
        position, before = _inverse(self.order)[own].sort()
        at = _inverse(self.windows.order)[own].sort().values
        first, end, past_first, past_end, order = self.windows
        anchors = self._replace(
            anchor_label=self.anchor_label[position],
            position=position,
            negative_counts=self.negative_counts[position],
            windows=Windows(first[at], end[at], past_first[at], past_end[at], order),
        )
        return anchors, before

    def pairs_per_sample(self) -> Tensor:
        """Return how many pairs each sample (N,) is the anchor of, on the host, in the order from before."""
        pairs = self.windows.end - self.windows.first - int(not self.include_self)
        return torch.empty_like(pairs).index_copy_(0, self.windows.order, pairs)

    def pairs(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return the pairs of some anchors, by where these and their positives were before: two of (P,).

        In ascending order, as `torch.nonzero` would find them, for which the host would wait. ``rows`` are in the order
        from before sorting; anchors are counted from its start.
        """
        n, per_sample = len(self.order), self.pairs_per_sample()
        anchor, other = self.same_class()
        key = self.order[anchor] * n + self.order[other]
        if not self.include_self:
            key.masked_fill_(anchor == other, n * n)
        start = int(per_sample[: rows.start].sum())
        key = key.sort().values[start : start + int(per_sample[rows].sum())]
        return torch.div(key, n, rounding_mode="floor") - rows.start, key % n

    def tiles(self, num_rows: int, num_columns: int) -> Iterator[tuple[slice, slice]]:
        """Cut the upper half of the matrix, and past columns: squares on the diagonal, then what holds any negative."""
        n = len(self.order)
        for rows in slices(0, n, num_rows):
            yield rows, rows
            start = max(rows.stop, int(self.windows.end[rows.start])) if self.other_classes else rows.stop
            for columns in slices(start, n, num_columns):
                yield rows, columns
            for columns in slices(n, len(self.label), num_columns):
                yield rows, columns

    def window(self, rows: slice) -> slice:
        """Return the columns that hold all positives of these rows."""
        return slice(int(self.windows.first[rows.start]), int(self.windows.end[rows.stop - 1]))

    def hide(self, tile: Tensor, rows: slice, columns: slice) -> None:
        """Set the entries of a tile that are not of negatives to -inf."""
        if self.other_classes:
            past = slice(int(self.windows.past_first[rows.start]), int(self.windows.past_end[rows.stop - 1]))
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
        count = self.num_pairs + (0 if self.include_self else len(self.order))
        anchor = torch.repeat_interleave(self.size, output_size=count)
        other = torch.arange(count, device=anchor.device) + (self.end - self.size.cumsum(0))[anchor]
        return anchor, other


def sort_batch(
    labels: Tensor, negatives: Negatives, include_self: bool, past: Tensor | None = None
) -> SortedBatch | None:
    """Sort a batch and what is past; the host waits for the device once, for all that it has to know.

    Equations 12 and 13.

    Args:
        labels: (N,) integers; equal labels are positives of each other.
        negatives: ``other_classes`` or ``all`` other samples.
        include_self: Count an anchor as its own positive, and among ``all`` as its own negative.
        past: (M,) labels of features that are negatives only.

    Returns:
        The batch, or None if no anchor has both a positive and a negative.

    Example:
        >>> batch = sort_batch(torch.tensor([1, 0, 1]), "other_classes", False)
        >>> batch.label.tolist(), batch.windows.first.tolist(), batch.end.tolist(), batch.num_pairs
        ([0, 1, 1], [0, 1, 1], [1, 3, 3], 2)
    """
    other_classes, myself = negatives == "other_classes", int(not include_self)
    n = len(labels)
    label, order = labels.sort()
    first, end = torch.searchsorted(label, label), torch.searchsorted(label, label, right=True)
    bounds, everyone, past_order, total = [first, end, order], label, None, n
    if past is not None:
        past_label, past_order = past.sort()
        bounds += [torch.searchsorted(past_label, label), torch.searchsorted(past_label, label, right=True)]
        everyone, total = torch.cat([label, past_label]), n + len(past)
    on_host = torch.stack(bounds).cpu()
    past_first, past_end = on_host[3:] + n if past is not None else torch.full_like(on_host[:2], n)
    windows = Windows(on_host[0], on_host[1], past_first, past_end, on_host[2])
    num_pairs = int((windows.end - windows.first - myself).sum())
    # Only of a single class is nobody of another class, and then for no anchor.
    own_class = int(windows.end[0] - windows.first[0] + past_end[0] - past_first[0]) if n > 0 else 0
    if num_pairs == 0 or (other_classes and own_class == total):
        return None
    size = end - first
    negative_counts = total - size if other_classes else torch.full_like(size, total - myself)
    if other_classes and past is not None:
        negative_counts -= bounds[4] - bounds[3]
    return SortedBatch(
        order, past_order, everyone, label, None, end, size, negative_counts, windows, num_pairs, other_classes,
        include_self,
    )  # fmt: skip


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Cut [start, stop) into slices of at most a size."""
    return (slice(begin, min(begin + size, stop)) for begin in range(start, stop, size))


def _inverse(permutation: Tensor) -> Tensor:
    places = torch.arange(len(permutation), device=permutation.device)
    return torch.empty_like(permutation).index_copy_(0, permutation, places)
