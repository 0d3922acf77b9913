"""Recognize images in arrays: the axis of their channels, and whether their values are bytes."""

from typing import Any

import numpy as np

_CHANNELS = (1, 3, 4)
_LARGEST = 16.0
"""Largest magnitude of floats in [0, 1] or standardized; larger values mean that images were never scaled."""

Array = np.ndarray[Any, Any]


def as_inputs(x: Array, name: str) -> Array:
    """Return inputs for a network: images with channels first, bytes as uint8, everything else as float32.

    Arrays with four dimensions are images with channels last or first; with three, images without channels; with more
    than four, never images of bytes. Integers and integer-valued floats are bytes if they are in 0 to 255 and not in
    [0, 1]. Other floats are in [0, 1] or standardized, so values far from 0 are refused. Booleans are 0 and 1. Messages
    call the array ``name``.

    Raises:
        ValueError: If the layout or scale of images cannot be recognized, or a value is not finite.

    Example:
        >>> as_inputs(np.full((2, 8, 8, 3), 255.0), "x_train").dtype
        dtype('uint8')
        >>> as_inputs(np.zeros((2, 8, 9, 3)), "x_train").shape
        (2, 3, 8, 9)
    """
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError(f"{name}: got a number that is not finite, expected finite ones")
    if x.ndim < 3:
        return x.astype(np.float32)
    if x.ndim == 4:
        x = np.moveaxis(x, _channel_axis(x, name), 1)
    elif x.ndim == 3:
        x = x[:, None]
    inputs = _scaled(x, name) if x.size else x.astype(np.float32)
    if x.ndim > 4 and inputs.dtype == np.uint8:
        raise ValueError(
            f"{name}: got {x.dtype} of shape {x.shape} from {x.min()} to {x.max()}, expected images (N, H, W), "
            "(N, H, W, C) or (N, C, H, W); divide larger arrays by 255; floats in [0, 1] are not rescaled"
        )
    return np.ascontiguousarray(inputs)


def _channel_axis(x: Array, name: str) -> int:
    _, first, second, third = x.shape
    if (first in _CHANNELS) != (third in _CHANNELS):
        return 3 if third in _CHANNELS else 1
    if (first == second) != (second == third):  # square images are more likely than a height equal to the channels
        return 3 if first == second else 1
    both = first in _CHANNELS
    raise ValueError(
        f"{name}: got {x.dtype} of shape {x.shape}, which may be images (N, H, W, C) or (N, C, H, W), expected 1, 3 "
        f"or 4 channels first or last{', not both; transpose them to the other layout' if both else ''}"
    )


def _scaled(x: Array, name: str) -> Array:
    least, most = x.min(), x.max()
    integers = x.dtype.kind in "iu"
    whole = integers or (x.dtype.kind == "f" and bool((x == np.rint(x)).all()))
    if whole and least >= 0 and (1 < most <= 255 or (integers and most == 0)):
        return x.astype(np.uint8, copy=False)
    if integers and (least < 0 or most > 1):
        raise ValueError(
            f"{name}: got {x.dtype} images from {least} to {most}, expected 0 to 255; divide by their largest "
            "possible value to have floats in [0, 1]"
        )
    if least < -_LARGEST or most > _LARGEST:
        raise ValueError(
            f"{name}: got {'whole numbers' if whole else 'fractions'} from {least:.5g} to {most:.5g} as images, "
            "expected whole numbers from 0 to 255, or floats in [0, 1] or standardized; round and clip them to bytes, "
            "or divide them by their largest possible value"
        )
    return x.astype(np.float32)
