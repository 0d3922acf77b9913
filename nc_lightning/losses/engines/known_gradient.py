"""Values computed together with their gradients, on one process or summed over several."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from nc_lightning.distributed.global_batch import Shares

Result = tuple[Tensor, Tensor | None, Tensor | None]
"""A value, and its gradients with respect to features and temperature."""
Compute = Callable[[Tensor, bool, bool], Result]
"""Function of the features, whether any gradient is needed, and whether that of the temperature is."""


def with_known_gradient(compute: Compute, z: Tensor, temperature: float | Tensor | None = None) -> Tensor:
    """Compute a value and its gradient together, without an autograd graph between them (Equation 11).

    Args:
        compute: Function that computes the value and its gradients without autograd.
        z: Features (n, d).
        temperature: Tensor of shape () to learn; a number gets no gradient.

    Returns:
        The value. First derivatives only.

    Raises:
        RuntimeError: If a gradient is differentiated.

    Example:
        >>> z = torch.tensor([3.0], requires_grad=True)
        >>> with_known_gradient(lambda z, *_: (z.square().sum(), 2 * z, None), z).backward()
        >>> z.grad
        tensor([6.])
    """
    if not torch.is_grad_enabled():
        z = z.detach()
        temperature = temperature.detach() if isinstance(temperature, Tensor) else temperature
    value: Tensor = _KnownGradient.apply(z, temperature, compute)
    return value


class _KnownGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float | Tensor | None, compute: Compute) -> Tensor:
        value, *gradients = compute(z, any(ctx.needs_input_grad), ctx.needs_input_grad[1])
        ctx.save_for_backward(*gradients, z, temperature if isinstance(temperature, Tensor) else None)
        return value

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, z, temperature = ctx.saved_tensors
        scaled = [None if gradient is None else gradient * grad_output for gradient in gradients]
        if torch.is_grad_enabled():  # by create_graph
            scaled = [None if one is None else _FirstDerivative.apply(one, z, temperature) for one in scaled]
        return *scaled, None


class _FirstDerivative(torch.autograd.Function):
    """A gradient that cannot be differentiated again, although it depends on features and temperature."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, z: Tensor, temperature: Tensor | None) -> Tensor:
        return gradient.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError(
            "loss: got a second derivative, expected first ones only, without create_graph: value and gradient are "
            "computed together (once_differentiable)"
        )


def sum_over_processes(
    z: Tensor, temperature: float | Tensor, shares: Shares, part: Callable[[Tensor, float | Tensor], Tensor]
) -> Tensor:
    """Sum over processes their parts of a value of the global batch, with gradients for averaging (Equation 22).

    DistributedDataParallel averages the gradients of W processes, but the gradient of a loss l of the global batch is
    the sum of the contributions of all shards z_r. Each process therefore returns the gradient W dl / dz_r. It is
    computed in the forward pass, so that the backward pass needs no communication.

    Args:
        z: Features (n, d) of this process.
        temperature: Number, or a tensor of shape () to learn.
        shares: Number of rows on each process.
        part: Function that computes this process's part from the features (N, d) of the global batch and the
            temperature; differentiable in both.

    Returns:
        0-dimensional sum, on every process. First derivatives only.
    """

    def compute(z: Tensor, with_gradient: bool, _: bool) -> Result:
        with_gradient = with_gradient or shares.learns  # all processes must do the same
        everyone, world = shares.gather(z), len(shares.sizes)
        gradients: list[Tensor | None] = [None, None]
        with torch.set_grad_enabled(with_gradient):
            everyone.requires_grad_(with_gradient)
            tau = temperature.detach().requires_grad_(with_gradient) if isinstance(temperature, Tensor) else temperature
            total = part(everyone, tau)
        if with_gradient:
            sources = [everyone, tau] if isinstance(tau, Tensor) else [everyone]
            gradient, *of_temperature = torch.autograd.grad(total, sources, materialize_grads=True)
            gradients = [world * shares.sum_of_own(gradient), *(world * g for g in of_temperature), None]
        total = total.detach().clone()
        dist.all_reduce(total)
        return total, gradients[0], gradients[1]

    return with_known_gradient(compute, z, temperature)


def gradient_of_temperature(gradient: Tensor, z: Tensor, temperature: float) -> Tensor:
    """Compute the derivative by the temperature from the gradient of the features (N, d) (Equation 9)."""
    # Similarities are divided by the temperature, and each contributes to two rows.
    derivative: Tensor = -torch.linalg.vecdot(gradient, z).sum() / (2 * temperature)
    return derivative
