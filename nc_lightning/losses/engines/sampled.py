"""The contrastive loss as the paper's code estimates it: a few negatives drawn for every pair."""

import math

import torch
from torch import Tensor

from nc_lightning.geometry.placement import in_float64, statistics_device
from nc_lightning.losses.engines.autograd import debias
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.pairs import Pairs


def sampled_loss(
    z: Tensor,
    pairs: Pairs,
    usable: tuple[Tensor, Tensor],
    link: Link,
    hardening: Hardening,
    temperature: float | Tensor,
    num_negatives: int,
    pairs_per_sample: Tensor,
    replacement: bool = True,
    fewer_if_scarce: bool = False,
    share_draws: bool = False,
    generator: torch.Generator | None = None,
    tau_plus: float = 0.0,
    past: Tensor | None = None,
    rows: slice = slice(None),
) -> Tensor:
    """Sum over all (anchor, positive) pairs of psi over k negatives drawn from the hardened weights.

    Equation 25.

    No gradient flows through the draws. Random numbers are drawn for all pairs of the batch, whichever anchors are
    looked at: several processes that share a batch, and the state of their generators, draw what one would.

    Args:
        z: (N, d) normalized features, float32 or float64, whose inner products are s.
        pairs: Positives and negatives of each anchor.
        usable: Its usable pairs, (P,) anchors and (P,) positives, in ascending order.
        link: psi; its negatives weigh alike, as hardness is in the draws.
        hardening: eta, the weights that negatives are drawn with.
        temperature: tau.
        num_negatives: k, draws for each pair; 256 in the paper.
        pairs_per_sample: (N,) how many usable pairs each sample of the batch is the anchor of, on the CPU.
        replacement: Whether a negative may be drawn more than once for a pair, as in the paper.
        fewer_if_scarce: Whether to draw fewer without replacement where an anchor has fewer than k negatives.
        share_draws: Draw once for each anchor instead of once for each of its positives: faster, and as unbiased.
        generator: Source of the draws, on the device of z; None for torch's own.
        tau_plus: Probability that a negative is of the anchor's class, to be taken out of the mean; InfoNCE only.
        past: (M, d) features that are negatives only, the last columns of ``pairs``.
        rows: Which samples are the anchors of ``pairs``.

    Returns:
        0-dimensional sum.

    Raises:
        ValueError: If the generator is on another device, or k without replacement exceeds an anchor's negatives.
    """
    if generator is not None and generator.device.type != z.device.type:
        raise ValueError(f"generator: got one on {generator.device}, expected one on {z.device}, where z is")
    similarity = z[rows] @ (z if past is None else torch.cat([z, past])).T
    log_weights = hardening.log_weights(similarity.detach(), pairs.negatives)
    anchor, positive = usable
    draws = pairs_per_sample.clamp(max=1) if share_draws else pairs_per_sample
    drawers = torch.nonzero(draws[rows]).squeeze(1).to(z.device, non_blocking=True) if share_draws else anchor
    width = num_negatives if replacement else log_weights.shape[1]
    place = statistics_device(z.device)
    dtype = torch.float64 if place == z.device else torch.float32
    uniform = torch.rand(int(draws.sum()), width, dtype=dtype, device=z.device, generator=generator)
    uniform = in_float64(uniform[int(draws[: rows.start or 0].sum()) :][: len(drawers)], place)
    if replacement:
        negative = _draw(in_float64(log_weights, place), drawers.to(place), uniform).to(z.device)
    else:
        weights_of_drawers = log_weights[drawers].to(place)
        negative = _draw_without_replacement(weights_of_drawers, num_negatives, uniform, fewer_if_scarce).to(z.device)
        num_negatives = negative.shape[1]
    if share_draws:
        row = torch.empty_like(pairs.anchors, dtype=torch.long)
        row[drawers] = torch.arange(len(drawers), device=z.device)
        negative = negative[row[anchor]]
    t = (similarity[anchor[:, None], negative] - similarity[anchor, positive][:, None]) / temperature
    count = t.new_full((len(t),), float(num_negatives))
    if isinstance(link, InfoNCE):
        log_mean = t.logsumexp(1) - math.log(num_negatives)
        log_mean = debias(log_mean, similarity[anchor, positive] / temperature, temperature, tau_plus)
        return link.of_log_mean(log_mean, count).sum()
    return link(t, torch.full_like(t, -math.log(num_negatives)), count).sum()


def _draw(log_weights: Tensor, drawers: Tensor, uniform: Tensor) -> Tensor:
    """Draw columns of the rows ``drawers`` (D,), one for each of ``uniform`` (D, k): by their cumulative weights.

    Equation 26.

    All rows are one ascending sequence, each lifted by its number, so that weights are not copied for every pair of an
    anchor. It takes float64: float32 has too few digits for a number of a row and a weight.
    """
    cumulative = log_weights.exp().cumsum(1)
    cumulative /= cumulative[:, -1:].clone()
    cumulative += torch.arange(len(cumulative), device=cumulative.device)[:, None]
    row = drawers[:, None].double()
    at = torch.minimum(row + uniform, torch.nextafter(row + 1, row))
    return torch.searchsorted(cumulative.view(-1), at, right=True) - drawers[:, None] * log_weights.shape[1]


def _draw_without_replacement(log_weights: Tensor, k: int, uniform: Tensor, fewer_if_scarce: bool = False) -> Tensor:
    """Draw k different columns of each row: the largest of log-weight plus Gumbel noise, which no weight underflows.

    Equation 27.
    """
    available = (log_weights > torch.finfo(log_weights.dtype).min / 2).sum(1)
    fewest = int(available.min()) if len(available) > 0 else k
    if fewest < k and not fewer_if_scarce:
        raise ValueError(
            f"num_negatives: got {k} without replacement, expected at most {fewest}, the negatives of an anchor in "
            "this batch; use replacement=True or larger batches"
        )
    k = min(k, fewest)
    tiny = torch.finfo(uniform.dtype).tiny
    gumbel = -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
    return (log_weights + gumbel).topk(k, dim=1).indices
