"""The contrastive loss in its exact form: the expectation over all negatives of the batch."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nc_lightning.losses.links import InfoNCE
from nc_lightning.losses.pairs import Pairs


def exact_loss(z: Tensor, pairs: Pairs, link: InfoNCE, beta: float, temperature: float, differentiate: bool) -> Tensor:
    """Mean over all (anchor, positive) pairs of log(alpha + sum_n w_n e^{t_n}), t_n = (s_in - s_ij) / temperature.

    With L_i = log sum_n w_n e^{s_in / temperature} the loss of a pair is log alpha + softplus(L_i - log alpha -
    s_ij / temperature). Sums of exponentials are taken relative to each row's largest negative, so they neither
    overflow nor vanish, whatever the temperature, the hardness and the scale of the features. Value and gradient are
    formed together in one sweep.

    Args:
        z: (N, d) normalised features, float32 or float64, whose inner products are s.
        pairs: Positives and negatives of each anchor.
        link: InfoNCE with alpha > 0; its sum form multiplies the sum by the number of the anchor's negatives.
        beta: Hardness of the weights w_n ~ e^{beta s_in}.
        temperature: tau.
        differentiate: Whether gradients flow through the weights.

    Returns:
        0-dimensional loss in nats. There must be a usable pair. First derivatives only.
    """
    loss: Tensor = _ExactLoss.apply(z, pairs, link, beta, temperature, differentiate)
    return loss


class _ExactLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, z: Tensor, pairs: Pairs, link: InfoNCE, beta: float, temperature: float, differentiate: bool
    ) -> Tensor:
        similarity = z @ z.T
        hardest, easy, hard = _row_sums(similarity, pairs.negatives, beta, temperature)
        easy_sum, hard_sum = easy.sum(1), hard.sum(1)
        negative = hardest / temperature + (hard_sum / easy_sum).log() - math.log(link.alpha)
        if link.form == "sum":
            negative += pairs.negatives.sum(1).to(z).log()

        anchor, positive = pairs.usable()
        t = negative[anchor] - similarity[anchor, positive] / temperature
        loss = math.log(link.alpha) - torch.nn.functional.logsigmoid(-t).sum() / len(t)
        if not ctx.needs_input_grad[0]:
            return loss

        pull = t.sigmoid() / (len(t) * temperature)
        push = torch.zeros_like(negative).index_add_(0, anchor, pull)
        gradient = hard.mul_((push / hard_sum).nan_to_num_(0.0)[:, None])
        if differentiate and beta > 0:
            # The weights' own derivative: d log w_n / d s_in, beta times (hardened share - easy share).
            gradient.mul_(1 + beta * temperature)
            gradient.sub_(easy.mul_((push * beta * temperature / easy_sum).nan_to_num_(0.0)[:, None]))
        gradient.index_put_((anchor, positive), -pull, accumulate=True)
        # s = z z^T is symmetric, so that its gradient reaches z from both sides, in one product.
        ctx.save_for_backward((gradient + gradient.T) @ z)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output, None, None, None, None, None


def _row_sums(similarity: Tensor, negatives: Tensor, beta: float, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's largest negative m, and e^{beta (s - m)} and e^{(beta + 1/tau) (s - m)}, 0 off the mask."""
    logits = similarity.masked_fill(~negatives, -torch.inf)
    hardest = logits.amax(1)
    hardest = torch.where(hardest > -torch.inf, hardest, 0.0)
    logits.sub_(hardest[:, None])
    # 0 * -inf is NaN: without hardness the easy terms are the mask itself.
    easy = (beta * logits).exp_() if beta > 0 else negatives.to(similarity.dtype)
    return hardest, easy, logits.mul_(beta + 1 / temperature).exp_()
