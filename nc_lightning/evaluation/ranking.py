"""Retrieval among the samples of one set: precision at 1, R-precision and MAP@R, by cosine similarity."""

from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, as_labels
from nc_lightning.evaluation.neighbors import largest
from nc_lightning.evaluation.samples import check_samples
from nc_lightning.geometry import unit_sphere

BANK_ROWS = 2**13
"""Rows that `retrieval` normalizes at a time."""

SIMILARITIES_AT_ONCE = 2**24
"""Similarities that `retrieval` has in memory at a time, as whole rows: at least one."""


class Retrieval(NamedTuple):
    """Means over queries.

    Attributes:
        precision_at_1: Share of queries whose nearest other sample is of their class.
        r_precision: Mean share of a query's class among its R nearest samples, R the number of others of its class.
        map_at_r: Mean over the ranks 1 to R of the precision up to that rank where the sample is of the query's class,
            and 0 where it is not.
        left_out: Number of queries without another sample of their class, which are not counted.
    """

    precision_at_1: float
    r_precision: float
    map_at_r: float
    left_out: int


@torch.no_grad()
def retrieval(z: Array, labels: Array) -> Retrieval:
    """Search each sample's class among all other samples, by cosine similarity.

    Each sample is a query and leaves itself out. Queries without another sample of their class are left out, but others
    may find them. Memory beyond the features: at most 2^24 similarities at a time (64 MiB in float32, up to five times
    as much where many are equal), or those of one query, and the R nearest of as many queries.

    Args:
        z: Features (N, d); they need not be normalized.
        labels: Labels (N,), integers >= 0.

    Returns:
        The three measures, range [0, 1], 1 if each query's class comes first; NaN if no query is left. Among equal
        similarities, samples with lower indices come first.

    Raises:
        TypeError: If features are not floating point, or labels not integers.
        ValueError: If shapes do not fit, a feature is not finite, or a label is negative.

    Source:
        Musgrave, Belongie, Lim (2020), A metric learning reality check, arXiv 2003.08505, section 3.2.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.9, 0.2]])
        >>> retrieval(z, torch.tensor([0, 0, 1, 0]))
        Retrieval(precision_at_1=1.0, r_precision=1.0, map_at_r=1.0, left_out=1)
    """
    z, labels = as_features(z), as_labels(labels, "z_labels")
    check_samples(z, labels, torch.iinfo(torch.int64).max, "z")
    _, members, counts = labels.to(z.device, torch.int64).unique(return_inverse=True, return_counts=True)
    others = counts[members] - 1
    queries = torch.nonzero(others > 0).squeeze(1)
    if len(queries) == 0:
        return Retrieval(torch.nan, torch.nan, torch.nan, len(z))
    sums = torch.zeros(3, dtype=torch.float64)
    with torch.autocast(z.device.type, enabled=False):
        for rows in queries.split(max(1, SIMILARITIES_AT_ONCE // len(z))):
            nearest = largest(_to_others(rows, z), int(others[rows].max()))
            found = members[nearest] == members[rows][:, None]
            sums += _sums(found, others[rows])
    first, shares, precisions = (sums / len(queries)).tolist()
    return Retrieval(first, shares, precisions, len(z) - len(queries))


def _to_others(rows: Tensor, z: Tensor) -> Tensor:
    """Return the similarities (B, N) of the samples at ``rows`` to all, -inf to themselves."""
    queries = unit_sphere(z[rows])
    similarities = queries.new_empty(len(rows), len(z))
    for start in range(0, len(z), BANK_ROWS):
        block = unit_sphere(z[start : start + BANK_ROWS])
        torch.mm(queries, block.T, out=similarities[:, start : start + len(block)])
    return similarities.scatter_(1, rows[:, None], -torch.inf)


def _sums(found: Tensor, others: Tensor) -> Tensor:
    """Return the sums of the three measures over queries, from hits (B, R) in the order of similarity."""
    ranks = torch.arange(1, found.shape[1] + 1, device=found.device)
    hits = found & (ranks <= others[:, None])
    at_rank = hits.cumsum(1).cpu().double() / ranks.cpu()
    shares = hits.sum(1).cpu().double() / others.cpu()
    precisions = (at_rank * hits.cpu()).sum(1) / others.cpu()
    return torch.stack([hits[:, 0].sum().cpu().double(), shares.sum(), precisions.sum()])
