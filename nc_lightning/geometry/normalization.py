"""Normalization of features into the unit ball or onto the unit sphere."""

from typing import Literal

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, check_choice

Normalization = Literal["unit_ball", "unit_sphere", "none"]

# Smallest divisor of a row in the ball; on the sphere, the norm below which a row counts as zero.
_SMALLEST = {"unit_ball": 1.0, "unit_sphere": 1e-12}


def _divisors(norms: Tensor, normalization: Normalization) -> Tensor:
    smallest = _SMALLEST[normalization]
    if normalization == "unit_sphere":
        # Row and gradient become 0; dividing by 1e-12 instead would overflow the gradient in half precision.
        return norms.masked_fill(norms <= smallest, torch.inf)
    return norms.clamp(min=smallest)


def unit_ball(z: Array) -> Tensor:
    """Project each row into the closed unit ball: ``z / max(1, ||z||)``.

    Rows inside the ball are unchanged, so the projection is idempotent. This is the paper's choice
    (arXiv 2311.05139: representations f with ||f(x)|| <= 1).

    Args:
        z: Features, shape (..., d), any floating-point dtype; a tensor, array or nested list.

    Returns:
        Tensor of the same shape; float32 for half-precision input, whose norms would overflow, else in the dtype of z.

    Example:
        >>> unit_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    return normalize(z, "unit_ball")


def unit_sphere(z: Array) -> Tensor:
    """Project each row onto the unit sphere: ``z / ||z||``; a zero row stays zero, with a gradient of zero.

    Args:
        z: Features, shape (..., d), any floating-point dtype; a tensor, array or nested list.

    Returns:
        Tensor of the same shape; float32 for half-precision input, else in the dtype of z.

    Example:
        >>> unit_sphere(torch.tensor([[0.3, 0.4], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    return normalize(z, "unit_sphere")


def normalize(z: Array, normalization: Normalization) -> Tensor:
    """Normalize features by ``unit_ball``, ``unit_sphere`` or ``none``.

    Args:
        z: Features, shape (..., d), any floating-point dtype; a tensor, array or nested list.
        normalization: Name of the normalization; ``none`` only converts half precision to float32.

    Returns:
        Tensor of the same shape, float32 or float64.

    Raises:
        ValueError: If ``normalization`` is none of the three.

    Example:
        >>> normalize(torch.tensor([[3.0, 4.0]]), "none")
        tensor([[3., 4.]])
    """
    check_choice("normalization", normalization, Normalization)
    z = as_features(z)
    z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    if normalization == "none":
        return z
    return z / _divisors(torch.linalg.vector_norm(z, dim=-1, keepdim=True), normalization)


def normalize_rows_(z: Tensor, normalization: Normalization) -> Tensor | None:
    """Apply `normalize` to rows in place, without autograd.

    Args:
        z: Features (N, d), float32 or float64.
        normalization: Name of the normalization.

    Returns:
        Divisors (N, 1) of the rows, for `pull_back_rows_`; None for ``none``.

    Example:
        >>> z = torch.tensor([[3.0, 4.0]])
        >>> normalize_rows_(z, "unit_ball"), z
        (tensor([[5.]]), tensor([[0.6000, 0.8000]]))
    """
    if normalization == "none":
        return None
    divisors = _divisors(torch.linalg.vector_norm(z, dim=1, keepdim=True), normalization)
    z /= divisors
    return divisors


def pull_back_rows_(gradient: Tensor, z: Tensor, divisors: Tensor | None, normalization: Normalization) -> None:
    """Convert the gradient of normalized rows to that of the original rows, in place.

    For rows that were scaled, the component along the row is removed.

    Args:
        gradient: Gradient (N, d) with respect to ``z``.
        z: Normalized rows (N, d).
        divisors: Divisors (N, 1) from `normalize_rows_`.
        normalization: Name of the normalization.

    Example:
        >>> gradient = torch.tensor([[1.0, 0.0]])
        >>> pull_back_rows_(gradient, torch.tensor([[0.6, 0.8]]), torch.tensor([[5.0]]), "unit_ball")
        >>> gradient
        tensor([[ 0.1280, -0.0960]])
    """
    if divisors is None:
        return
    along = torch.linalg.vecdot(gradient, z)[:, None] * (divisors > _SMALLEST[normalization])
    gradient.addcmul_(z, along, value=-1).div_(divisors)
