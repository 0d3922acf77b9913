"""The exact contrastive loss of a labeled batch, in sweeps over tiles of its similarity matrix.

The gradient with respect to the similarities s = z z^T is, elementwise, a function of s_ij and four numbers of anchor i
and sample j, so that tiles of s need not be kept. As s is symmetric, its upper triangle suffices. Samples are sorted by
label, so that every class is a contiguous window. Several processes divide the tiles of the global batch, or the
threads of a single one those of a large batch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nc_lightning.distributed.global_batch import Shares
from nc_lightning.geometry import Normalization
from nc_lightning.geometry.normalization import normalize_rows_, pull_back_rows_
from nc_lightning.losses.engines.division import Division, elements_of
from nc_lightning.losses.engines.infonce_terms import InfoNCETerms
from nc_lightning.losses.engines.known_gradient import Result, gradient_of_temperature, with_known_gradient
from nc_lightning.losses.engines.row_blocks import pull_on_positives, row_blocks, view
from nc_lightning.losses.engines.sorted_batch import SortedBatch, slices
from nc_lightning.losses.engines.threads import Team, num_threads
from nc_lightning.losses.engines.tile_sizes import tile_sizes

# Chosen by timing: positives are handled one by one if they are at most this share of all pairs.
SQUARE_PAIRS = 1 / 6
# Share of the exponent range of the dtype that sums without a shift may use.
SAFE_SHARE = 0.95


def tiled_loss(
    z: Tensor,
    batch: SortedBatch,
    infonce: InfoNCETerms,
    normalization: Normalization = "none",
    past: Tensor | None = None,
    learnable: float | Tensor | None = None,
    shares: Shares | None = None,
) -> Tensor:
    """Compute the mean over all (anchor, positive) pairs of log(alpha + sum_n w_n e^{t_n}) (Equations 4 and 8).

    With L_i = log sum_n w_n e^{s_in / temperature} the loss of a pair is log alpha + softplus(L_i - log alpha -
    s_ij / temperature), or L_i - s_ij / temperature if alpha is 0. Value and gradient are computed together in O(N d)
    memory. A small batch is a single tile. Other hardenings than e^{beta s}, and exponents that could overflow, take
    blocks of whole rows.

    Args:
        z: Features (N, d), float32 or float64, whose inner products after normalization are s; on several processes
            those of this process.
        batch: Batch sorted by label; on several processes the global batch.
        infonce: Link, hardening and temperature.
        normalization: ``unit_ball``, ``unit_sphere`` or ``none``.
        past: Normalized features (M, d) of the queue, negatives only.
        learnable: Temperature as a tensor of shape () to learn, which needs detached weights and no queue; or a number.
        shares: Number of rows on each process; None on a single process.

    Returns:
        0-dimensional loss in nats, the same on all processes. Its gradient is to be averaged over processes; see
        Equations 19 and 21. First derivatives only.

    Source:
        Jiang et al. (2023), arXiv 2311.05139; gradient in the forward pass as in Hsu et al. (2024), arXiv 2410.10989.

    Example:
        >>> from nc_lightning.losses import InfoNCE
        >>> from nc_lightning.losses.engines.sorted_batch import sort_batch
        >>> z, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1])
        >>> batch = sort_batch(labels, "other_classes", include_self=False)
        >>> tiled_loss(z, batch, InfoNCETerms(InfoNCE(), beta=5.0, temperature=1.0, differentiate=False))
        tensor(0.1269)
    """

    def compute(z: Tensor, with_gradient: bool, with_temperature: bool) -> Result:
        # Each process normalizes its own rows; a single one those of the sorted batch, which saves a copy.
        mine, of_temperature = z[batch.order] if shares is None else z.clone(), None
        divisors = normalize_rows_(mine, normalization)
        with_gradient = with_gradient or (shares is not None and shares.learns)  # all processes must do the same
        z = mine if shares is None else shares.gather(mine)[batch.order]
        everyone = z if past is None or batch.past_order is None else torch.cat([z, past[batch.past_order]])
        division = Division.among(shares)
        engine = _engine(z, everyone, batch, infonce, normalization, division)

        def part(division: Division) -> Part:
            return engine(z, everyone, batch, infonce, with_gradient, division)

        # A hardening may be a function of the user, which may depend on the thread, or draw random numbers.
        divisible = z.device.type == "cpu" and shares is None and engine is not _square and infonce.hardening is None
        loss, gradient = _in_threads(part, z, everyone) if divisible else part(division)
        if gradient is not None:
            gradient = gradient if shares is None else shares.sum_of_own(batch.unsorted(gradient))
            gradient *= division.world_size / (batch.num_pairs * infonce.temperature)
            of_temperature = gradient_of_temperature(gradient, mine, infonce.temperature) if with_temperature else None
            pull_back_rows_(gradient, mine, divisors, normalization)
            gradient = batch.unsorted(gradient) if shares is None else gradient
        loss = loss / batch.num_pairs
        loss = loss if infonce.log_alpha == 0 else loss + infonce.log_alpha
        return loss, gradient, of_temperature

    return with_known_gradient(compute, z, learnable)


Part = tuple[Tensor, Tensor | None]
"""The sum of all pairs' losses, and the part of a process or thread of its gradient times the temperature."""
Engine = Callable[[Tensor, Tensor, SortedBatch, InfoNCETerms, bool, Division], Part]
"""Function of z, everyone, the batch, its terms, whether a gradient is needed, and the part of the work to do."""


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _in_threads(part: Callable[[Division], Part], z: Tensor, everyone: Tensor) -> Part:
    """Divide the work among threads if it is large enough, and sum their parts of the gradient."""
    size = num_threads(z, everyone)
    if size == 1:
        return part(Division(0, 1))
    team = Team(size)
    parts = team.run(lambda member: part(Division(member, size, team)))
    loss, gradient = parts[0]
    for _, other in parts[1:]:
        if gradient is not None and other is not None:
            gradient += other
    return loss, gradient


