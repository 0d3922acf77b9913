"""What hardening does to the negatives of a batch, in numbers that can be plotted."""

import torch
from torch import Tensor

from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.pairs import Negatives, Pairs, label_pairs

ELEMENTS_AT_ONCE = 2**22
"""How many similarities `negative_statistics` holds at a time."""


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


@torch.no_grad()
def negative_statistics(
    z: Tensor,
    ids: Tensor,
    hardening: Hardening,
    *,
    negatives: Negatives,
    include_self: bool,
    past: Tensor | None = None,
    past_id: Tensor | None = None,
    max_anchors: int | None = None,
) -> dict[str, Tensor]:
    """Say what a hardening does to the negatives of a batch, in memory of O(N).

    Args:
        z: (N, d) normalised features.
        ids: (N,) integers; equal ones are positives of each other.
        hardening: eta.
        negatives: ``other_classes`` or ``all`` other samples.
        include_self: As of `ContrastiveLoss`.
        past: (M, d) features that are negatives only.
        past_id: (M,) their ids.
        max_anchors: About how many anchors to look at, evenly spread; None for all.

    Returns:
        Means over the usable anchors, NaN if there is none: ``effective`` as of `effective_negatives`, ``fraction``,
        its share of the negatives, and among ``all`` negatives ``false_share`` as of `false_negative_share`.

    Example:
        >>> ids = torch.tensor([0, 0, 1, 1])
        >>> from nc_lightning.losses import Exponential
        >>> negative_statistics(torch.eye(4), ids, Exponential(3.0), negatives="other_classes", include_self=False)
        {'effective': tensor(2.), 'fraction': tensor(1.)}
    """
    everyone = z if past is None else torch.cat([z, past])
    step = 1 if max_anchors is None else max(1, len(z) // max_anchors)
    height = step * max(1, ELEMENTS_AT_ONCE // max(1, len(everyone)))
    of_anchors: dict[str, list[Tensor]] = {"effective": [], "fraction": [], "false_share": []}
    for start in range(0, len(z), height):
        rows = slice(start, start + height, step)
        similarity, pairs = z[rows] @ everyone.T, label_pairs(ids, negatives, include_self, past_id, rows)
        effective = effective_negatives(similarity, pairs, hardening)
        of_anchors["effective"].append(effective)
        of_anchors["fraction"].append(effective / pairs.negatives.sum(1)[pairs.anchors])
        if negatives == "all":
            of_anchors["false_share"].append(false_negative_share(similarity, pairs, hardening))
    return {name: torch.cat(parts).mean() for name, parts in of_anchors.items() if parts}
