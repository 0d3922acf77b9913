"""Strips of a batch's similarity matrix: some anchors beside everyone, for exponents of any size.

Exponents are relative to each anchor's largest negative: terms neither overflow nor all vanish.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from nc_lightning.losses.engines.infonce_terms import Tilt
from nc_lightning.losses.engines.sorted_batch import Layout, blocks
from nc_lightning.losses.engines.tile_sizes import tile_sizes

# Beside the largest shifted term, which is 1, 2^-65 is nothing, and its products are no slow denormal numbers.
SMALLEST_EXPONENT = -65.0


class Strip(NamedTuple):
    """Some anchors beside everyone.

    Attributes:
        rows: Which anchors.
        terms: (kinds, rows, columns), relative to each anchor's hardest negative.
        hardest: (rows,) its exponent to base 2.
        negative: (rows,) what positives are compared with.
        pull: (rows, window) derivative of the losses by that.
        pushes: (kinds, rows) what each kind of terms is to be multiplied by.
    """

    rows: slice
    terms: Tensor
    hardest: Tensor
    negative: Tensor
    pull: Tensor
    pushes: Tensor


def strips(z: Tensor, everyone: Tensor, layout: Layout, tilt: Tilt, loss: Tensor) -> Iterator[Strip]:
    """Yield all anchors (N, d) in strips beside everyone (M, d), and add their pairs' losses to ``loss``.

    A strip may be written into, and is overwritten by the next.
    """
    columns, height = slice(0, len(everyone)), max(1, tile_sizes(z).strip // len(everyone))
    memory = z.new_empty(2 * min(height, len(z)) * len(everyone))
    for rows in blocks(0, len(z), height):
        tiles = view(memory, tilt.kinds_summed, rows, columns)
        torch.mm(z[rows] * tilt.exponent, everyone.T, out=tiles[0])
        margin = tiles[0, :, layout.window(rows)] / (tilt.exponent * tilt.temperature)
        layout.hide(tiles[0], rows, columns)
        hardest = tiles[0].amax(1)
        tiles[0].sub_(hardest[:, None])
        sums = tilt.terms(tiles, SMALLEST_EXPONENT).sum(2)
        negative = tilt.of_negatives(sums, layout, rows) + hardest / (tilt.exponent * tilt.temperature)
        pull = softplus(margin, negative, layout, rows, loss)
        yield Strip(rows, tiles, hardest, negative, pull, tilt.pushes(pull.sum(1), sums))


def softplus(margin: Tensor, negative: Tensor, layout: Layout, rows: slice, loss: Tensor) -> Tensor:
    """Add the softplus of negative - margin of all positives to ``loss``; return its derivatives in place of margin."""
    margin.sub_(negative[:, None]).masked_fill_(layout.no_positive(rows), torch.inf)
    loss -= logsigmoid(margin).sum()
    return margin.neg_().sigmoid_()


def view(memory: Tensor, kinds: int, rows: slice, columns: slice) -> Tensor:
    """Return memory as an uninitialised (kinds, rows, columns)."""
    shape = (kinds, rows.stop - rows.start, columns.stop - columns.start)
    return memory[: math.prod(shape)].view(shape)
