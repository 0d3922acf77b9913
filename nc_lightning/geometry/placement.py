"""Where statistics live: always in float64, beside the features or, where a device has no float64, on the CPU."""

import torch
from torch import Tensor


def statistics_device(device: torch.device | str) -> torch.device:
    """Return where the float64 statistics of tensors on a device live: there, or on the CPU if it has no float64.

    Apple's GPUs have none. In float32 no measure would reach what it is at collapse, "exactly 0" least of all.

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
    """Return a tensor that can be updated in place here: a copy of one that `torch.inference_mode` has made.

    Example:
        >>> with torch.inference_mode():
        ...     made = torch.zeros(2)
        >>> outside_inference(made).add_(1)
        tensor([1., 1.])
    """
    return x.clone() if x.is_inference() and not torch.is_inference_mode_enabled() else x


def in_float64(x: Tensor, device: torch.device | None = None) -> Tensor:
    """Return a tensor in float64, on the device of its statistics or on a given one that has float64.

    Example:
        >>> in_float64(torch.ones(2))
        tensor([1., 1.], dtype=torch.float64)
    """
    # The device first: the one it comes from may not be able to convert.
    return x.to(device or statistics_device(x.device)).double()
