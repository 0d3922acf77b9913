"""The sampled contrastive loss, as in the paper's code: a few negatives are drawn for every pair."""

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
    """Sum psi over all (anchor, positive) pairs, with k negatives drawn by the hardened weights (Equation 25).

    No gradient flows through the draws. Random numbers are drawn for all pairs of the global batch, so that processes
    with the same generator state draw what a single process would.

    Args:
        z: Normalized features (N, d), float32 or float64, whose inner products are s.
        pairs: Positives and negatives of each anchor.
        usable: Usable pairs: indices (P,) of the anchors and (P,) of the positives, in ascending order.
        link: psi; it weights the drawn negatives equally, as the draws account for the hardness.
        hardening: eta, which gives the probabilities of the draws.
        temperature: tau.
        num_negatives: Number k of draws for each pair; 256 in the paper.
        pairs_per_sample: Number (N,) of usable pairs anchored at each sample of the batch, on the CPU.
        replacement: Whether a negative may be drawn more than once for a pair, as in the paper.
        fewer_if_scarce: Without replacement, draw fewer negatives if an anchor has fewer than k.
        share_draws: Draw once for each anchor instead of once for each of its positives: faster and also unbiased.
        generator: Generator of the draws, on the device of z; None for torch's default.
        tau_plus: Probability that a negative is of the anchor's class, for debiasing; InfoNCE only.
        past: Features (M, d) of the queue, the last columns of ``pairs``.
        rows: Slice of the samples that are the anchors of ``pairs``.

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
    """Draw columns of the rows ``drawers`` (D,) by inverting their cumulative weights at ``uniform`` (D, k).

    Equation 26. Row i is shifted by i, so that all rows form one ascending sequence; this avoids copying the weights
    for every pair of an anchor. It needs float64, as float32 cannot hold both row number and weight precisely.
    """
    cumulative = log_weights.exp().cumsum(1)
    cumulative /= cumulative[:, -1:].clone()
    cumulative += torch.arange(len(cumulative), device=cumulative.device)[:, None]
    row = drawers[:, None].double()
    at = torch.minimum(row + uniform, torch.nextafter(row + 1, row))
    return torch.searchsorted(cumulative.view(-1), at, right=True) - drawers[:, None] * log_weights.shape[1]


def _draw_without_replacement(log_weights: Tensor, k: int, uniform: Tensor, fewer_if_scarce: bool = False) -> Tensor:
    """Draw k different columns of each row, those with the largest log-weight plus Gumbel noise (Equation 27).

    Log-weights do not underflow.
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
