"""Feature normalization: where the projections ``z`` are allowed to live."""

from typing import Literal

import torch
from torch import Tensor

from nc_lightning.checks import check_choice

Normalization = Literal["unit_ball", "unit_sphere", "none"]

# Norms are divided by, but in the ball by no less than this; on the sphere, a shorter row has no direction to keep.
_SMALLEST = {"unit_ball": 1.0, "unit_sphere": 1e-12}


def _divisors(norms: Tensor, normalization: Normalization) -> Tensor:
    smallest = _SMALLEST[normalization]
    if normalization == "unit_sphere":
        # Row and gradient become 0: divided by 1e-12 instead, the gradient would overflow half precision.
        return norms.masked_fill(norms <= smallest, torch.inf)
    return norms.clamp(min=smallest)


def unit_ball(z: Tensor) -> Tensor:
    """Project each row into the closed unit ball: ``z / max(1, ||z||)``.

    Rows inside the ball stay as they are, so the projection is idempotent. This is the paper's own choice
    (arXiv 2311.05139: representations f with ||f(x)|| <= 1).

    Args:
        z: Features, shape (..., d), any floating-point dtype.

    Returns:
        Same shape; float32 for half-precision input, whose norms would overflow, else the dtype of ``z``.

    Example:
        >>> unit_ball(torch.tensor([[3.0, 4.0], [0.3, 0.4]]))
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])
    """
    return normalize(z, "unit_ball")


def unit_sphere(z: Tensor) -> Tensor:
    """Project each row onto the unit sphere: ``z / ||z||``; a zero row stays zero, and has a gradient of zero.

    Args:
        z: Features, shape (..., d), any floating-point dtype.

    Returns:
        Same shape; float32 for half-precision input, else the dtype of ``z``.

    Example:
        >>> unit_sphere(torch.tensor([[0.3, 0.4], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    return normalize(z, "unit_sphere")


def normalize(z: Tensor, normalization: Normalization) -> Tensor:
    """Apply the normalization of that name: ``unit_ball``, ``unit_sphere`` or ``none``.

    Args:
        z: Features, shape (..., d), any floating-point dtype.
        normalization: Which one. ``none`` only lifts half precision to float32.

    Returns:
        Same shape, at least float32.

    Raises:
        ValueError: If ``normalization`` is none of the three.

    Example:
        >>> normalize(torch.tensor([[3.0, 4.0]]), "none")
        tensor([[3., 4.]])
    """
    check_choice("normalization", normalization, Normalization)
    z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
    if normalization == "none":
        return z
    return z / _divisors(torch.linalg.vector_norm(z, dim=-1, keepdim=True), normalization)


def normalize_rows_(z: Tensor, normalization: Normalization) -> Tensor | None:
    """Apply `normalize` to rows in place, outside of automatic differentiation.

    Args:
        z: Features (N, d), float32 or float64.
        normalization: Which one.

    Returns:
        What `pull_back_rows_` needs: what the rows (N, 1) were divided by, None for ``none``.

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
    """Turn the gradient with respect to normalized rows into that with respect to rows before, in place.

    Where a row was scaled, its gradient loses the part along the row.

    Args:
        gradient: (N, d) with respect to ``z``.
        z: (N, d) normalized rows.
        divisors: What `normalize_rows_` returned.
        normalization: Which one.

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
