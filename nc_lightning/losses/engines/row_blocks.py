"""Blocks of whole rows of a batch's similarity matrix: some anchors with everyone, for exponents of any size.

Exponents are relative to each anchor's largest negative: terms neither overflow nor all vanish.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from nc_lightning.losses.engines.infonce_terms import InfoNCETerms
from nc_lightning.losses.engines.sorted_batch import SortedBatch, slices
from nc_lightning.losses.engines.tile_sizes import tile_sizes

# Compared with the largest shifted term, which is 1, 2^-65 is negligible, and its products are no slow denormals.
SMALLEST_EXPONENT = -65.0


class RowBlock(NamedTuple):
    """Some anchors with everyone.

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


def row_blocks(
    z: Tensor, everyone: Tensor, batch: SortedBatch, infonce: InfoNCETerms, loss: Tensor
) -> Iterator[RowBlock]:
    """Yield all anchors (N, d) in blocks with everyone (M, d), and add their pairs' losses to ``loss``.

    Equation 16.

    The caller may write into a block; the next one overwrites it.
    """
    columns, height = slice(0, len(everyone)), max(1, tile_sizes(z).row_block // len(everyone))
    memory = z.new_empty(2 * min(height, len(z)) * len(everyone))
    for rows in slices(0, len(z), height):
        tiles = view(memory, infonce.kinds_summed, rows, columns)
        torch.mm(z[rows] * infonce.exponent, everyone.T, out=tiles[0])
        margin = tiles[0, :, batch.window(rows)] / (infonce.exponent * infonce.temperature)
        batch.hide(tiles[0], rows, columns)
        hardest = tiles[0].amax(1)
        tiles[0].sub_(hardest[:, None])
        sums = infonce.terms(tiles, SMALLEST_EXPONENT).sum(2)
        negative = infonce.of_negatives(sums, batch, rows) + hardest / (infonce.exponent * infonce.temperature)
        pull = softplus(margin, negative, batch, rows, loss)
        yield RowBlock(rows, tiles, hardest, negative, pull, infonce.pushes(pull.sum(1), sums))


def softplus(margin: Tensor, negative: Tensor, batch: SortedBatch, rows: slice, loss: Tensor) -> Tensor:
    """Add the softplus of negative - margin of all positives to ``loss``; return its derivatives in place of margin.

    Equation 5.
    """
    margin.sub_(negative[:, None]).masked_fill_(batch.no_positive(rows), torch.inf)
    loss -= logsigmoid(margin).sum()
    return margin.neg_().sigmoid_()


def view(memory: Tensor, kinds: int, rows: slice, columns: slice) -> Tensor:
    """Return memory as an uninitialized (kinds, rows, columns)."""
    shape = (kinds, rows.stop - rows.start, columns.stop - columns.start)
    return memory[: math.prod(shape)].view(shape)
