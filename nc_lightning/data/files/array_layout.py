"""Recognize images in arrays: where their channels are, and whether their numbers are bytes."""

from typing import Any

import numpy as np

_CHANNELS = (1, 3, 4)
_BRIGHT = 16.0
"""Floats without a negative number that go beyond this, and not beyond 255, are images that were never scaled."""

Array = np.ndarray[Any, Any]


def as_inputs(x: Array, name: str) -> Array:
    """Return inputs as they go into a network: images with channels first, bytes as uint8, all others in float32.

    Four dimensions are images, with the channels last or first. So are three dimensions of integers or of bytes,
    without channels; more than four are never images. Integers, and floats that are all whole, are bytes if they lie
    in 0 to 255 and not in [0, 1].

    Args:
        x: (N, ...) numbers.
        name: Name of the array, for messages.

    Raises:
        ValueError: If an image's layout or scale cannot be recognized, or a number is not finite.

    Example:
        >>> as_inputs(np.full((2, 8, 8, 3), 255.0), "x_train").dtype
        dtype('uint8')
        >>> as_inputs(np.zeros((2, 8, 9, 3)), "x_train").shape
        (2, 3, 8, 9)
    """
    integers = x.dtype.kind in "iu"
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError(f"{name}: got a number that is not finite, expected finite ones")
    if x.ndim == 4:
        images = np.moveaxis(x, _channel_axis(x, name), 1)
    elif x.ndim == 3 and (integers or _are_bytes(x)):
        images = x[:, None]
    elif x.ndim > 4 and (integers or _are_bytes(x)):
        raise ValueError(
            f"{name}: got {x.dtype} of shape {x.shape} from {x.min()} to {x.max()}, expected images (N, H, W), "
            "(N, H, W, C) or (N, C, H, W); divide larger arrays by 255, floats in [0, 1] are taken as they are"
        )
    else:
        return x.astype(np.float32)
    if x.dtype != np.uint8 and x.size:
        images = _scaled(images, integers, name)
    return np.ascontiguousarray(images)


def _channel_axis(x: Array, name: str) -> int:
    _, first, second, third = x.shape
    if (first in _CHANNELS) != (third in _CHANNELS):
        return 3 if third in _CHANNELS else 1
    if (first == second) != (second == third):  # images are more often square than as high as they have channels
        return 3 if first == second else 1
    both = first in _CHANNELS
    raise ValueError(
        f"{name}: got {x.dtype} of shape {x.shape}, which may be images (N, H, W, C) or (N, C, H, W), expected 1, 3 "
        f"or 4 channels first or last{', not both; transpose them to the other layout' if both else ''}"
    )


def _are_bytes(x: Array) -> bool:
    """Whether floats are whole numbers in 0 to 255, and not all in [0, 1]."""
    return bool(x.size and x.min() >= 0 and 1 < x.max() <= 255 and (x == np.rint(x)).all())


def _scaled(images: Array, integers: bool, name: str) -> Array:
    least, most = images.min(), images.max()
    if _are_bytes(images) or (integers and least >= 0 and most <= 255):
        return images.astype(np.uint8)
    if not integers and least >= 0 and _BRIGHT < most <= 256:
        raise ValueError(
            f"{name}: got images with fractions from {least:.4g} to {most:.4g}, expected whole numbers from 0 to 255 "
            "or floats in [0, 1]; round them, or divide them by 255"
        )
    if integers:
        raise ValueError(
            f"{name}: got {images.dtype} images from {least} to {most}, expected 0 to 255; divide by their largest "
            "possible value to have floats in [0, 1]"
        )
    return images.astype(np.float32)
