"""A batch sorted by label, in which every class is a contiguous window, so that positives need no mask.

If positives are views of the same sample, they are a window within that of their class.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.losses.pairs import Negatives

Tile = tuple[slice, slice]
"""Rows and columns of a part of the similarity matrix."""


class Windows(NamedTuple):
    """Bounds for each anchor, on the CPU, so that reading one does not synchronize with the device.

    Attributes:
        first: Start of each anchor's positives in the batch, which it is among.
        end: End of each anchor's positives in the batch.
        class_first: Start of each anchor's class in the batch.
        class_end: End of each anchor's class in the batch.
        past_first: Start of each anchor's class in the queue, counted from the start of the batch.
        past_end: End of each anchor's class in the queue.
        order: Original positions (N,) of the sorted samples of the batch.
    """

    first: Tensor
    end: Tensor
    class_first: Tensor
    class_end: Tensor
    past_first: Tensor
    past_end: Tensor
    order: Tensor

    @property
    def widest(self) -> int:
        """Largest number of positives of an anchor, itself included."""
        return int((self.end - self.first).max())


class SortedBatch(NamedTuple):
    """The N samples of a batch sorted by label, followed by the M samples of the queue, which are negatives only.

    Attributes:
        order: Original positions (N,) of the sorted samples.
        past_order: Original positions (M,) of the sorted samples of the queue; None without a queue.
        label: Class ids (N + M,) of batch and queue.
        group: Positive ids (N, or more), equal for the samples that are each other's positives; ``label`` if by label.
        end: End (N,) of each sample's positives in the batch.
        size: Number (N,) of each sample's positives in the batch, itself included.
        negative_counts: Number of negatives of each anchor.
        windows: Bounds of the classes on the CPU.
        num_pairs: Number of pairs in the global batch.
        other_classes: Whether only samples of other classes are negatives.
        include_self: Whether an anchor is its own positive, and among ``all`` negatives its own negative.
    """

    order: Tensor
    past_order: Tensor | None
    label: Tensor
    group: Tensor
    end: Tensor
    size: Tensor
    negative_counts: Tensor
    windows: Windows
    num_pairs: int
    other_classes: bool
    include_self: bool

    @property
    def nested(self) -> bool:
        """Whether positives are only a part of their class."""
        return self.group is not self.label

    def unsorted(self, rows: Tensor) -> Tensor:
        """Return the rows (N, d) of the sorted samples in the original order."""
        return torch.empty_like(rows).index_copy_(0, self.order, rows)

    def class_sizes(self) -> tuple[int, ...]:
        """Return the sorted numbers of samples that are each other's positives, one for each such group."""
        sizes = self.windows.end - self.windows.first
        of_size = sizes.bincount().tolist()
        return tuple(size for size, samples in enumerate(of_size) for _ in range(samples // max(1, size)))

    def fewest_negatives(self) -> int:
        """Return the smallest number of negatives of an anchor that has a positive."""
        w, total = self.windows, len(self.label)
        own = w.class_end - w.class_first + w.past_end - w.past_first
        counts = total - (own if self.other_classes else torch.full_like(own, int(not self.include_self)))
        return int(counts[w.end - w.first > int(not self.include_self)].min())

    def pairs_per_sample(self) -> Tensor:
        """Return the number of pairs anchored at each sample (N,), on the CPU, in the original order."""
        pairs = self.windows.end - self.windows.first - int(not self.include_self)
        return torch.empty_like(pairs).index_copy_(0, self.windows.order, pairs)

    def pairs(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return the original positions (P,) of the anchors and (P,) of the positives of all pairs anchored in rows.

        They are in ascending order, as from `torch.nonzero`, which would synchronize with the device. ``rows`` refers
        to the original order; anchors are counted from its start.
        """
        own, before = _inverse(self.order)[rows], int(not self.include_self)
        count = int(self.pairs_per_sample()[rows].sum())
        sizes = self.size[own] - before
        anchor = torch.repeat_interleave(sizes, output_size=count)
        other = torch.arange(-before, count - before, device=anchor.device)
        other += (self.end[own] - sizes.cumsum(0))[anchor]
        if not self.include_self:
            other += other >= own[anchor]
        return anchor, self.order[other]

    def tiles(self, num_rows: int, num_columns: int) -> Iterator[Tile]:
        """Yield tiles of the upper triangle and the queue: squares on the diagonal, then all that hold a negative."""
        n = len(self.order)
        for rows in slices(0, n, num_rows):
            yield rows, rows
            start = max(rows.stop, int(self.windows.class_end[rows.start])) if self.other_classes else rows.stop
            for columns in slices(start, n, num_columns):
                yield rows, columns
            for columns in slices(n, len(self.label), num_columns):
                yield rows, columns

    def window(self, rows: slice) -> slice:
        """Return the range of columns that holds all positives of these rows."""
        return slice(int(self.windows.first[rows.start]), int(self.windows.end[rows.stop - 1]))

    def hide(self, tile: Tensor, rows: slice, columns: slice, value: float = -torch.inf) -> None:
        """Set the entries of a tile that are not negatives to a value."""
        if self.other_classes:
            _, _, class_first, class_end, past_first, past_end, _ = self.windows
            for first, end in ((class_first, class_end), (past_first, past_end)):
                window = slice(int(first[rows.start]), int(end[rows.stop - 1]))
                start, stop = max(columns.start, window.start), min(columns.stop, window.stop)
                if start < stop:
                    same = self.label[rows, None] == self.label[start:stop]
                    tile[:, start - columns.start : stop - columns.start].masked_fill_(same, value)
        elif not self.include_self and columns.start < len(self.order):
            tile.diagonal(rows.start - columns.start).fill_(value)

    def no_positive(self, rows: slice) -> Tensor:
        """Return a mask of the entries in the window of these rows that are not positives."""
        window = self.window(rows)
        mask = self.group[rows, None] != self.group[window]
        if not self.include_self:
            mask.diagonal(rows.start - window.start).fill_(True)
        return mask

    def same_group(self) -> tuple[Tensor, Tensor]:
        """Return indices (P,) and (P,) of all (anchor, positive), an anchor with itself included."""
        count = self.num_pairs + (0 if self.include_self else len(self.order))
        anchor = torch.repeat_interleave(self.size, output_size=count)
        other = torch.arange(count, device=anchor.device) + (self.end - self.size.cumsum(0))[anchor]
        return anchor, other


def sort_batch(
    ids: Tensor,
    negatives: Negatives,
    include_self: bool,
    past: Tensor | None = None,
    classes: Tensor | None = None,
) -> SortedBatch | None:
    """Sort batch and queue by label (Equations 12 and 13), with a single synchronization with the device.

    Args:
        ids: Positive ids (N,), integers; samples with equal ids (and classes) are each other's positives.
        negatives: ``other_classes`` or ``all`` other samples.
        include_self: Count an anchor as its own positive, and among ``all`` as its own negative.
        past: Class ids (M,) of the queue, whose features are negatives only.
        classes: Class ids (N,), integers; None if the positive ids are the classes.

    Returns:
        The batch, or None if no anchor has both a positive and a negative.

    Example:
        >>> batch = sort_batch(torch.tensor([1, 0, 1]), "other_classes", False)
        >>> batch.label.tolist(), batch.windows.first.tolist(), batch.end.tolist(), batch.num_pairs
        ([0, 1, 1], [0, 1, 1], [1, 3, 3], 2)
    """
    other_classes, myself = negatives == "other_classes", int(not include_self)
    n = len(ids)
    label, order, group = (*ids.sort(stable=True), None) if classes is None else _sort_within(classes, ids)
    first, end = _bounds(label, label)
    bounds, everyone, past_order, total = [order, first, end], label, None, n
    if past is not None:
        past_label, past_order = past.sort()
        bounds += _bounds(past_label, label)
        everyone, total = torch.cat([label, past_label]), n + len(past)
    size = end - first
    negative_counts = total - size if other_classes else torch.full_like(order, total - myself)
    if other_classes and past is not None:
        negative_counts -= bounds[4] - bounds[3]
    if group is not None:
        first, end = _bounds(group, group)
        size = end - first
        bounds += [first, end]
    on_host = torch.stack(bounds).cpu()
    of_class, of_group = on_host[1:3], on_host[1:3] if group is None else on_host[-2:]
    of_past = on_host[3:5] + n if past is not None else torch.full_like(of_class, n)
    windows = Windows(*torch.cat([of_group, of_class, of_past, on_host[:1]]))
    num_pairs = int((windows.end - windows.first - myself).sum())
    # There are no negatives only if all samples are of a single class.
    own_class = int((of_class[1] - of_class[0] + of_past[1] - of_past[0])[0]) if n > 0 else 0
    if num_pairs == 0 or (other_classes and own_class == total):
        return None
    group = everyone if group is None else group
    return SortedBatch(
        order, past_order, everyone, group, end, size, negative_counts, windows, num_pairs, other_classes, include_self
    )


def _bounds(ascending: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the start and the end of each id among ascending ones."""
    return torch.searchsorted(ascending, ids), torch.searchsorted(ascending, ids, right=True)


def _sort_within(classes: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort by class id, then by positive id; return class ids (N,), order (N,) and ascending numbers of groups (N,)."""
    by_id = ids.argsort(stable=True)
    label, at = classes[by_id].sort(stable=True)
    order = by_id[at]
    sorted_ids, group = ids[order], torch.zeros_like(order)
    group[1:] = ((label[1:] != label[:-1]) | (sorted_ids[1:] != sorted_ids[:-1])).cumsum(0)
    return label, order, group


def slices(start: int, stop: int, size: int) -> Iterator[slice]:
    """Split [start, stop) into slices of at most ``size``."""
    return (slice(begin, min(begin + size, stop)) for begin in range(start, stop, size))


def _inverse(permutation: Tensor) -> Tensor:
    places = torch.arange(len(permutation), device=permutation.device)
    return torch.empty_like(permutation).index_copy_(0, permutation, places)
