"""The exact contrastive loss of a batch that several processes share, each working on its own rows of the matrix.

The gradient with respect to the similarities s is, elementwise, a function of s_ij and of what is known of anchor i and
of anchor j. A process sweeps over its anchors beside everyone twice: first for what is to be known of them, which all
processes then tell each other, a few numbers for each; then for the whole gradient of its features. Gradients of others
never travel.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nc_lightning.distributed.global_batch import Shares
from nc_lightning.losses.engines import row_blocks as strips
from nc_lightning.losses.engines.infonce_terms import Tilt
from nc_lightning.losses.engines.sorted_batch import Layout, blocks
from nc_lightning.losses.engines.tile_sizes import tile_sizes
from nc_lightning.losses.links import InfoNCE


def tiled_share_loss(
    z: Tensor,
    shares: Shares,
    layout: Layout,
    *,
    link: InfoNCE,
    beta: float,
    temperature: float,
    differentiate: bool,
    past: Tensor | None = None,
    learnt: Tensor | None = None,
) -> Tensor:
    """Return what `nc_lightning.losses.engines.tiled.tiled_loss` does of the batch of all processes, on each of them.

    Args:
        z: (n, d) normalised features of this process, float32 or float64.
        shares: Who holds what.
        layout: Of the whole batch, as for the other arguments.
        link: InfoNCE with alpha > 0.
        beta: Hardness.
        temperature: tau.
        differentiate: Whether gradients flow through the weights.
        past: (M, d) normalised features that are negatives only, the same on all processes.
        learnt: The temperature as a tensor of shape () that gets a gradient, which detached weights and no past allow.

    Returns:
        0-dimensional loss in nats, whose gradient is the share of this process in one that is averaged over processes.
        First derivatives only.
    """
    tilt = Tilt(link, beta, temperature, differentiate)
    loss: Tensor = _TiledShareLoss.apply(z, learnt, past, shares, layout, tilt)
    return loss


class _TiledShareLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        learnt: Tensor | None,
        past: Tensor | None,
        shares: Shares,
        layout: Layout,
        tilt: Tilt,
    ) -> Tensor:
        everyone = shares.gather(z)[layout.order]
        if past is not None and layout.past_order is not None:
            everyone = torch.cat([everyone, past[layout.past_order]])
        anchors, order = layout.of_anchors(shares.own)
        mine = everyone[anchors.position]
        known = _know(mine, everyone, anchors, tilt)
        # All processes need all rows even where they want no gradient: another one may.
        unsorted = torch.empty_like(known.T).index_copy_(0, order, known.T)
        everyone_s = shares.gather(unsorted)[layout.order].T
        if any(ctx.needs_input_grad):
            gradient = _gradient(mine, everyone, anchors, tilt, known, everyone_s)
            gradient *= len(shares.sizes) / (layout.num_pairs * tilt.temperature)
            of_temperature = tilt.gradient_of_temperature(gradient, mine) if ctx.needs_input_grad[1] else None
            ctx.save_for_backward(torch.empty_like(gradient).index_copy_(0, order, gradient), of_temperature)
        return everyone_s[0].sum() / layout.num_pairs + math.log(tilt.link.alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        gradient, of_temperature = ctx.saved_tensors
        of_temperature = None if of_temperature is None else of_temperature * grad_output
        return gradient * grad_output, of_temperature, None, None, None, None


def _know(mine: Tensor, everyone: Tensor, anchors: Layout, tilt: Tilt) -> Tensor:
    """Return what is known of each anchor (2 + kinds, n).

    The loss of its pairs, that of a strip being at its first anchor; what its positives are compared with; and the
    logarithm to base 2 of what each kind of its terms is to be multiplied by, the signs of which are + and -.
    """
    known = mine.new_full((2 + tilt.kinds_pushed, len(mine)), -torch.inf)
    known[0] = 0
    loss = mine.new_zeros(())
    for strip in strips.strips(mine, everyone, anchors, tilt, loss):
        rows = strip.rows
        known[0, rows.start] = loss
        loss.zero_()
        known[1, rows] = strip.negative
        known[2:, rows] = strip.pushes.abs().log2()
        for kind, share in enumerate(_shares_of_exponent(tilt)):
            known[2 + kind, rows] -= share * strip.hardest
    return known


def _gradient(mine: Tensor, everyone: Tensor, anchors: Layout, tilt: Tilt, known: Tensor, everyone_s: Tensor) -> Tensor:
    """Return the gradient with respect to ``mine``, times the number of pairs and the temperature."""
    n, columns = everyone_s.shape[1], slice(0, len(everyone))
    gradient, height = torch.empty_like(mine), max(1, tile_sizes(mine).strip // len(everyone))
    memory = mine.new_empty(3 * min(height, len(mine)) * len(everyone))
    smallest = math.log2(torch.finfo(mine.dtype).tiny)
    for rows in blocks(0, len(mine), height):
        exponents, matrix, terms = strips.view(memory, 3, rows, columns)
        torch.mm(mine[rows] * tilt.exponent, everyone.T, out=exponents)
        window = anchors.window(rows)
        margin = exponents[:, window] / (tilt.exponent * tilt.temperature)
        anchors.hide(exponents, rows, columns)
        matrix.zero_()
        for kind, share in enumerate(_shares_of_exponent(tilt)):
            # Past features are nobody's anchor.
            for pushes, pushed in ((known[2 + kind, rows, None], columns), (everyone_s[2 + kind], slice(0, n))):
                part = terms[:, pushed]
                torch.add(pushes, exponents[:, pushed], alpha=share, out=part)
                torch.threshold_(part, smallest, -torch.inf)  # denormal numbers are slow, and nothing
                matrix[:, pushed].add_(part.exp2_(), alpha=1 - 2 * kind)
        pull = (known[1, rows, None] - margin).sigmoid_() + (everyone_s[1, window] - margin).sigmoid_()
        matrix[:, window].sub_(pull.masked_fill_(anchors.no_positive(rows), 0.0))
        torch.mm(matrix, everyone, out=gradient[rows])
    return gradient


def _shares_of_exponent(tilt: Tilt) -> list[float]:
    """Of each kind that has a gradient, its exponent over that of the hardened terms."""
    return [1.0, tilt.share_of_weights][: tilt.kinds_pushed]
