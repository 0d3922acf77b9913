"""The exact contrastive loss of a labelled batch, in sweeps over tiles of its similarity matrix.

The gradient with respect to the similarities s = z z^T is, elementwise, a function of s_ij and of four numbers of
anchor i and sample j. Tiles of s can thus be formed, used and forgotten; s being symmetric, its upper half will do.
Samples are sorted by label, so that a class is a window.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid

from nc_lightning.geometry import Normalization
from nc_lightning.geometry.normalization import normalize_rows_, pull_back_rows_
from nc_lightning.losses.layout import Layout, blocks
from nc_lightning.losses.links import InfoNCE
from nc_lightning.losses.strips import softplus, strips, view
from nc_lightning.losses.tilt import Tilt

# Found by timing. Tiles stay in the cache, and kept ones save the second sweep their product.
SQUARE_ELEMENTS, SQUARE_PAIRS = 2**20, 1 / 6
TILE_ROWS, TILE_COLUMNS = 256, 2048
POSITIVE_ROWS = 64
KEPT_ELEMENTS = 2**22
# Share of the exponents which the dtype can represent that sums without a shift may use.
SAFE_SHARE = 0.95


def tiled_loss(
    z: Tensor,
    layout: Layout,
    *,
    link: InfoNCE,
    beta: float,
    temperature: float | Tensor,
    differentiate: bool,
    normalization: Normalization = "none",
    past: Tensor | None = None,
) -> Tensor:
    """Mean over all (anchor, positive) pairs of log(alpha + sum_n w_n e^{t_n}), t_n = (s_in - s_ij) / temperature.

    With L_i = log sum_n w_n e^{s_in / temperature} the loss of a pair is log alpha + softplus(L_i - log alpha -
    s_ij / temperature). Value and gradient are formed together, in memory of O(N d). Small batches are a single tile;
    exponents that could overflow are taken relative to each anchor's largest.

    Args:
        z: (N, d) features, float32 or float64, whose inner products, once normalised, are s.
        layout: Who is whose positive and negative.
        link: InfoNCE with alpha > 0; its sum form multiplies the sum by the number of the anchor's negatives.
        beta: Hardness of the weights w_n ~ e^{beta s_in}.
        temperature: tau; a tensor of shape () for a gradient of its own, which detached weights and no past allow.
        differentiate: Whether gradients flow through the weights.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``.
        past: (M, d) normalised features that are negatives only.

    Returns:
        0-dimensional loss in nats. First derivatives only.

    Source:
        Jiang et al. (2023), arXiv 2311.05139; gradient formed in the forward as by Hsu et al. (2024), arXiv 2410.10989.

    Example:
        >>> from nc_lightning.losses.layout import sorted_layout
        >>> z, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> layout = sorted_layout(labels, "other_classes", include_self=False)
        >>> tiled_loss(z, layout, link=InfoNCE(), beta=5.0, temperature=1.0, differentiate=False)
        tensor(0.1269)
    """
    tau = temperature.item() if isinstance(temperature, Tensor) else temperature
    tilt = Tilt(link, beta, tau, differentiate)
    loss: Tensor = _TiledLoss.apply(z, temperature, past, layout, tilt, normalization)
    return loss


class _TiledLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        temperature: float | Tensor,
        past: Tensor | None,
        layout: Layout,
        tilt: Tilt,
        normalization: Normalization,
    ) -> Tensor:
        z = z[layout.order]
        norms = normalize_rows_(z, normalization)
        everyone = z if past is None else torch.cat([z, past[layout.past_order]])
        gradient = torch.zeros_like(z) if any(ctx.needs_input_grad) else None
        largest = 1.0
        if normalization == "none":
            largest = torch.linalg.vector_norm(everyone, dim=1).max().square().item()
        exponents = tilt.exponent * largest + math.log2(len(everyone))
        elements = len(z) * len(everyone)
        safe, small = exponents < SAFE_SHARE * math.log2(torch.finfo(z.dtype).max), elements <= SQUARE_ELEMENTS
        if safe and small and layout.num_pairs <= SQUARE_PAIRS * elements:
            loss = _square(z, everyone, layout, tilt, gradient)
        else:
            sweep = _triangle if safe and not small else _strips
            loss = sweep(z, everyone, layout.windows_on_cpu(), tilt, gradient)
        if gradient is not None:
            gradient /= layout.num_pairs * tilt.temperature
            # Similarities enter divided by the temperature, and each reaches two rows.
            of_temperature = -torch.linalg.vecdot(gradient, z).sum() / (2 * tilt.temperature)
            pull_back_rows_(gradient, z, norms, normalization)
            ctx.save_for_backward(torch.empty_like(gradient).index_copy_(0, layout.order, gradient), of_temperature)
        return loss / layout.num_pairs + math.log(tilt.link.alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        gradient, of_temperature = ctx.saved_tensors
        of_temperature = of_temperature * grad_output if ctx.needs_input_grad[1] else None
        return gradient * grad_output, of_temperature, None, None, None, None


def _square(z: Tensor, everyone: Tensor, layout: Layout, tilt: Tilt, gradient: Tensor | None) -> Tensor:
    """Return the sum of the pairs' losses, and add its gradient times temperature to ``gradient``.

    For small batches: a single tile, and pairs one by one.
    """
    rows, columns = slice(0, len(z)), slice(0, len(everyone))
    tiles = z.new_empty(tilt.kinds_summed, len(z), len(everyone))
    torch.mm(z * tilt.exponent, everyone.T, out=tiles[0])
    anchor, other = layout.same_class()
    at = anchor * len(everyone) + other
    margin = tiles[0].view(-1)[at].div_(tilt.exponent * tilt.temperature)
    if not layout.include_self:
        margin.masked_fill_(anchor == other, torch.inf)
    if layout.other_classes:
        tiles[0].view(-1).index_fill_(0, at, -torch.inf)
        columns = slice(len(z), len(everyone))
    layout.hide(tiles[0, :, columns], rows, columns)
    tilt.terms(tiles)

    sums = tilt.empty_sums(z, layout)
    torch.sum(tiles, 2, out=sums[: len(tiles)])
    margin -= tilt.of_negatives(sums, layout)[anchor]
    loss = -logsigmoid(margin).sum()
    if gradient is not None:
        pull = margin.neg_().sigmoid_()
        push = torch.zeros_like(sums[0]).index_add_(0, anchor, pull)
        pushes = tilt.pushes(push, sums)
        matrix = _weigh(tiles[: len(pushes)], pushes[:, :, None].add(_mirrored(pushes, len(everyone))[:, None]))
        matrix.view(-1).index_add_(0, at, pull, alpha=-1)
        matrix.view(-1).index_add_(0, other * len(everyone) + anchor, pull, alpha=-1)
        torch.mm(matrix, everyone, out=gradient)
    return loss


def _mirrored(pushes: Tensor, columns: int) -> Tensor:
    """Return what columns push as anchors; past ones are none."""
    return torch.nn.functional.pad(pushes, (0, columns - pushes.shape[1]))


def _triangle(z: Tensor, everyone: Tensor, layout: Layout, tilt: Tilt, gradient: Tensor | None) -> Tensor:
    """Return the sum of the pairs' losses, and add its gradient times temperature to ``gradient``.

    A sweep over the tiles sums the negatives of each anchor, a second one weighs them by what the positives leave.
    """
    n, num_tiled = len(z), len(z) * (len(z) // 2 + TILE_ROWS + len(everyone) - len(z))
    room = 0 if gradient is None else min(KEPT_ELEMENTS, tilt.kinds_pushed * num_tiled)
    memory, used, loss = z.new_empty(room + 2 * TILE_ROWS * TILE_COLUMNS), 0, z.new_zeros(())
    kept: dict[tuple[int, int], Tensor] = {}

    def terms(rows: slice, columns: slice, kinds: int) -> Tensor:
        tiles = view(memory[used:], kinds, rows, columns)
        torch.mm(z[rows] * tilt.exponent, everyone[columns].T, out=tiles[0])
        layout.hide(tiles[0], rows, columns)
        return tilt.terms(tiles)

    sums = tilt.empty_sums(z, layout)
    for rows, columns in layout.tiles(TILE_ROWS, TILE_COLUMNS):
        tiles = terms(rows, columns, tilt.kinds_summed)
        sums[: len(tiles), rows] += tiles.sum(2)
        if rows.start < columns.start < n:
            sums[: len(tiles), columns] += tiles.sum(1)
        tiles = tiles[: tilt.kinds_pushed]
        if used + tiles.numel() <= room:
            kept[rows.start, columns.start] = tiles
            used += tiles.numel()

    push = _pull(z, layout, tilt, tilt.of_negatives(sums, layout), loss, gradient)
    if gradient is None:
        return loss

    pushes = tilt.pushes(push, sums)
    mirrored, buffer = _mirrored(pushes, len(everyone)), z.new_empty(2 * TILE_ROWS * TILE_COLUMNS)
    for rows, columns in layout.tiles(TILE_ROWS, TILE_COLUMNS):
        at = rows.start, columns.start
        tiles = kept[at] if at in kept else terms(rows, columns, tilt.kinds_pushed)
        weights = view(buffer, len(tiles), rows, columns)
        torch.add(pushes[:, rows, None], mirrored[:, None, columns], out=weights)
        matrix = _weigh(tiles, weights)
        gradient[rows].addmm_(matrix, everyone[columns])
        if rows.start < columns.start < n:
            gradient[columns].addmm_(matrix.T, z[rows])
    return loss


def _weigh(tiles: Tensor, weights: Tensor) -> Tensor:
    """Add up the kinds of terms, each by its weights, in place of the first."""
    matrix = tiles[0].mul_(weights[0])
    return matrix.addcmul_(tiles[1], weights[1]) if len(weights) > 1 else matrix


def _pull(z: Tensor, layout: Layout, tilt: Tilt, negative: Tensor, loss: Tensor, gradient: Tensor | None) -> Tensor:
    """Add the pairs' losses to ``loss`` and what positives pull to ``gradient``; return what negatives are to push."""
    push = torch.zeros_like(negative)
    for rows in blocks(0, len(z), POSITIVE_ROWS):
        window = layout.window(rows)
        margin = torch.mm(z[rows] / tilt.temperature, z[window].T)
        pull = softplus(margin, negative[rows], layout, rows, loss)
        if gradient is not None:
            push[rows] = pull.sum(1)
            gradient[rows].addmm_(pull, z[window], alpha=-1)
            gradient[window].addmm_(pull.T, z[rows], alpha=-1)
    return push


def _strips(z: Tensor, everyone: Tensor, layout: Layout, tilt: Tilt, gradient: Tensor | None) -> Tensor:
    """Return and add the same as `_triangle`, for exponents of any size, in one sweep over strips of whole rows.

    Exponents are relative to each anchor's largest negative: terms neither overflow nor all vanish.
    """
    n, loss = len(z), z.new_zeros(())
    for strip in strips(z, everyone, layout, tilt, loss):
        if gradient is not None:
            rows = strip.rows
            matrix = _weigh(strip.terms, strip.pushes[:, :, None])
            matrix[:, layout.window(rows)].sub_(strip.pull)
            gradient[rows].addmm_(matrix, everyone)
            gradient.addmm_(matrix[:, :n].T, z[rows])
    return loss
