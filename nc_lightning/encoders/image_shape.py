"""Checks of the image shape of encoders, and of their output for it."""

from collections.abc import Sequence

import torch
from torch import nn


def check_image(input_shape: Sequence[int]) -> None:
    """Raise unless a shape is that of an image.

    Raises:
        ValueError: If it is not (channels, height, width).

    Example:
        >>> check_image((8, 8))
        Traceback (most recent call last):
        ...
        ValueError: input_shape: got (8, 8), expected (channels, height, width)
    """
    if len(input_shape) != 3:
        raise ValueError(f"input_shape: got {tuple(input_shape)}, expected (channels, height, width)")


def features_of(layers: nn.Module, input_shape: Sequence[int]) -> int:
    """Return the number of features that layers compute for an image.

    Raises:
        ValueError: If the output is not one vector per image.
        Exception: Any error that the layers raise for images of this shape.

    Example:
        >>> features_of(nn.Flatten(), (3, 2, 2))
        12
    """
    training = layers.training
    with torch.no_grad():
        features = layers.eval()(torch.zeros(1, *input_shape))
    layers.train(training)
    shape = tuple(getattr(features, "shape", ()))
    if len(shape) != 2:
        got = f"shape {shape}" if shape else f"type {type(features).__name__}"
        raise ValueError(f"its output has {got}, expected features (N, d): pooled, and one tensor")
    return int(shape[1])
