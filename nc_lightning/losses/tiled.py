"""The exact contrastive loss of a labelled batch without ever holding a matrix of N x N.

The gradient with respect to the similarities s = z z^T is, elementwise, a function of s_ij and of four numbers of
anchor i and sample j. Tiles of s can thus be formed, used and forgotten; s being symmetric, its upper half will do.
Samples are sorted by label, so that a class is a window.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from nc_lightning.geometry.checks import check_choice
from nc_lightning.losses.pairs import Negatives

# Found by timing. Tiles stay in the cache, and kept ones save the second sweep their product.
TILE_ROWS, TILE_COLUMNS = 256, 2048
POSITIVE_ROWS = 64
KEPT_ELEMENTS = 2**22
# Share of the exponents which the dtype can represent that sums without a shift may use.
SAFE_SHARE = 0.95
# Beside the largest shifted term, which is 1, 2^-65 is nothing, and its products are no slow denormal numbers.
SMALLEST_EXPONENT = -65.0


def tiled_loss(
    z: Tensor,
    labels: Tensor,
    *,
    negatives: Negatives,
    beta: float,
    temperature: float,
    differentiate: bool,
    include_self: bool,
) -> Tensor:
    """Return `exact_loss` of `label_pairs` in memory of O(N d), value and gradient formed together.

    Args:
        z: (N, d) normalised features, float32 or float64, whose inner products are s.
        labels: (N,) integers; equal labels are positives of each other.
        negatives: ``other_classes`` or ``all`` other samples.
        beta: Hardness of the weights w_n ~ e^{beta s_in}.
        temperature: tau.
        differentiate: Whether gradients flow through the weights.
        include_self: Count an anchor as its own positive, and among ``all`` as its own negative.

    Returns:
        0-dimensional loss in nats; without a usable pair 0, with a gradient of zeros. First derivatives only.

    Source:
        Jiang et al. (2023), arXiv 2311.05139; gradient formed in the forward as by Hsu et al. (2024), arXiv 2410.10989.

    Example:
        >>> z, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> options = {"beta": 5.0, "temperature": 1.0, "differentiate": False, "include_self": False}
        >>> tiled_loss(z, labels, negatives="other_classes", **options)
        tensor(0.1269)
    """
    check_choice("negatives", negatives, Negatives)
    order = labels.argsort()
    layout = _layout(labels[order], negatives == "other_classes", include_self)
    if layout is None:
        return z.sum() * 0.0
    loss: Tensor = _TiledLoss.apply(z, order, layout, _Tilt(beta, temperature, differentiate))
    return loss


class _Tilt(NamedTuple):
    """Hardness and temperature, and what they make of a similarity.

    Terms are of two kinds: first the hardened e^{(beta + 1 / temperature) s}, then the weights e^{beta s} alone.
    """

    beta: float
    temperature: float
    differentiate: bool

    @property
    def exponent(self) -> float:
        """Exponent of the hardened terms to base 2, per unit of s: `exp2` takes a third of the time of `exp`."""
        return (self.beta + 1 / self.temperature) / math.log(2)

    @property
    def kinds_summed(self) -> int:
        """Number of kinds whose sums need terms: without hardness, the weights are 1."""
        return 1 + (self.beta > 0)

    @property
    def kinds_pushed(self) -> int:
        """Number of kinds that have a gradient."""
        return 1 + (self.beta > 0 and self.differentiate)

    def terms(self, exponents: Tensor, smallest: float | None = None) -> Tensor:
        """Turn (kinds, rows, columns), of which the first holds the exponents of its kind, into terms, in place."""
        if len(exponents) > 1:
            torch.mul(exponents[0], self.beta / (self.beta + 1 / self.temperature), out=exponents[1])
        if smallest is not None:
            exponents.clamp_(min=smallest)
        return exponents.exp2_()

    def empty_sums(self, z: Tensor, num_negatives: Tensor) -> Tensor:
        """Return (2, N) sums of terms, before any is added: zeros, but for weights that are 1."""
        sums = num_negatives.to(z.dtype).repeat(2, 1)
        sums[: self.kinds_summed] = 0
        return sums

    def pushes(self, push: Tensor, sums: Tensor) -> Tensor:
        """Share each anchor's push (N,) among its terms: (kinds, N), what each is to be multiplied by."""
        # The weights' own derivative: beta times (share of the hardened terms - share of the weights alone).
        extra = self.beta * self.temperature if self.differentiate else 0.0
        factor = sums.new_tensor([1 + extra, -extra])[: self.kinds_pushed, None]
        return (push / sums[: self.kinds_pushed]).nan_to_num_(0.0).mul_(factor)


