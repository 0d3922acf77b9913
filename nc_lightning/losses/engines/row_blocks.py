"""Blocks of whole rows of the similarity matrix, for exponents of any size and any hardening.

Terms are relative to each anchor's largest, so that they neither overflow nor all underflow.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.losses.engines.infonce_terms import InfoNCETerms
from nc_lightning.losses.engines.sorted_batch import SortedBatch, slices
from nc_lightning.losses.engines.tile_sizes import tile_sizes


class RowBlock(NamedTuple):
    """Rows of the similarity matrix: some anchors with all samples.

    Attributes:
        rows: Slice of the anchors.
        terms: Terms (kinds, rows, columns), relative to each anchor's largest.
        pull: Derivatives (rows, window) of the pairs' losses by the value that positives are compared with.
        pushes: Factors (kinds, rows) of the terms in the gradient.
    """

    rows: slice
    terms: Tensor
    pull: Tensor
    pushes: Tensor


def row_blocks(
    z: Tensor, everyone: Tensor, anchors: slice, batch: SortedBatch, infonce: InfoNCETerms, loss: Tensor
) -> Iterator[RowBlock]:
    """Yield the rows of anchors of z (N, d) with all samples (M, d), and add their losses to ``loss`` (Equation 16).

    The caller may write to a block; the next block reuses its memory.
    """
    columns, height = slice(0, len(everyone)), max(1, tile_sizes(z).row_block // len(everyone))
    memory = z.new_empty(2 * min(height, len(z)) * len(everyone))
    for rows in slices(anchors.start, anchors.stop, height):
        tiles = view(memory, infonce.kinds_summed, rows, columns)
        torch.mm(z[rows] * infonce.scale, everyone.T, out=tiles[0])
        margin = tiles[0, :, batch.window(rows)] / (infonce.scale * infonce.temperature)
        taken_out = infonce.relative_terms(tiles, batch, rows)
        sums = tiles.sum(2)
        negative = infonce.of_negatives(sums, batch, rows) + taken_out
        pull = pull_on_positives(margin, negative, batch, rows, infonce, loss)
        yield RowBlock(rows, tiles, pull, infonce.pushes(pull.sum(1), sums))


def pull_on_positives(
    margin: Tensor, negative: Tensor, batch: SortedBatch, rows: slice, infonce: InfoNCETerms, loss: Tensor
) -> Tensor:
    """Add the losses of all pairs to ``loss``; overwrite their s_ij / temperature by the pull (Equation 5)."""
    margin.sub_(negative[:, None]).masked_fill_(batch.no_positive(rows), torch.inf)
    loss -= infonce.negated_loss(margin)
    return infonce.pull_(margin)


def view(memory: Tensor, kinds: int, rows: slice, columns: slice) -> Tensor:
    """View a flat buffer as an uninitialized tensor (kinds, rows, columns)."""
    shape = (kinds, rows.stop - rows.start, columns.stop - columns.start)
    return memory[: math.prod(shape)].view(shape)