def _engine(
    z: Tensor,
    everyone: Tensor,
    batch: SortedBatch,
    infonce: InfoNCETerms,
    normalization: Normalization,
    division: Division,
) -> Engine:
    """Return the fastest engine for the hardening, the exponents and the number of pairs (Equation 15)."""
    if infonce.hardening is not None:
        return _row_blocks
    largest = 1.0
    if normalization == "none":
        # Reading it would synchronize with a GPU, where whole rows cost little more.
        is_read = z.device.type == "cpu"
        largest = division.largest(torch.linalg.vector_norm(everyone, dim=1).max()) ** 2 if is_read else math.inf
    exponents = infonce.exponent * largest + math.log2(len(everyone))
    if not exponents < SAFE_SHARE * math.log2(torch.finfo(z.dtype).max):
        return _row_blocks
    elements = len(z) * len(everyone)
    if division.world_size > 1 or elements > tile_sizes(z).square:
        return _triangle
    return _square if batch.num_pairs <= SQUARE_PAIRS * elements else _row_blocks


def _square(
    z: Tensor, everyone: Tensor, batch: SortedBatch, infonce: InfoNCETerms, with_gradient: bool, _: Division
) -> Part:
    """Compute a small batch as a single tile, and its positives one by one (Equation 7)."""
    rows, past = slice(0, len(z)), slice(len(z), len(everyone))
    tiles = z.new_empty(infonce.kinds_summed, len(z), len(everyone))
    torch.mm(z * infonce.exponent, everyone.T, out=tiles[0])
    if not batch.include_self:
        tiles[0].diagonal().fill_(torch.inf)  # an anchor does not attract itself
    anchor, other = batch.same_group()
    at = other.add(anchor, alpha=len(everyone))
    margin = tiles[0].view(-1)[at].div_(infonce.exponent * infonce.temperature)
    if batch.other_classes and not batch.nested:
        tiles[0].view(-1).index_fill_(0, at, -torch.inf)
        batch.hide(tiles[0, :, past], rows, past)
    else:
        batch.hide(tiles[0], rows, slice(0, len(everyone)))
    infonce.terms(tiles)

    sums = tiles.sum(2)
    margin -= infonce.of_negatives(sums, batch)[anchor]
    loss = -infonce.negated_loss(margin)
    if not with_gradient:
        return loss, None

    pull = infonce.pull_(margin)
    push = torch.zeros_like(sums[0]).index_add_(0, anchor, pull)
    pushes = infonce.pushes(push, sums)
    # Terms without a gradient have been summed, and leave their place.
    weights = tiles[len(pushes) :] if len(tiles) > len(pushes) else torch.empty_like(tiles)
    torch.add(pushes[:, :, None], _mirror(pushes, len(everyone))[:, None], out=weights)
    matrix = _weigh(tiles[: len(pushes)], weights)
    matrix.view(-1).index_add_(0, at, pull, alpha=-1)
    matrix.view(-1).index_add_(0, anchor.add(other, alpha=len(everyone)), pull, alpha=-1)
    return loss, matrix @ everyone


def _mirror(pushes: Tensor, columns: int) -> Tensor:
    """Return the push of each column as an anchor; samples of the queue are not anchors."""
    past = columns - pushes.shape[1]
    return torch.nn.functional.pad(pushes, (0, past)) if past > 0 else pushes


