"""Width of an encoder's features, to size the projector."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from nc_lightning.checks import one_line

_CONVOLUTIONS = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
_SIZES = (32, 64)
"""Sizes of the trial images of a convolutional encoder; features that depend on the size are refused."""


def width_of(encoder: nn.Module) -> int:
    """Return the number of features that an encoder computes.

    It is the attribute ``out_features``; for a model of timm its ``head_hidden_size`` or ``num_features``; for other
    modules the output of a forward pass of zeros, in evaluation mode, of the shape that the first layer takes.

    Raises:
        ValueError: If the width cannot be found out, or the module still has the classifier of timm or torchvision.

    Example:
        >>> width_of(nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU()))
        128
        >>> width_of(nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        8
    """
    name = type(encoder).__name__
    if isinstance(width := getattr(encoder, "out_features", None), int):
        return width
    if hasattr(encoder, "pretrained_cfg") and isinstance(features := getattr(encoder, "num_features", None), int):
        if getattr(encoder, "num_classes", 0):
            raise ValueError(
                f"encoder: got {name} of timm with a classifier, expected features; create it with num_classes=0"
            )
        return int(getattr(encoder, "head_hidden_size", None) or features)
    last, layer = list(encoder.named_modules())[-1]
    if type(encoder).__module__.startswith("torchvision.models.") and isinstance(layer, nn.Linear):
        raise ValueError(
            f"encoder: got {name} of torchvision with a classifier, expected features; use TorchvisionEncoder of "
            f"nc_lightning.encoders, or set encoder.{last} = torch.nn.Identity()"
        )
    return _by_forward_pass(encoder)


def _by_forward_pass(encoder: nn.Module) -> int:
    name = type(encoder).__name__
    remedy = "expected one to size the projector; set encoder.out_features, or pass the projector as a module"
    inputs = _inputs(encoder)
    if not inputs:
        raise ValueError(f"encoder: got {name} without an integer out_features, {remedy}")
    try:
        with torch.no_grad(), _evaluating(encoder):
            shapes = {tuple(getattr(encoder(each), "shape", ())) for each in inputs}
    except Exception as error:
        raise ValueError(
            f"encoder: got {name} without an integer out_features, and a trial input of shape "
            f"{tuple(inputs[0].shape)} fails ({one_line(error)}), {remedy}"
        ) from error
    if len(shapes) > 1 or len(shape := shapes.pop()) != 2:
        raise ValueError(
            f"encoder: got {name} without an integer out_features, whose output for trial inputs is not (N, d) with "
            f"one d for every image size, {remedy}"
        )
    return int(shape[1])


def _inputs(encoder: nn.Module) -> list[torch.Tensor]:
    """Return zeros of the shapes that the first layer takes; none if it is of another kind."""
    for layer in encoder.modules():
        if any(map(nn.parameter.is_lazy, layer.parameters(recurse=False))):
            return []
        if isinstance(layer, nn.Linear):
            return [layer.weight.new_zeros(1, layer.in_features)]
        for kind, dimensions in _CONVOLUTIONS.items():
            if isinstance(layer, kind):
                return [layer.weight.new_zeros(1, layer.in_channels, *[size] * dimensions) for size in _SIZES]
        if next(layer.parameters(recurse=False), None) is not None:
            return []
    return []


@contextmanager
def _evaluating(encoder: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, in which it draws nothing and keeps its statistics; restore each part."""
    modes = [(part, part.training) for part in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
