"""The contrastive loss for any link and any hardening, by automatic differentiation of a few anchors at a time."""

import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nc_lightning.losses.engines.known_gradient import Result, with_known_gradient
from nc_lightning.losses.engines.sorted_batch import SortedBatch, slices
from nc_lightning.losses.engines.tile_sizes import tile_sizes
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.pairs import Pairs

Block = tuple[slice, Tensor | None]
"""A slice of the samples that are anchors, and the random numbers of their draws."""
Estimate = Callable[[Tensor, slice, Tensor | None, float | Tensor], Tensor]
"""Function of the similarities (rows, M) of anchors, their slice, random numbers and tau: the sum of their losses."""


def blocks_of_anchors(z: Tensor, batch: SortedBatch, own: slice, link: Link) -> Iterator[Block]:
    """Split the anchors of this process into blocks, so that few elements are held at a time.

    InfoNCE needs the similarities of an anchor; other links need them once for each of its positives.
    """
    per_anchor = len(batch.label) * (1 if isinstance(link, InfoNCE) else batch.windows.widest)
    return ((rows, None) for rows in slices(own.start, own.stop, anchors_at_once(z, per_anchor)))


def anchors_at_once(z: Tensor, per_anchor: int) -> int:
    """Return how many anchors to compute at once on the device of z if each takes a number of elements.

    Example:
        >>> anchors_at_once(torch.zeros(3, 2), per_anchor=2**18)
        2
    """
    return max(1, tile_sizes(z).row_block // per_anchor)


def sum_over_anchors(
    z: Tensor,
    temperature: float | Tensor,
    blocks: Iterable[Block],
    estimate: Estimate,
    past: Tensor | None = None,
) -> Tensor:
    """Sum the losses of blocks of anchors (Equation 23); the gradient of each is formed before the next.

    Args:
        z: Normalized features (N, d), float32 or float64, whose inner products are s.
        temperature: tau; a tensor of shape () to learn it.
        blocks: Blocks of anchors.
        estimate: Function that sums the losses of a block; differentiable in its similarities and the temperature.
        past: Features (M, d) of the queue, the last columns of the similarities.

    Returns:
        0-dimensional sum. First derivatives only.

    Example:
        >>> blocks = [(slice(0, 2), None), (slice(2, 3), None)]
        >>> sum_over_anchors(torch.eye(3), 0.5, blocks, lambda s, rows, _, tau: s.sum() / tau)
        tensor(6.)
    """

    def compute(z: Tensor, with_gradient: bool, with_temperature: bool) -> Result:
        everyone, total = z if past is None else torch.cat([z, past]), z.new_zeros(())
        gradient = torch.zeros_like(z) if with_gradient else None
        tau = temperature.detach().requires_grad_(with_temperature) if isinstance(temperature, Tensor) else temperature
        of_temperature = torch.zeros_like(tau) if isinstance(tau, Tensor) and with_temperature else None
        for rows, uniform in blocks:
            similarity = (z[rows] @ everyone.T).requires_grad_(with_gradient)
            with torch.set_grad_enabled(with_gradient):
                loss = estimate(similarity, rows, uniform, tau)
            total += loss.detach()
            if gradient is None:
                continue
            sources = [similarity] if of_temperature is None else [similarity, tau]
            matrix, *of_tau = torch.autograd.grad(loss, sources, materialize_grads=True)  # type: ignore[arg-type]
            gradient[rows].addmm_(matrix, everyone)
            gradient.addmm_(matrix[:, : len(z)].T, z[rows])
            if of_temperature is not None:
                of_temperature += of_tau[0]
        return total, gradient, of_temperature

    return with_known_gradient(compute, z, temperature)


def general_loss(
    similarity: Tensor,
    pairs: Pairs,
    usable: tuple[Tensor, Tensor],
    link: Link,
    hardening: Hardening,
    temperature: float | Tensor,
    differentiate: bool,
    tau_plus: float = 0.0,
) -> Tensor:
    """Sum psi over all (anchor, positive) pairs, in expectation over the batch's negatives (Equation 23).

    InfoNCE needs only one number per anchor from the negatives. Other links need every triple of anchor, positive and
    negative; if there are many, these are computed in chunks, and recomputed for the gradient.

    Args:
        similarity: Similarities s (rows, M) of anchors to all samples.
        pairs: Positives and negatives of each anchor.
        usable: Usable pairs: indices (P,) of the anchors and (P,) of the positives.
        link: psi.
        hardening: eta, which weights the negatives.
        temperature: tau.
        differentiate: Whether gradients flow through the weights.
        tau_plus: Probability that a negative is of the anchor's class, for debiasing; InfoNCE only.

    Returns:
        0-dimensional sum.
    """
    log_weights = hardening.log_weights(similarity if differentiate else similarity.detach(), pairs.negatives)
    anchor, positive = usable
    count = pairs.negatives.sum(1).to(similarity)
    logits = similarity / temperature
    if isinstance(link, InfoNCE):
        log_mean = (logits + log_weights).logsumexp(1)[anchor] - logits[anchor, positive]
        log_mean = debias(log_mean, logits[anchor, positive], temperature, tau_plus)
        return link.of_log_mean(log_mean, count[anchor]).sum()

    def chunk(logits: Tensor, log_weights: Tensor, anchor: Tensor, positive: Tensor) -> Tensor:
        t = logits[anchor] - logits[anchor, positive][:, None]
        return link(t, log_weights[anchor], count[anchor]).sum()

    size = max(1, tile_sizes(similarity).row_block // similarity.shape[1])
    if len(anchor) <= size:
        return chunk(logits, log_weights, anchor, positive)
    total = similarity.sum() * 0.0  # keeps the graph connected even without pairs
    for part in torch.arange(len(anchor), device=similarity.device).split(size):
        total = total + checkpoint(
            chunk, logits, log_weights, anchor[part], positive[part], use_reentrant=False, preserve_rng_state=False
        )
    return total


def debias(log_mean: Tensor, positive: Tensor, temperature: float | Tensor, tau_plus: float) -> Tensor:
    """Remove the anchor's own class from a mean over negatives: log max((u - tau_plus) / (1 - tau_plus), u_smallest).

    Equation 24. A negative of the anchor's class is assumed to be as similar as its positive, so that it adds e^0 with
    probability ``tau_plus``. On the unit sphere u is at least u_smallest = e^{(-1 - s_positive) / temperature}.

    Args:
        log_mean: Logarithm (P,) of u, the weighted mean of e^{t_n}.
        positive: Similarities (P,) of the positives over the temperature, s_positive / tau.
        temperature: tau.
        tau_plus: Probability in [0, 1) that a negative is of the anchor's class; 0 returns the mean unchanged.

    Returns:
        (P,)

    Source:
        Robinson et al. (2021), arXiv 2010.04592, and Chuang et al. (2020), arXiv 2007.00224, eq. 7.

    Example:
        >>> debias(torch.ones(1), torch.ones(1), temperature=1.0, tau_plus=0.1)
        tensor([1.0679])
    """
    if tau_plus == 0:
        return log_mean
    log_share = math.log(tau_plus) - log_mean
    above = log_share < 0
    rest = torch.where(above, log_mean + torch.log1p(-torch.where(above, log_share, -1.0).exp()), -torch.inf)
    return torch.maximum(rest - math.log1p(-tau_plus), -1 / temperature - positive)
