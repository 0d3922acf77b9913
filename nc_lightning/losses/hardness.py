"""What hardening does to the negatives of a batch, in numbers that can be plotted."""

import torch
from torch import Tensor

from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.pairs import Negatives, Pairs, label_pairs

ELEMENTS_AT_ONCE = 2**22
"""How many similarities `negative_statistics` holds at a time."""


def effective_negatives(log_weights: Tensor) -> Tensor:
    """Effective number of negatives of each anchor, 1 / sum_n w_n^2.

    Range [1, number of negatives]: all of them without hardening or when all are equally hard (as at neural collapse),
    1 when a single negative takes the whole weight.

    Args:
        log_weights: (N, M) logarithms of the weights, from `Hardening.log_weights`.

    Returns:
        (N,)

    Example:
        >>> effective_negatives(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log())
        tensor([2., 1.])
    """
    return (-(2 * log_weights).logsumexp(1)).exp()


def false_negative_share(log_weights: Tensor, pairs: Pairs) -> Tensor:
    """Share of the weight that falls on negatives of the anchor's own class, for each anchor.

    Range [0, 1]. It is 0 by construction for the supervised objectives; for the unsupervised ones it says how much of
    the hardness goes into pushing a class apart.

    Args:
        log_weights: (N, M) logarithms of the weights, from `Hardening.log_weights`.
        pairs: Positives and negatives of each anchor.

    Returns:
        (N,)

    Example:
        >>> from nc_lightning.losses import Exponential
        >>> from nc_lightning.losses.pairs import label_pairs
        >>> pairs = label_pairs(torch.tensor([0, 0, 1, 1]), "all")
        >>> false_negative_share(Exponential(1.0).log_weights(torch.zeros(4, 4), pairs.negatives), pairs)
        tensor([0.3333, 0.3333, 0.3333, 0.3333])
    """
    return (log_weights.exp() * (pairs.positives & pairs.negatives)).sum(1)


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
        include_self: See `ContrastiveLoss`.
        past: (M, d) features that are negatives only.
        past_id: (M,) their ids.
        max_anchors: About how many anchors to look at, evenly spread; None for all.

    Returns:
        Means over the usable anchors, NaN if there is none: ``effective``, see `effective_negatives`, ``fraction``, its
        share of the negatives, and among ``all`` negatives ``false_share``, see `false_negative_share`.

    Example:
        >>> ids = torch.tensor([0, 0, 1, 1])
        >>> from nc_lightning.losses import Exponential
        >>> negative_statistics(torch.eye(4), ids, Exponential(3.0), negatives="other_classes", include_self=False)
        {'effective': tensor(2.), 'fraction': tensor(1.)}
    """
    everyone = z if past is None else torch.cat([z, past])
    step = 1 if max_anchors is None else max(1, len(z) // max_anchors)
    height = step * max(1, ELEMENTS_AT_ONCE // max(1, len(everyone)))
    usable: list[Tensor] = []
    parts: dict[str, list[Tensor]] = {"effective": [], "fraction": [], "false_share": []}
    for start in range(0, len(z), height):
        rows = slice(start, start + height, step)
        similarity, pairs = z[rows] @ everyone.T, label_pairs(ids, negatives, include_self, past_id, rows)
        log_weights = hardening.log_weights(similarity, pairs.negatives)
        effective = effective_negatives(log_weights)
        of_anchors = {"effective": effective, "fraction": effective / pairs.negatives.sum(1)}
        if negatives == "all":
            of_anchors["false_share"] = false_negative_share(log_weights, pairs)
        # An anchor of no use counts 0: to pick the others, a GPU would be waited for.
        usable.append(pairs.anchors)
        for name, values in of_anchors.items():
            parts[name].append(values.where(pairs.anchors, 0.0))
    count = torch.cat(usable).sum()
    return {name: torch.cat(values).sum() / count for name, values in parts.items() if values}