class _Layout(NamedTuple):
    """Who is whose positive and negative in a batch sorted by label.

    The class of a sample lies in [first, end); anchors with a positive and a negative are usable, and pairs are theirs.
    """

    label: Tensor
    first: list[int]
    end: list[int]
    num_negatives: Tensor
    usable: Tensor
    num_pairs: int
    other_classes: bool
    include_self: bool

    def tiles(self) -> Iterator[tuple[slice, slice]]:
        """Cut the upper half of the matrix: squares on the diagonal, and to their right what holds any negative."""
        for rows in _blocks(0, len(self.label), TILE_ROWS):
            yield rows, rows
            start = max(rows.stop, self.end[rows.start]) if self.other_classes else rows.stop
            for columns in _blocks(start, len(self.label), TILE_COLUMNS):
                yield rows, columns

    def window(self, rows: slice) -> slice:
        """Return the columns that hold all positives of these rows."""
        return slice(self.first[rows.start], self.end[rows.stop - 1])

    def hide(self, tile: Tensor, rows: slice, columns: slice) -> None:
        """Set the entries of a tile that are not of negatives to -inf."""
        if self.other_classes:
            start, stop = max(columns.start, self.first[rows.start]), min(columns.stop, self.end[rows.stop - 1])
            if start < stop:
                same = self.label[rows, None] == self.label[start:stop]
                tile[:, start - columns.start : stop - columns.start].masked_fill_(same, -torch.inf)
        elif not self.include_self:
            tile.diagonal(rows.start - columns.start).fill_(-torch.inf)


def _layout(label: Tensor, other_classes: bool, include_self: bool) -> _Layout | None:
    """Return the layout of a batch, or None if no anchor has both a positive and a negative."""
    _, index, size = torch.unique_consecutive(label, return_inverse=True, return_counts=True)
    end, size = size.cumsum(0)[index], size[index]
    myself = torch.full_like(size, int(not include_self))
    num_positives, num_negatives = size - myself, len(label) - (size if other_classes else myself)
    usable = (num_positives > 0) & (num_negatives > 0)
    if not usable.any():
        return None
    first, num_pairs = (end - size).tolist(), int(num_positives[usable].sum())
    return _Layout(label, first, end.tolist(), num_negatives, usable, num_pairs, other_classes, include_self)


def _blocks(start: int, stop: int, size: int) -> Iterator[slice]:
    return (slice(begin, min(begin + size, stop)) for begin in range(start, stop, size))


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, order: Tensor, layout: _Layout, tilt: _Tilt) -> Tensor:
        z = z[order]
        gradient = torch.zeros_like(z) if ctx.needs_input_grad[0] else None
        largest = tilt.exponent * z.square().sum(1).max().item() + math.log2(len(z))
        sweep = _triangle if largest < SAFE_SHARE * math.log2(torch.finfo(z.dtype).max) else _strips
        loss = sweep(z, layout, tilt, gradient) / layout.num_pairs
        if gradient is not None:
            gradient /= layout.num_pairs * tilt.temperature
            ctx.save_for_backward(torch.empty_like(gradient).index_copy_(0, order, gradient))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None


def _triangle(z: Tensor, layout: _Layout, tilt: _Tilt, gradient: Tensor | None) -> Tensor:
    """Return the sum of the pairs' losses, and add its gradient times temperature to ``gradient``.

    A sweep over the tiles sums the negatives of each anchor, a second one weighs them by what the positives leave.
    """
    room = 0 if gradient is None else min(KEPT_ELEMENTS, tilt.kinds_pushed * len(z) * (len(z) + TILE_ROWS))
    memory, used, loss = z.new_empty(room + 2 * TILE_ROWS * TILE_COLUMNS), 0, z.new_zeros(())
    kept: dict[tuple[int, int], Tensor] = {}

    def terms(rows: slice, columns: slice, kinds: int) -> Tensor:
        tiles = _view(memory[used:], kinds, rows, columns)
        torch.mm(z[rows] * tilt.exponent, z[columns].T, out=tiles[0])
        layout.hide(tiles[0], rows, columns)
        return tilt.terms(tiles)

    sums = tilt.empty_sums(z, layout.num_negatives)
    for rows, columns in layout.tiles():
        tiles = terms(rows, columns, tilt.kinds_summed)
        sums[: len(tiles), rows] += tiles.sum(2)
        if columns.start > rows.start:
            sums[: len(tiles), columns] += tiles.sum(1)
        tiles = tiles[: tilt.kinds_pushed]
        if used + tiles.numel() <= room:
            kept[rows.start, columns.start] = tiles
            used += tiles.numel()

    negative = torch.where(layout.usable, (sums[0] / sums[1]).log(), -torch.inf)
    push = _pull(z, layout, tilt, negative, loss, gradient)
    if gradient is None:
        return loss

    pushes, buffer = tilt.pushes(push, sums), z.new_empty(2 * TILE_ROWS * TILE_COLUMNS)
    for rows, columns in layout.tiles():
        at = rows.start, columns.start
        tiles = kept[at] if at in kept else terms(rows, columns, tilt.kinds_pushed)
        weights = _view(buffer, len(tiles), rows, columns)
        torch.add(pushes[:, rows, None], pushes[:, None, columns], out=weights)
        matrix = _weigh(tiles, weights)
        gradient[rows].addmm_(matrix, z[columns])
        if columns.start > rows.start:
            gradient[columns].addmm_(matrix.T, z[rows])
    return loss


