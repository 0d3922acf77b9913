"""The contrastive loss for any link and any hardening, by plain automatic differentiation."""

import math

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import InfoNCE, Link
from nc_lightning.losses.pairs import Pairs

PAIRS_AT_ONCE = 2**22
"""Number of (pair, negative) values held at a time for links other than InfoNCE."""


def general_loss(
    z: Tensor,
    pairs: Pairs,
    usable: tuple[Tensor, Tensor],
    link: Link,
    hardening: Hardening,
    temperature: float | Tensor,
    differentiate: bool,
    tau_plus: float = 0.0,
    past: Tensor | None = None,
    rows: slice = slice(None),
) -> Tensor:
    """Sum psi over all (anchor, positive) pairs, in expectation over the batch's negatives (Equation 23).

    InfoNCE needs only one number per anchor from the negatives. Other links need every triple of anchor, positive and
    negative; these are computed in chunks, and recomputed for the gradient, so that memory stays O(N^2).

    Args:
        z: Normalized features (N, d), float32 or float64, whose inner products are s.
        pairs: Positives and negatives of each anchor.
        usable: Usable pairs: indices (P,) of the anchors and (P,) of the positives.
        link: psi.
        hardening: eta, which weights the negatives.
        temperature: tau.
        differentiate: Whether gradients flow through the weights.
        tau_plus: Probability that a negative is of the anchor's class, for debiasing; InfoNCE only.
        past: Features (M, d) of the queue, the last columns of ``pairs``.
        rows: Slice of the samples that are the anchors of ``pairs``.

    Returns:
        0-dimensional sum.
    """
    similarity = z[rows] @ (z if past is None else torch.cat([z, past])).T
    log_weights = hardening.log_weights(similarity if differentiate else similarity.detach(), pairs.negatives)
    anchor, positive = usable
    count = pairs.negatives.sum(1).to(z)
    logits = similarity / temperature
    if isinstance(link, InfoNCE):
        log_mean = (logits + log_weights).logsumexp(1)[anchor] - logits[anchor, positive]
        log_mean = debias(log_mean, logits[anchor, positive], temperature, tau_plus)
        return link.of_log_mean(log_mean, count[anchor]).sum()

    def chunk(logits: Tensor, log_weights: Tensor, anchor: Tensor, positive: Tensor) -> Tensor:
        t = logits[anchor] - logits[anchor, positive][:, None]
        return link(t, log_weights[anchor], count[anchor]).sum()

    size = max(1, PAIRS_AT_ONCE // similarity.shape[1])
    total = similarity.sum() * 0.0  # keeps the graph connected even without pairs
    for part in torch.arange(len(anchor), device=z.device).split(size):
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
        >>> debias(torch.zeros(1), torch.ones(1), temperature=1.0, tau_plus=0.1)
        tensor([0.])
    """
    if tau_plus == 0:
        return log_mean
    share = tau_plus * (-log_mean).exp()
    above = share < 1
    rest = torch.where(above, log_mean + torch.log1p(-torch.where(above, share, 0.0)), -torch.inf)
    return torch.maximum(rest - math.log1p(-tau_plus), -1 / temperature - positive)
