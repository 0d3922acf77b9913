"""Device of the statistics: that of the features, or the CPU if it has no float64."""

import torch
from torch import Tensor


def statistics_device(device: torch.device | str) -> torch.device:
    """Return the device for float64 statistics of tensors on a device: itself, or the CPU if it has no float64.

    Apple's GPUs have no float64. In float32, measures would not reach their values at collapse, such as exactly 0.

    Example:
        >>> statistics_device("cpu")
        device(type='cpu')
    """
    device = torch.device(device)
    try:
        torch.empty(0, dtype=torch.float64, device=device)
    except TypeError:
        return torch.device("cpu")
    return device


def outside_inference(x: Tensor) -> Tensor:
    """Return a tensor that can be updated in place: a copy if it was created in `torch.inference_mode`.

    Example:
        >>> with torch.inference_mode():
        ...     made = torch.zeros(2)
        >>> outside_inference(made).add_(1)
        tensor([1., 1.])
    """
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def in_float64(x: Tensor, device: torch.device | None = None) -> Tensor:
    """Convert a tensor to float64, on its `statistics_device` or on a given device that has float64.

    Example:
        >>> in_float64(torch.ones(2))
        tensor([1., 1.], dtype=torch.float64)
    """
    # Move before converting: the source device may not support float64.
    return x.to(device or statistics_device(x.device)).double()
