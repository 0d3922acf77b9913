"""The log partition function of anchors over all other samples, in blocks of rows."""

import torch
from torch import Tensor

from nc_lightning.losses.engines.known_gradient import Result, gradient_of_temperature, with_known_gradient
from nc_lightning.losses.engines.tile_sizes import tile_sizes


def log_partition(z: Tensor, anchors: Tensor, weights: Tensor, temperature: float | Tensor) -> Tensor:
    """Compute sum_a w_a log sum_{n != a} e^{s_an / temperature} over anchors a and all other samples n.

    Value and gradient are computed together, a block of anchors at a time, in O(N d) memory.

    Args:
        z: Features (N, d), N > 1, float32 or float64, whose inner products are s.
        anchors: Indices (A,) of the anchors, without repetitions.
        weights: Weights (A,) of the anchors.
        temperature: tau; a tensor of shape () to learn it.

    Returns:
        0-dimensional sum. First derivatives only.

    Example:
        >>> log_partition(torch.eye(3), torch.tensor([0, 1]), torch.ones(2), temperature=1.0)
        tensor(1.3863)
    """
    tau = temperature.item() if isinstance(temperature, Tensor) else temperature

    def compute(z: Tensor, with_gradient: bool, with_temperature: bool) -> Result:
        value, gradient, of_temperature = z.new_zeros(()), torch.zeros_like(z) if with_gradient else None, None
        height = max(1, tile_sizes(z).row_block // len(z))
        for rows, weight in zip(anchors.split(height), weights.split(height), strict=True):
            anchor = z[rows]
            matrix = (anchor / tau) @ z.T
            matrix.scatter_(1, rows[:, None], -torch.inf)
            log_sums = matrix.logsumexp(1)
            value += weight @ log_sums
            if gradient is not None:
                matrix.sub_(log_sums[:, None]).exp_().mul_(weight[:, None])
                gradient.index_add_(0, rows, matrix @ z)
                gradient.addmm_(matrix.T, anchor)
        if gradient is not None:
            gradient /= tau
            if with_temperature:
                of_temperature = gradient_of_temperature(gradient, z, tau)
        return value, gradient, of_temperature

    return with_known_gradient(compute, z, temperature)
