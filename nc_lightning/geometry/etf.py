"""The simplex equiangular tight frame (ETF), the shape that class means take at neural collapse."""

import torch
from torch import Tensor

from nc_lightning.checks import check_count


def simplex_etf(num_classes: int, feature_dim: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the vertices of a regular simplex: unit vectors with pairwise inner product -1/(C - 1), summing to zero.

    They are built in float64 from a Helmert basis, an explicit orthonormal basis of the vectors that sum to zero. Any
    rotation of them is a simplex ETF, too (arXiv 2311.05139, Definition of NC).

    Args:
        num_classes: Number of vectors C >= 2.
        feature_dim: Dimension d >= C - 1 of the vectors; coordinates beyond C - 1 are zero.
        dtype: Data type of the result.

    Returns:
        Tensor (C, d), one row per class.

    Raises:
        ValueError: If C < 2 or d < C - 1, where no simplex ETF exists.

    Example:
        >>> means = simplex_etf(3, 2)
        >>> (means @ means.T).round(decimals=4)
        tensor([[ 1.0000, -0.5000, -0.5000],
                [-0.5000,  1.0000, -0.5000],
                [-0.5000, -0.5000,  1.0000]], dtype=torch.float64)
    """
    check_count("num_classes", num_classes, at_least=2)
    check_count("feature_dim", feature_dim)
    if feature_dim < num_classes - 1:
        raise ValueError(
            f"feature_dim: got {feature_dim}, expected at least num_classes - 1 = {num_classes - 1}; "
            f"no simplex ETF of {num_classes} vectors exists in fewer dimensions"
        )
    k = torch.arange(1, num_classes, dtype=torch.float64)
    column = torch.arange(num_classes, dtype=torch.float64)
    # Helmert column k holds k ones, then -k, then zeros, over its norm sqrt(k (k + 1)).
    basis = (column[:, None] < k).double() - k * (column[:, None] == k).double()
    basis /= (k * (k + 1)).sqrt()
    etf = torch.zeros(num_classes, feature_dim, dtype=torch.float64)
    etf[:, : num_classes - 1] = basis * (num_classes / (num_classes - 1)) ** 0.5
    return etf.to(dtype)
