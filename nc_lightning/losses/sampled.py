"""The contrastive loss as the paper's code estimates it: a few negatives drawn for every pair."""

import math

import torch
from torch import Tensor

from nc_lightning.losses.general import debias
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.pairs import Pairs


def sampled_loss(
    z: Tensor,
    pairs: Pairs,
    link: Link,
    hardening: Hardening,
    temperature: float | Tensor,
    num_negatives: int,
    replacement: bool = True,
    share_draws: bool = False,
    generator: torch.Generator | None = None,
    tau_plus: float = 0.0,
    past: Tensor | None = None,
) -> Tensor:
    """Mean over all (anchor, positive) pairs of psi over k negatives drawn from the hardened weights.

    No gradient flows through the draws.

    Args:
        z: (N, d) normalised features, float32 or float64, whose inner products are s.
        pairs: Positives and negatives of each anchor; there must be a usable pair.
        link: psi; its negatives weigh alike, as hardness is in the draws.
        hardening: eta, the weights that negatives are drawn with.
        temperature: tau.
        num_negatives: k, draws for each pair; 256 in the paper.
        replacement: Whether a negative may be drawn more than once for a pair, as in the paper.
        share_draws: Draw once for each anchor instead of once for each of its positives: faster, and as unbiased.
        generator: Source of the draws, on the device of z; None for torch's own.
        tau_plus: Probability that a negative is of the anchor's class, to be taken out of the mean; InfoNCE only.
        past: (M, d) features that are negatives only, the last columns of ``pairs``.

    Returns:
        0-dimensional loss.

    Raises:
        ValueError: If the generator is on another device, or k without replacement exceeds an anchor's negatives.
    """
    if generator is not None and generator.device.type != z.device.type:
        raise ValueError(f"generator: got one on {generator.device}, expected one on {z.device}, where z is")
    similarity = z @ (z if past is None else torch.cat([z, past])).T
    log_weights = hardening.log_weights(similarity.detach(), pairs.negatives)
    anchor, positive = pairs.usable()
    drawers = torch.nonzero(pairs.anchors).squeeze(1) if share_draws else anchor
    if replacement:
        drawn = torch.multinomial(log_weights.exp()[drawers], num_negatives, replacement=True, generator=generator)
    else:
        drawn = _draw_without_replacement(log_weights[drawers], num_negatives, generator)
    if share_draws:
        row = torch.empty_like(pairs.anchors, dtype=torch.long)
        row[drawers] = torch.arange(len(drawers), device=z.device)
        drawn = drawn[row[anchor]]
    t = (similarity[anchor[:, None], drawn] - similarity[anchor, positive][:, None]) / temperature
    count = t.new_full((len(t),), float(num_negatives))
    if isinstance(link, InfoNCE):
        log_mean = t.logsumexp(1) - math.log(num_negatives)
        log_mean = debias(log_mean, similarity[anchor, positive] / temperature, temperature, tau_plus)
        return link.of_log_mean(log_mean, count).mean()
    return link(t, torch.full_like(t, -math.log(num_negatives)), count).mean()


def _draw_without_replacement(log_weights: Tensor, k: int, generator: torch.Generator | None) -> Tensor:
    """Draw k different columns of each row: the largest of log-weight plus Gumbel noise, which no weight underflows."""
    available = (log_weights > torch.finfo(log_weights.dtype).min / 2).sum(1)
    if int(available.min()) < k:
        raise ValueError(
            f"num_negatives: got {k} without replacement, expected at most {int(available.min())}, the negatives of an "
            "anchor in this batch; use replacement=True or larger batches"
        )
    uniform = torch.rand(log_weights.shape, dtype=log_weights.dtype, device=log_weights.device, generator=generator)
    tiny = torch.finfo(log_weights.dtype).tiny
    gumbel = -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
    return (log_weights + gumbel).topk(k, dim=1).indices
