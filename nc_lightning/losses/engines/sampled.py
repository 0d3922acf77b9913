"""The sampled contrastive loss, as in the paper's code: a few negatives are drawn for every pair."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nc_lightning.geometry.placement import in_float64, statistics_device
from nc_lightning.losses.engines.autograd import Block, anchors_at_once, debias
from nc_lightning.losses.engines.sorted_batch import SortedBatch, slices
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.pairs import Pairs


class Draws(NamedTuple):
    """How negatives are drawn for the pairs of a batch.

    Attributes:
        num_negatives: Number k of draws for each pair; 256 in the paper.
        replacement: Whether a negative may be drawn more than once for a pair, as in the paper.
        fewer_if_scarce: Without replacement, draw all negatives of an anchor that has fewer than k.
        share: Draw once for each anchor instead of once for each of its positives: faster and also unbiased.
    """

    num_negatives: int
    replacement: bool = True
    fewer_if_scarce: bool = False
    share: bool = False

    def per_sample(self, batch: SortedBatch) -> Tensor:
        """Return the number of draws (N,) for each sample as an anchor, on the CPU."""
        pairs = batch.pairs_per_sample()
        return pairs.clamp(max=1) if self.share else pairs

    def width(self, batch: SortedBatch) -> int:
        """Return the number of random numbers of a draw."""
        return self.num_negatives if self.replacement else len(batch.label)

    def blocks_of_anchors(
        self, z: Tensor, batch: SortedBatch, own: slice, generator: torch.Generator | None = None
    ) -> Iterator[Block]:
        """Split the anchors of this process into blocks, each with the random numbers (D, width) of its draws.

        Numbers are generated for the draws of the global batch, so that processes with the same generator state draw
        what a single process would, and then have the same state again. They are in [0, 1), float64, on the
        `statistics_device`.

        Raises:
            ValueError: If the generator is not on the device of z, or k without replacement exceeds the negatives of an
                anchor of the global batch; then on every process.
        """
        device, draws, width = z.device, self.per_sample(batch), self.width(batch)
        if generator is not None and generator.device.type != device.type:
            raise ValueError(f"generator: got one on {generator.device}, expected one on {device}, where z is")
        must_have_k = not (self.replacement or self.fewer_if_scarce)
        if must_have_k and (fewest := batch.fewest_negatives()) < self.num_negatives:
            raise ValueError(too_few(self.num_negatives, fewest))
        place = statistics_device(device)
        options: dict[str, Any] = {"dtype": torch.float64 if place == device else torch.float32, "device": device}
        per_anchor = len(batch.label) + int(draws.max()) * width + batch.windows.widest * self.num_negatives
        for block in slices(0, len(batch.order), anchors_at_once(z, per_anchor)):
            uniform = torch.rand(int(draws[block].sum()), width, generator=generator, **options)
            start = min(max(block.start, own.start), block.stop)
            rows = slice(start, max(start, min(block.stop, own.stop)))
            if rows.start < rows.stop:
                before = int(draws[block.start : rows.start].sum())
                yield rows, in_float64(uniform[before : before + int(draws[rows].sum())], place)


def sampled_loss(
    similarity: Tensor,
    pairs: Pairs,
    usable: tuple[Tensor, Tensor],
    link: Link,
    hardening: Hardening,
    temperature: float | Tensor,
    draws: Draws,
    uniform: Tensor,
    tau_plus: float = 0.0,
) -> Tensor:
    """Sum psi over all (anchor, positive) pairs, with k negatives drawn by the hardened weights (Equation 25).

    No gradient flows through the draws.

    Args:
        similarity: Similarities s (rows, M) of anchors to all samples.
        pairs: Positives and negatives of each anchor.
        usable: Usable pairs: indices (P,) of the anchors and (P,) of the positives, in ascending order.
        link: psi; it weights the drawn negatives equally, as the draws account for the hardness.
        hardening: eta, which gives the probabilities of the draws.
        temperature: tau.
        draws: How negatives are drawn.
        uniform: Random numbers (D, k) of the draws, or (D, M) without replacement, see `Draws.blocks_of_anchors`.
        tau_plus: Probability that a negative is of the anchor's class, for debiasing; InfoNCE only.

    Returns:
        0-dimensional sum.

    Raises:
        ValueError: If k without replacement exceeds an anchor's negatives.
    """
    log_weights = hardening.log_weights(similarity.detach(), pairs.negatives)
    (anchor, positive), k, drawers = usable, draws.num_negatives, usable[0]
    if draws.share:
        first = anchor.diff(prepend=anchor.new_full((1,), -1)) != 0  # pairs are sorted by anchor
        of_pair = first.cumsum(0) - 1
        drawers = torch.empty_like(anchor[: len(uniform)]).index_copy_(0, of_pair, anchor)
    if draws.replacement:
        negative = _draw(in_float64(log_weights, uniform.device), drawers.to(uniform.device), uniform)
        drawn = None
    else:
        weights = log_weights[drawers].to(uniform.device)
        negative, drawn = _draw_without_replacement(weights, k, uniform, draws.fewer_if_scarce)
    negative = negative.to(similarity.device)
    negative = negative[of_pair] if draws.share else negative
    to_positive = similarity[anchor, positive]
    t = (similarity[anchor[:, None], negative] - to_positive[:, None]) / temperature
    count = t.new_full((len(t),), float(k))
    if drawn is not None:
        count = drawn.to(t)[of_pair] if draws.share else drawn.to(t)
        is_drawn = torch.arange(t.shape[1], device=t.device) < count[:, None]
        log_weight = torch.where(is_drawn, -count.log()[:, None], torch.finfo(t.dtype).min)
    if isinstance(link, InfoNCE):
        log_mean = t.logsumexp(1) - math.log(k) if drawn is None else (t + log_weight).logsumexp(1)
        if tau_plus > 0:
            log_mean = debias(log_mean, to_positive / temperature, temperature, tau_plus)
        return link.of_log_mean(log_mean, count).sum()
    return link(t, torch.full_like(t, -math.log(k)) if drawn is None else log_weight, count).sum()


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


def _draw_without_replacement(
    log_weights: Tensor, k: int, uniform: Tensor, fewer_if_scarce: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw k different columns of each row, those with the largest log-weight plus Gumbel noise (Equation 27).

    Log-weights do not underflow. Also return the number of columns drawn of each row, which come first.
    """
    available = (log_weights > torch.finfo(log_weights.dtype).min / 2).sum(1)
    if not fewer_if_scarce and (available < k).any():
        raise ValueError(too_few(k, int(available.min())))
    tiny = torch.finfo(uniform.dtype).tiny
    gumbel = -(-uniform.clamp(min=tiny).log()).clamp(min=tiny).log()
    chosen = (log_weights + gumbel).topk(min(k, log_weights.shape[1]), dim=1).indices
    return chosen, available.clamp(max=k)


def too_few(k: int, fewest: int) -> str:
    """Return the message about an anchor that has fewer than k negatives."""
    return (
        f"num_negatives: got {k} without replacement, expected at most {fewest}, the negatives of an anchor in this "
        "batch; use replacement=True or larger batches"
    )
