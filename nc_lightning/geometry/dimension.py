"""Intrinsic dimension of features: that of the manifold they lie on, from distances to nearest neighbors."""

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, check_count, check_features, check_finite
from nc_lightning.geometry.placement import in_float64

DISTANCES_AT_ONCE = 2**22
"""Number of distances that `intrinsic_dimension` holds at a time."""


@torch.no_grad()
def intrinsic_dimension(z: Array, k: int = 20) -> Tensor:
    """Estimate the local intrinsic dimension by maximum likelihood from the distances to the k nearest neighbors.

    Around each sample, the number of neighbors within distance t is taken to grow as t^m. With T_j the distance to the
    j-th neighbor, 1/m is the mean of log(T_k / T_j) over j < k, and the estimate is one over the mean of 1/m over all
    samples. It is too low for large m unless samples are very many.

    Neighbors at distance 0, such as duplicates or samples of a class that has collapsed to a point, say nothing about
    growth and are left out. If no sample has two neighbors elsewhere, the features are isolated points, of dimension 0:
    this is the value at exact neural collapse if each class has more than k samples. Before that point, the dimension
    is that of the noise within classes, however small it is. It is infinite if all distances are equal.

    Args:
        z: Features (N, d), N > k; a tensor, array or list of rows.
        k: Number of neighbors, at least 2. Small numbers are more local and vary more.

    Returns:
        0-dimensional float64 tensor, range [0, inf].

    Raises:
        TypeError: If ``z`` is not floating point.
        ValueError: If there are fewer than k + 1 samples, or a feature is not finite.

    Source:
        Levina, Bickel (2004), Maximum likelihood estimation of intrinsic dimension, with the mean of inverses of
        MacKay, Ghahramani (2005).

    Example:
        >>> plane = torch.rand(1000, 2) @ torch.rand(2, 9)
        >>> round(intrinsic_dimension(plane).item())
        2
    """
    z = as_features(z)
    check_features(z)
    check_count("k", k, at_least=2)
    check_finite(z)
    if len(z) <= k:
        raise ValueError(f"z: got {len(z)} samples, expected at least {k + 1} for k = {k} neighbors")
    z = in_float64(z)
    growth, terms = z.new_zeros(()), z.new_zeros(())
    with torch.autocast(z.device.type, enabled=False):
        for rows in torch.arange(len(z), device=z.device).split(max(1, DISTANCES_AT_ONCE // len(z))):
            # Distances from differences: computed from inner products, small distances lose precision.
            distances = torch.cdist(z[rows], z, compute_mode="donot_use_mm_for_euclid_dist")
            distances[torch.arange(len(rows), device=z.device), rows] = torch.inf  # not its own neighbor
            nearest = distances.topk(k, largest=False).values
            away = nearest > 0
            logarithms = torch.where(away, nearest, nearest[:, -1:]).log()
            growth += torch.where(away, logarithms[:, -1:] - logarithms, 0.0).sum()
            terms += (away.sum(1) - 1).clamp(min=0).sum()
    return terms / growth if terms > 0 else terms
