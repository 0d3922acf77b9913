"""Minimization of a convex function of a Gram matrix of vectors in the unit ball, with a certificate from duality."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

_ENOUGH = 1e-12
"""Relative gap at which the refinement stops."""
_STEEP = 1e10
"""Factor of the value in torch's L-BFGS, which learns no curvature from steps of less than 1e-10."""


class Minimum(NamedTuple):
    """Minimizer (g, g), the value there, and how far it is at most above the minimum."""

    products: Tensor
    value: float
    gap: float


def minimize_over_gram_matrices(value: Callable[[Tensor], Tensor], on_sphere: Tensor, weights: Tensor) -> Minimum:
    """Minimize a convex function over the Gram matrices of g vectors in the unit ball, some of them on the sphere.

    The matrix is factored as V V^T with g columns, so that every local minimum is a global one. L-BFGS over V comes
    first, then Newton's method: the gap shrinks with the gradient, and L-BFGS stops at the rounding of the value.

    Args:
        value: Convex, differentiable function of a symmetric matrix (g, g) in float64.
        on_sphere: Boolean mask (g,) of the vectors that have unit norm.
        weights: Scale (g,) of the curvature that each vector has in the value, for the preconditioning.

    Returns:
        The minimizer, its value and the certified gap.

    Source:
        Burer, Monteiro (2003), A nonlinear programming algorithm for solving semidefinite programs via low-rank
        factorization.

    Example:
        >>> spread = lambda products: products.sum()
        >>> products, _, gap = minimize_over_gram_matrices(spread, torch.ones(3, dtype=torch.bool), torch.ones(3))
        >>> abs(products[0, 1].item() + 0.5) < 1e-6, gap < 1e-10
        (True, True)
    """
    size = len(on_sphere)
    slack = (~on_sphere).double()[:, None]

    def products_of(x: Tensor) -> Tensor:
        # A vector in the ball is part of a unit vector: the last coordinate of each row is its own. The value depends
        # on directions only, so the lengths at the start scale the gradient and the curvature, and stay.
        rows = torch.cat([x.view(size, -1)[:, :-1], x.view(size, -1)[:, -1:] * slack], dim=1)
        vectors: Tensor = (rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True))[:, :-1]
        return vectors @ vectors.T

    def minimum_at(x: Tensor) -> Minimum:
        products = products_of(x)
        return Minimum(products, *certify(value, products, on_sphere))

    start = torch.randn(size, size + 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths = (weights / weights.max()).clamp(min=1e-12).sqrt()
    x = (torch.nn.functional.normalize(start) * lengths[:, None]).flatten()
    scale = 1.0
    for _ in range(20):  # small temperatures have values near 0, where the stopping rule needs another scale
        x = _lbfgs(lambda x: value(products_of(x)) / scale, x)  # noqa: B023 - used before the next round
        reached = value(products_of(x)).item()
        if reached >= 0.1 * scale or reached <= 0:
            break
        scale = reached
    best, steep = minimum_at(x), torch.inf
    for _ in range(10):
        if best.gap <= _ENOUGH * abs(best.value):
            break
        step, slope = _newton_step(lambda x: value(products_of(x)) / scale, x)
        if slope >= steep:  # rounding
            break
        x, steep = x + step, slope
        best = min(best, minimum_at(x), key=lambda minimum: minimum.gap)
    return best


def certify(value: Callable[[Tensor], Tensor], products: Tensor, on_sphere: Tensor) -> tuple[float, float]:
    """Return the value at a matrix, and an upper bound of its distance from the minimum.

    The value lies above its tangent, whose minimum over all Gram matrices is at least sum(y) for every y with
    gradient - diag(y) positive semidefinite, where y <= 0 for vectors in the ball. At the minimum y is the diagonal of
    gradient @ products; elsewhere it is lowered until the matrix is positive semidefinite.
    """
    products = products.detach().requires_grad_()
    reached = value(products)
    (gradient,) = torch.autograd.grad(reached, products)
    gradient, products = (gradient + gradient.T) / 2, products.detach()
    diagonal = (gradient * products).sum(1)
    y = torch.where(on_sphere, diagonal, diagonal.clamp(max=0))
    size = gradient.abs().amax(1)
    lower = torch.maximum(y.abs(), 1e-6 * size).clamp(min=1e-300)
    scaled = (gradient - y.diag()) / lower.sqrt() / lower.sqrt()[:, None]
    least = torch.linalg.eigvalsh(scaled)[0].clamp(max=0)
    gap = diagonal.sum() - y.sum() - least * lower.sum()
    return reached.item(), max(0.0, gap.item())


def _lbfgs(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    limits = {"max_iter": 5000, "tolerance_grad": 1e-10 * _STEEP, "tolerance_change": 1e-7, "history_size": 20}
    optimizer = torch.optim.LBFGS([x], **limits, line_search_fn="strong_wolfe")  # type: ignore[arg-type]

    def closure() -> float:
        value = function(x) * _STEEP
        (x.grad,) = torch.autograd.grad(value, x)
        return value.item()

    optimizer.step(closure)
    return x.detach()


def _newton_step(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, float]:
    """Solve Hessian @ step = -gradient by conjugate gradients, and return the step and the norm of the gradient.

    Rotations of all vectors change nothing, so the Hessian is singular; conjugate gradients leave them alone.
    """
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(x), x, create_graph=True)
    residual = -gradient.detach()
    step, direction, squared = torch.zeros_like(residual), residual, residual.square().sum()
    enough = 1e-12 * squared
    for _ in range(500):
        (curved,) = torch.autograd.grad(gradient, x, direction, retain_graph=True, materialize_grads=True)
        curvature = direction.dot(curved)
        if curvature == 0:
            break
        step = step + squared / curvature * direction
        residual = residual - squared / curvature * curved
        before, squared = squared, residual.square().sum()
        if squared <= enough:
            break
        direction = residual + squared / before * direction
    return step, float(torch.linalg.vector_norm(gradient.detach()))