def _weigh(tiles: Tensor, weights: Tensor) -> Tensor:
    """Add up the kinds of terms, each by its weights, in place of the first."""
    matrix = tiles[0].mul_(weights[0])
    return matrix.addcmul_(tiles[1], weights[1]) if len(weights) > 1 else matrix


def _view(memory: Tensor, kinds: int, rows: slice, columns: slice) -> Tensor:
    shape = (kinds, rows.stop - rows.start, columns.stop - columns.start)
    return memory[: math.prod(shape)].view(shape)


def _pull(z: Tensor, layout: _Layout, tilt: _Tilt, negative: Tensor, loss: Tensor, gradient: Tensor | None) -> Tensor:
    """Add the pairs' losses to ``loss`` and what positives pull to ``gradient``; return what negatives are to push."""
    push = torch.zeros_like(negative)
    for rows in _blocks(0, len(z), POSITIVE_ROWS):
        window = layout.window(rows)
        margin = torch.mm(z[rows] / tilt.temperature, z[window].T)
        pull = _softplus(margin, negative[rows], layout, rows, loss)
        if gradient is not None:
            push[rows] = pull.sum(1)
            gradient[rows].addmm_(pull, z[window], alpha=-1)
            gradient[window].addmm_(pull.T, z[rows], alpha=-1)
    return push


def _softplus(margin: Tensor, negative: Tensor, layout: _Layout, rows: slice, loss: Tensor) -> Tensor:
    """Add softplus(negative - margin) of all positives to ``loss``, and return its derivatives in place of margin."""
    window = layout.window(rows)
    no_positive = layout.label[rows, None] != layout.label[window]
    if not layout.include_self:
        no_positive.diagonal(rows.start - window.start).fill_(True)
    margin.sub_(negative[:, None]).masked_fill_(no_positive, torch.inf)
    loss -= logsigmoid(margin).sum()
    return margin.neg_().sigmoid_()


def _strips(z: Tensor, layout: _Layout, tilt: _Tilt, gradient: Tensor | None) -> Tensor:
    """Return and add the same as `_triangle`, for exponents of any size, in one sweep over strips of whole rows.

    Exponents are relative to each anchor's largest negative: terms neither overflow nor all vanish.
    """
    everyone, loss = slice(0, len(z)), z.new_zeros(())
    height = min(len(z), max(1, TILE_ROWS * TILE_COLUMNS // len(z)))
    memory, sums = z.new_empty(2 * height * len(z)), tilt.empty_sums(z, layout.num_negatives)
    for rows in _blocks(0, len(z), height):
        tiles = _view(memory, tilt.kinds_summed, rows, everyone)
        torch.mm(z[rows] * tilt.exponent, z.T, out=tiles[0])
        window = layout.window(rows)
        margin = tiles[0, :, window] / (tilt.exponent * tilt.temperature)
        layout.hide(tiles[0], rows, everyone)
        hardest = tiles[0].amax(1)
        hardest.masked_fill_(hardest == -torch.inf, 0.0)
        tiles[0].sub_(hardest[:, None])
        sums[: len(tiles), rows] += tilt.terms(tiles, SMALLEST_EXPONENT).sum(2)
        negative = hardest / (tilt.exponent * tilt.temperature) + (sums[0, rows] / sums[1, rows]).log()
        negative = torch.where(layout.usable[rows], negative, -torch.inf)
        pull = _softplus(margin, negative, layout, rows, loss)
        if gradient is not None:
            matrix = _weigh(tiles, tilt.pushes(pull.sum(1), sums[:, rows])[:, :, None])
            matrix[:, window].sub_(pull)
            gradient[rows].addmm_(matrix, z)
            gradient.addmm_(matrix.T, z[rows])
    return loss
