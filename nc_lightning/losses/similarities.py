"""How similarities are distributed over positives, negatives and hardened negatives."""

from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.geometry.checks import check_count, check_features, check_labels
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.hardness import ELEMENTS_AT_ONCE
from nc_lightning.losses.pairs import Negatives, label_pairs


class SimilarityHistograms(NamedTuple):
    """Shares of all pairs by their inner product; each histogram sums to 1, or to 0 where there is no pair.

    Attributes:
        edges: (B + 1,) edges of the bins: [-1, 1] for features in the unit ball, wider for others.
        positives: (B,) of same-class pairs, ideal 1.
        negatives: (B,) of the negatives, ideal -1/(C - 1).
        hardened: (B,) of the negatives by the weight that hardening gives them; None without hardening.
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
    """Count the similarities of all pairs of some features, in memory of O(N).

    Args:
        z: (N, d) normalised features.
        labels: (N,) integers.
        hardening: eta; None to leave the hardened negatives out.
        negatives: ``other_classes`` or ``all`` other samples, as of `ContrastiveLoss`.
        num_bins: Number of bins B.
        max_anchors: About how many anchors to look at, evenly spread; None for all.

    Returns:
        The histograms, in float64 on the CPU.

    Raises:
        TypeError: If ``z`` is not floating point or ``labels`` not integer.
        ValueError: If a shape does not fit, or ``num_bins`` is below 1.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> labels = torch.arange(4).repeat(2)
        >>> seen = similarity_histograms(simplex_etf(4, 3)[labels], labels, num_bins=4)
        >>> seen.edges.tolist(), seen.positives.tolist(), seen.negatives.tolist()
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
    step = 1 if max_anchors is None else max(1, len(z) // max_anchors)
    height = step * max(1, ELEMENTS_AT_ONCE // max(1, len(z)))
    for start in range(0, len(z), height):
        rows = slice(start, start + height, step)
        similarity, pairs = z[rows] @ z.T, label_pairs(labels, negatives, rows=rows)
        bins = ((similarity + reach) * (num_bins / (2 * reach))).long().clamp_(0, num_bins - 1)
        # Weights of 0 and 1 are several times as fast as selecting by the masks.
        positive += _count(bins, pairs.positives, num_bins)
        negative += _count(bins, pairs.negatives, num_bins)
        if hardening is not None:
            weights = hardening.log_weights(similarity, pairs.negatives).exp_()
            hardened += _count(bins, weights.mul_(pairs.negatives), num_bins)  # an anchor may have no negative at all
    shares = [counts / counts.sum().clamp(min=1e-300) for counts in (positive, negative, hardened)]
    edges = torch.linspace(-reach, reach, num_bins + 1, dtype=torch.float64)
    return SimilarityHistograms(edges, shares[0], shares[1], None if hardening is None else shares[2])


def _count(bins: Tensor, weights: Tensor, num_bins: int) -> Tensor:
    return torch.bincount(bins.flatten(), weights.flatten().double(), minlength=num_bins)