def _triangle(
    z: Tensor, everyone: Tensor, batch: SortedBatch, infonce: InfoNCETerms, with_gradient: bool, division: Division
) -> Part:
    """Sum the negatives in one sweep over tiles, and form the gradient in a second (Equations 17, 18, 20)."""
    sizes, n, gradient = tile_sizes(z), len(z), torch.zeros_like(z) if with_gradient else None
    tiles_of_part = division.tiles(batch, sizes.rows, sizes.columns)
    elements = [elements_of(tile) for tile in tiles_of_part]
    of_weights = infonce.kinds_pushed * max(elements, default=0)
    tile = max(infonce.kinds_summed * max(elements, default=0), 2 * of_weights)
    kept = min(sizes.cache // division.threads - of_weights, infonce.kinds_pushed * sum(elements))
    room = 0 if gradient is None else max(0, kept)
    memory, offset = z.new_empty(room + tile), 0
    cache: dict[tuple[int, int], Tensor] = {}

    def terms(rows: slice, columns: slice, kinds: int) -> Tensor:
        tiles = view(memory[offset:], kinds, rows, columns)
        torch.mm(z[rows] * infonce.exponent, everyone[columns].T, out=tiles[0])
        batch.hide(tiles[0], rows, columns)
        return infonce.terms(tiles)

    sums = infonce.empty_sums(z)
    for rows, columns in division.steps(tiles_of_part):
        tiles = terms(rows, columns, infonce.kinds_summed)
        sums[:, rows] += tiles.sum(2)
        if rows.start < columns.start < n:
            sums[:, columns] += tiles.sum(1)
        tiles = tiles[: infonce.kinds_pushed]
        if offset + tiles.numel() <= room:
            cache[rows.start, columns.start] = tiles
            offset += tiles.numel()

    division.sum_(sums)
    push, loss = _pull(z, batch, infonce, infonce.of_negatives(sums, batch), gradient, division)
    if gradient is None:
        return loss, None

    pushes = infonce.pushes(push, sums)
    mirror, buffer = _mirror(pushes, len(everyone)), memory[len(memory) - of_weights :]
    for rows, columns in division.steps(tiles_of_part):
        at = rows.start, columns.start
        tiles = cache[at] if at in cache else terms(rows, columns, infonce.kinds_pushed)
        weights = view(buffer, len(tiles), rows, columns)
        torch.add(pushes[:, rows, None], mirror[:, None, columns], out=weights)
        matrix = _weigh(tiles, weights)
        gradient[rows].addmm_(matrix, everyone[columns])
        if rows.start < columns.start < n:
            gradient[columns].addmm_(matrix.T, z[rows])
    return loss, gradient


def _weigh(tiles: Tensor, weights: Tensor) -> Tensor:
    """Sum the kinds of terms, each multiplied by its weights, in place of the first kind."""
    matrix = tiles[0].mul_(weights[0])
    return matrix.addcmul_(tiles[1], weights[1]) if len(weights) > 1 else matrix


def _pull(
    z: Tensor,
    batch: SortedBatch,
    infonce: InfoNCETerms,
    negative: Tensor,
    gradient: Tensor | None,
    division: Division,
) -> tuple[Tensor, Tensor]:
    """Return each anchor's push and the sum of the pairs' losses; add the gradient of positives to ``gradient``.

    Equation 5.
    """
    sums, sizes, anchors = negative.new_zeros(len(negative) + 1), tile_sizes(z), division.anchors(batch)
    push, loss = sums[:-1], sums[-1]
    # The window of some rows extends beyond them by at most the positives of one anchor on either side.
    widest = sizes.positive_rows + 2 * batch.windows.widest
    height = max(1, min(sizes.positive_rows, sizes.positives // widest))
    for rows in division.steps(slices(anchors.start, anchors.stop, height)):
        window = batch.window(rows)
        margin = torch.mm(z[rows] / infonce.temperature, z[window].T)
        pull = pull_on_positives(margin, negative[rows], batch, rows, infonce, loss)
        if gradient is not None:
            push[rows] = pull.sum(1)
            gradient[rows].addmm_(pull, z[window], alpha=-1)
            gradient[window].addmm_(pull.T, z[rows], alpha=-1)
    division.sum_(sums)
    return push, loss


def _row_blocks(
    z: Tensor, everyone: Tensor, batch: SortedBatch, infonce: InfoNCETerms, with_gradient: bool, division: Division
) -> Part:
    """Compute the loss in a single sweep over blocks of whole rows, for any exponents and hardening (Equation 7)."""
    n, loss, gradient = len(z), z.new_zeros(()), torch.zeros_like(z) if with_gradient else None
    for block in division.steps(row_blocks(z, everyone, division.rows(batch), batch, infonce, loss)):
        if gradient is not None:
            rows = block.rows
            matrix = _weigh(block.terms, block.pushes[:, :, None])
            matrix[:, batch.window(rows)].sub_(block.pull)
            gradient[rows].addmm_(matrix, everyone)
            gradient.addmm_(matrix[:, :n].T, z[rows])
    division.sum_(loss)
    return loss, gradient
