"""The exact contrastive loss of a global batch, each process computing the rows of its shard.

The gradient with respect to the similarities s is, elementwise, a function of s_ij and a few values of anchors i and j.
A process sweeps over the rows of its anchors twice: first for these values, which are then gathered from all processes,
and then for the full gradient of its own features. Feature gradients are never sent.
"""

import math

import torch
from torch import Tensor

from nc_lightning.distributed.global_batch import Shares
from nc_lightning.geometry import Normalization, normalize
from nc_lightning.losses.engines.infonce_terms import InfoNCETerms
from nc_lightning.losses.engines.known_gradient import Result, gradient_of_temperature, with_known_gradient
from nc_lightning.losses.engines.row_blocks import row_blocks, view
from nc_lightning.losses.engines.sorted_batch import SortedBatch, slices
from nc_lightning.losses.engines.tile_sizes import tile_sizes


def tiled_distributed_loss(
    z: Tensor,
    batch: SortedBatch,
    shares: Shares,
    infonce: InfoNCETerms,
    normalization: Normalization = "none",
    past: Tensor | None = None,
    learnable: Tensor | None = None,
) -> Tensor:
    """Compute `nc_lightning.losses.engines.tiled.tiled_loss` of the global batch on each process (Equation 19).

    Arguments are as for `tiled_loss`, except that ``z`` (n, d) holds the features of this process and ``shares`` the
    number of rows of each process; ``batch`` and ``past`` are the same on all processes.

    Returns:
        0-dimensional loss in nats, with the gradient of this process, to be averaged over processes. First derivatives
        only.
    """

    def compute(z: Tensor, with_gradient: bool, with_temperature: bool) -> Result:
        everyone, gradient, of_temperature = shares.gather(z)[batch.order], None, None
        if past is not None and batch.past_order is not None:
            everyone = torch.cat([everyone, past[batch.past_order]])
        anchors, order = batch.of_anchors(shares.own)
        mine = everyone[anchors.position]
        values = _anchor_values(mine, everyone, anchors, infonce)
        # All processes gather, even without a gradient of their own: another process may need one.
        in_batch_order = torch.empty_like(values.T).index_copy_(0, order, values.T)
        all_values = shares.gather(in_batch_order)[batch.order].T
        if with_gradient:
            gradient = _gradient(mine, everyone, anchors, infonce, values, all_values)
            gradient *= len(shares.sizes) / (batch.num_pairs * infonce.temperature)
            of_temperature = gradient_of_temperature(gradient, mine, infonce.temperature) if with_temperature else None
            gradient = torch.empty_like(gradient).index_copy_(0, order, gradient)
        return all_values[0].sum() / batch.num_pairs + infonce.log_alpha, gradient, of_temperature

    return with_known_gradient(compute, normalize(z, normalization), learnable)


def _anchor_values(mine: Tensor, everyone: Tensor, anchors: SortedBatch, infonce: InfoNCETerms) -> Tensor:
    """Compute the summary of each anchor (2 + kinds, n) that other processes need (Equation 20).

    It holds the loss of its pairs, summed over a block and stored at the first anchor of the block; the value that
    positives are compared with; and the base-2 logarithm of the factor of each kind of term, which is positive for the
    first kind and negative for the second.
    """
    values = mine.new_full((2 + infonce.kinds_pushed, len(mine)), -torch.inf)
    values[0] = 0
    loss = mine.new_zeros(())
    for block in row_blocks(mine, everyone, anchors, infonce, loss):
        rows = block.rows
        values[0, rows.start] = loss
        loss.zero_()
        values[1, rows] = block.negative
        values[2:, rows] = block.pushes.abs().log2()
        for kind, share in enumerate(_shares_of_exponent(infonce)):
            values[2 + kind, rows] -= share * block.hardest
    return values


def _gradient(
    mine: Tensor, everyone: Tensor, anchors: SortedBatch, infonce: InfoNCETerms, values: Tensor, all_values: Tensor
) -> Tensor:
    """Compute the gradient with respect to ``mine``, times the number of pairs and the temperature (Equation 21)."""
    n, columns = all_values.shape[1], slice(0, len(everyone))
    gradient, height = torch.empty_like(mine), max(1, tile_sizes(mine).row_block // len(everyone))
    memory = mine.new_empty(3 * min(height, len(mine)) * len(everyone))
    smallest = math.log2(torch.finfo(mine.dtype).tiny)
    for rows in slices(0, len(mine), height):
        exponents, matrix, terms = view(memory, 3, rows, columns)
        torch.mm(mine[rows] * infonce.exponent, everyone.T, out=exponents)
        window = anchors.window(rows)
        margin = exponents[:, window] / (infonce.exponent * infonce.temperature)
        anchors.hide(exponents, rows, columns)
        matrix.zero_()
        for kind, share in enumerate(_shares_of_exponent(infonce)):
            # Samples of the queue are not anchors.
            for pushes, pushed in ((values[2 + kind, rows, None], columns), (all_values[2 + kind], slice(0, n))):
                part = terms[:, pushed]
                torch.add(pushes, exponents[:, pushed], alpha=share, out=part)
                torch.threshold_(part, smallest, -torch.inf)  # denormal numbers are slow and negligible
                matrix[:, pushed].add_(part.exp2_(), alpha=1 - 2 * kind)
        pull = infonce.pull_(margin - values[1, rows, None]) + infonce.pull_(margin - all_values[1, window])
        matrix[:, window].sub_(pull.masked_fill_(anchors.no_positive(rows), 0.0))
        torch.mm(matrix, everyone, out=gradient[rows])
    return gradient


def _shares_of_exponent(infonce: InfoNCETerms) -> list[float]:
    """Return, for each kind with a gradient, the ratio of its exponent to that of the hardened terms."""
    return [1.0, infonce.share_of_weights][: infonce.kinds_pushed]
