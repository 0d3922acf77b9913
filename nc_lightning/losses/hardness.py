"""What hardening does to the negatives of a batch, in numbers that can be plotted."""

import torch
from torch import Tensor

from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.pairs import Pairs


@torch.no_grad()
def effective_negatives(similarity: Tensor, pairs: Pairs, hardening: Hardening) -> Tensor:
    """Effective number of negatives, 1 / sum_n w_n^2, of each usable anchor.

    Range [1, number of negatives]: all of them without hardening or when all are equally hard (as at neural collapse),
    1 when a single negative takes the whole weight.

    Args:
        similarity: (N, M) inner products.
        pairs: Positives and negatives of each anchor.
        hardening: eta.

    Returns:
        (A,), one for each of the usable anchors.

    Example:
        >>> from nc_lightning.losses import Exponential
        >>> from nc_lightning.losses.pairs import label_pairs
        >>> pairs = label_pairs(torch.tensor([0, 0, 1, 1]), "other_classes")
        >>> effective_negatives(torch.eye(4), pairs, Exponential(3.0)).tolist()
        [2.0, 2.0, 2.0, 2.0]
    """
    log_sum_of_squares = (2 * hardening.log_weights(similarity, pairs.negatives)[pairs.anchors]).logsumexp(1)
    return (-log_sum_of_squares).exp()


@torch.no_grad()
def false_negative_share(similarity: Tensor, pairs: Pairs, hardening: Hardening) -> Tensor:
    """Share of the weight that falls on negatives of the anchor's own class, for each usable anchor.

    Range [0, 1]. It is 0 by construction for the supervised objectives; for the unsupervised ones it says how much of
    the hardness goes into pushing a class apart.

    Args:
        similarity: (N, M) inner products.
        pairs: Positives and negatives of each anchor.
        hardening: eta.

    Returns:
        (A,), one for each of the usable anchors.

    Example:
        >>> from nc_lightning.losses import Exponential
        >>> from nc_lightning.losses.pairs import label_pairs
        >>> pairs = label_pairs(torch.tensor([0, 0, 1, 1]), "all")
        >>> false_negative_share(torch.zeros(4, 4), pairs, Exponential(1.0))
        tensor([0.3333, 0.3333, 0.3333, 0.3333])
    """
    weights = hardening.log_weights(similarity, pairs.negatives).exp()
    return (weights * (pairs.positives & pairs.negatives)).sum(1)[pairs.anchors]
