"""Diagnostics of a batch: how hardening weights its negatives, and the distribution of similarities."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.checks import check_count, check_features, check_labels
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.pairs import Negatives, Pairs, label_pairs

ELEMENTS_AT_ONCE = 2**22
"""Number of similarities held in memory at a time."""


def effective_negatives(log_weights: Tensor) -> Tensor:
    """Compute the effective number of negatives of each anchor, 1 / sum_n w_n^2.

    Range [1, number of negatives]: the maximum without hardening or when all negatives are equally hard (as at
    supervised neural collapse), 1 when a single negative has all the weight.

    Args:
        log_weights: Logarithms of the weights (N, M), from `Hardening.log_weights`.

    Returns:
        (N,)

    Example:
        >>> effective_negatives(torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]).log())
        tensor([2., 1.])
    """
    return (-(2 * log_weights).logsumexp(1)).exp()


def false_negative_share(log_weights: Tensor, pairs: Pairs) -> Tensor:
    """Compute the share of each anchor's weight on negatives of its own class.

    Range [0, 1]; 0 by construction for the supervised objectives. For the unsupervised ones, it is the share of the
    repulsion that pushes a class apart.

    Args:
        log_weights: Logarithms of the weights (N, M), from `Hardening.log_weights`.
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
    classes: Tensor | None = None,
    max_anchors: int | None = None,
) -> dict[str, Tensor]:
    """Compute `ContrastiveLoss.negative_statistics` of normalized features in O(N) memory.

    Example:
        >>> ids = torch.tensor([0, 0, 1, 1])
        >>> from nc_lightning.losses import Exponential
        >>> negative_statistics(torch.eye(4), ids, Exponential(3.0), negatives="other_classes", include_self=False)
        {'effective': tensor(2.), 'fraction': tensor(1.)}
    """
    everyone = z if past is None else torch.cat([z, past])
    usable: list[Tensor] = []
    parts: dict[str, list[Tensor]] = {"effective": [], "fraction": [], "false_share": []}
    for rows in _blocks(len(z), len(everyone), max_anchors):
        similarity = z[rows] @ everyone.T
        pairs = label_pairs(ids, negatives, include_self, past_id, rows, classes)
        log_weights = hardening.log_weights(similarity, pairs.negatives)
        effective = effective_negatives(log_weights)
        of_anchors = {"effective": effective, "fraction": effective / pairs.negatives.sum(1)}
        if negatives == "all":
            of_anchors["false_share"] = false_negative_share(log_weights, pairs)
        # Unusable anchors are zeroed: selecting the others would synchronize with the GPU.
        usable.append(pairs.anchors)
        for name, values in of_anchors.items():
            parts[name].append(values.where(pairs.anchors, 0.0))
    count = torch.cat(usable).sum()
    return {name: torch.cat(values).sum() / count for name, values in parts.items() if values}


class SimilarityHistograms(NamedTuple):
    """Histograms of the inner products of pairs; each sums to 1, or to 0 if there are no pairs.

    Attributes:
        edges: Bin edges (B + 1,): from -1 to 1 for features in the unit ball, wider for others.
        positives: Histogram (B,) of same-class pairs; ideally all at 1.
        negatives: Histogram (B,) of negatives; ideally all at -1/(C - 1).
        hardened: Histogram (B,) of negatives weighted by the hardening; None without hardening.
    """

    edges: Tensor
    positives: Tensor
    negatives: Tensor
    hardened: Tensor | None


@torch.no_grad()
def similarity_histograms(
    z: Tensor,
    labels: Tensor,
    hardening: Hardening | None = None,
    negatives: Negatives = "other_classes",
    num_bins: int = 100,
    max_anchors: int | None = None,
) -> SimilarityHistograms:
    """Compute histograms of the similarities of all pairs of features in O(N) memory.

    Args:
        z: Normalized features (N, d).
        labels: Classes (N,), integers.
        hardening: eta; None to skip the hardened histogram.
        negatives: ``other_classes`` or ``all`` other samples, see `ContrastiveLoss`.
        num_bins: Number of bins B.
        max_anchors: Approximate number of anchors to use, evenly spread; None for all.

    Returns:
        The histograms, in float64 on the CPU.

    Raises:
        TypeError: If ``z`` is not floating point or ``labels`` not integer.
        ValueError: If a shape does not fit, or ``num_bins`` is below 1.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> labels = torch.arange(4).repeat(2)
        >>> histograms = similarity_histograms(simplex_etf(4, 3)[labels], labels, num_bins=4)
        >>> edges, positives, negatives, _ = histograms
        >>> edges.tolist(), positives.tolist(), negatives.tolist()
        ([-1.0, -0.5, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 0.0])
    """
    check_features(z)
    check_labels(labels, len(z))
    check_count("num_bins", num_bins)
    z = z.detach().float().cpu()
    labels = labels.cpu()
    reach = max(1.0, float(z.square().sum(1).max())) if len(z) else 1.0
    reach = 1.0 if reach < 1 + 1e-4 else reach
    positive, negative, hardened = torch.zeros(3, num_bins, dtype=torch.float64)
    for rows in _blocks(len(z), len(z), max_anchors):
        similarity, pairs = z[rows] @ z.T, label_pairs(labels, negatives, rows=rows)
        bins = ((similarity + reach) * (num_bins / (2 * reach))).long().clamp_(0, num_bins - 1)
        # Using the masks as weights is several times faster than indexing with them.
        positive += _count(bins, pairs.positives, num_bins)
        negative += _count(bins, pairs.negatives, num_bins)
        if hardening is not None:
            weights = hardening.log_weights(similarity, pairs.negatives).exp_()
            hardened += _count(bins, weights.mul_(pairs.negatives), num_bins)  # rows without negatives
    shares = [counts / counts.sum().clamp(min=1e-300) for counts in (positive, negative, hardened)]
    edges = torch.linspace(-reach, reach, num_bins + 1, dtype=torch.float64)
    return SimilarityHistograms(edges, shares[0], shares[1], None if hardening is None else shares[2])


def _blocks(num_anchors: int, num_others: int, max_anchors: int | None) -> Iterator[slice]:
    """Split the anchors, or about ``max_anchors`` evenly spread ones, into blocks of bounded memory."""
    step = 1 if max_anchors is None else max(1, num_anchors // max_anchors)
    height = step * max(1, ELEMENTS_AT_ONCE // max(1, num_others))
    return (slice(start, start + height, step) for start in range(0, num_anchors, height))


def _count(bins: Tensor, weights: Tensor, num_bins: int) -> Tensor:
    return torch.bincount(bins.flatten(), weights.flatten().double(), minlength=num_bins)
