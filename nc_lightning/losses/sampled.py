"""The contrastive loss as the paper's code estimates it: a few negatives drawn for every pair."""

import torch
from torch import Tensor

from nc_lightning.losses.exact import log_weights
from nc_lightning.losses.pairs import Pairs


def sampled_loss(z: Tensor, pairs: Pairs, beta: float, temperature: float, num_negatives: int) -> Tensor:
    """Mean over all (anchor, positive) pairs of log(1 + mean_k e^{t_k}), over k drawn negatives.

    Draws are independent, from the tilted weights and with replacement, by torch's global generator; no gradient flows
    through them.

    Args:
        z: (N, d) normalised features, float32 or float64, whose inner products are s.
        pairs: Positives and negatives of each anchor.
        beta: Hardness of the weights w_n ~ e^{beta s_in}.
        temperature: tau.
        num_negatives: k, draws for each pair; 256 in the paper.

    Returns:
        0-dimensional loss in nats. There must be a usable pair.
    """
    similarity = z @ z.T
    anchor, positive = pairs.usable()
    weights = log_weights(similarity.detach(), pairs.negatives, beta).exp()
    drawn = torch.multinomial(weights[anchor], num_negatives, replacement=True)
    scaled = similarity / temperature
    negative = scaled[anchor[:, None], drawn].logsumexp(1) - similarity.new_tensor(num_negatives).log()
    return -torch.nn.functional.logsigmoid(scaled[anchor, positive] - negative).mean()
