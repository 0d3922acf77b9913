"""Checks of common arguments, such as ``z``, ``labels`` and positive numbers, with one-line errors."""

import math
from typing import Any, get_args

import torch
from torch import Tensor

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_features(z: Tensor, name: str = "z") -> None:
    """Raise unless ``z`` is a floating-point tensor of shape (N, d) with d >= 1.

    Raises:
        TypeError: If ``z`` is not a floating-point tensor.
        ValueError: If ``z`` does not have exactly two dimensions, or has no columns.

    Example:
        >>> check_features(torch.zeros(4))
        Traceback (most recent call last):
        ...
        ValueError: z: got shape (4,), expected (N, d), one row per sample
    """
    if not isinstance(z, Tensor) or not z.is_floating_point():
        got = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"{name}: got {got}, expected a floating-point tensor of shape (N, d)")
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"{name}: got shape {tuple(z.shape)}, expected (N, d), one row per sample")


def check_labels(labels: Tensor, num_samples: int, num_classes: int | None = None, name: str = "labels") -> None:
    """Raise unless ``labels`` has one integer per sample, in [0, num_classes) if ``num_classes`` is given.

    Raises:
        TypeError: If ``labels`` is not an integer tensor.
        ValueError: If the shape is not (num_samples,), or a label lies outside [0, num_classes).

    Example:
        >>> check_labels(torch.tensor([0, 3]), 2, num_classes=3)
        Traceback (most recent call last):
        ...
        ValueError: labels: got label 3, expected integers in [0, 3)
    """
    if not isinstance(labels, Tensor) or labels.dtype not in _INTEGERS:
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"{name}: got {got}, expected an integer tensor of shape (N,); convert it with {name}.long()")
    if labels.shape != (num_samples,):
        raise ValueError(f"{name}: got shape {tuple(labels.shape)}, expected ({num_samples},), one for each row of z")
    if num_classes is not None and labels.numel() > 0:
        low, high = (int(v) for v in torch.aminmax(labels))
        if low < 0 or high >= num_classes:
            raise ValueError(f"{name}: got label {low if low < 0 else high}, expected integers in [0, {num_classes})")


def check_values(z: Tensor, labels: Tensor, num_classes: int) -> None:
    """Check labels and finite features on one device, synchronizing with it once if both are valid.

    Raises:
        ValueError: If a label lies outside [0, num_classes), or a value of ``z`` is not finite.

    Example:
        >>> check_values(torch.zeros(2, 2), torch.tensor([0, 3]), num_classes=3)
        Traceback (most recent call last):
        ...
        ValueError: labels: got label 3, expected integers in [0, 3)
    """
    if not (torch.isfinite(z).all() & ((labels >= 0) & (labels < num_classes)).all()):
        check_labels(labels, len(z), num_classes)
        check_finite(z)


def check_finite(z: Tensor, name: str = "z") -> None:
    """Raise if a value is NaN or infinite, naming the first such row.

    Raises:
        ValueError: If any value of ``z`` is not finite.

    Example:
        >>> check_finite(torch.tensor([[0.0, 1.0], [float("nan"), 2.0]]))
        Traceback (most recent call last):
        ...
        ValueError: z: got nan in row 1, expected finite features
    """
    finite = torch.isfinite(z.detach())
    if not finite.all():
        row, column = torch.nonzero(~finite)[0].tolist()
        raise ValueError(f"{name}: got {z[row, column].item()} in row {row}, expected finite features")


def check_number(name: str, value: float, *, above: float | None = None, at_least: float | None = None) -> None:
    """Raise unless ``value`` is a finite number, greater than ``above`` or at least ``at_least``.

    Raises:
        ValueError: If it is not.

    Example:
        >>> check_number("temperature", -1.0, above=0)
        Traceback (most recent call last):
        ...
        ValueError: temperature: got -1.0, expected a finite number > 0
    """
    bound = f"> {above}" if above is not None else f">= {at_least}"
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (above is not None and value <= above) or (at_least is not None and value < at_least):
        raise ValueError(f"{name}: got {value!r}, expected a finite number {bound}")


def check_fraction(name: str, value: float, interval: str, meaning: str = "a share") -> None:
    """Raise unless ``value`` is a number in an interval from 0 to 1, such as "(0, 1]".

    Raises:
        ValueError: If it is not; the message names its meaning.

    Example:
        >>> check_fraction("hold", 1.0, "[0, 1)")
        Traceback (most recent call last):
        ...
        ValueError: hold: got 1.0, expected a share in [0, 1)
    """
    check_number(name, value, **{"above" if interval.startswith("(") else "at_least": 0})
    if value > 1 or (value == 1 and interval.endswith(")")):
        raise ValueError(f"{name}: got {value!r}, expected {meaning} in {interval}")


def check_count(name: str, value: int, at_least: int = 1) -> None:
    """Raise unless ``value`` is an integer of at least ``at_least``.

    Raises:
        ValueError: If it is not.

    Example:
        >>> check_count("feature_dim", 0)
        Traceback (most recent call last):
        ...
        ValueError: feature_dim: got 0, expected an integer >= 1
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"{name}: got {value!r}, expected an integer >= {at_least}")


def check_choice(name: str, value: str | int, choices: Any) -> None:
    """Raise unless ``value`` is one of the values of a `typing.Literal`.

    Raises:
        ValueError: If it is not.

    Example:
        >>> from typing import Literal
        >>> check_choice("form", "max", Literal["mean", "sum"])
        Traceback (most recent call last):
        ...
        ValueError: form: got 'max', expected one of mean, sum
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(str, get_args(choices)))}")


def one_line(error: object) -> str:
    r"""Return the message of an error, or a text, on one line; the class name if an error has no message.

    Example:
        >>> one_line(OSError("first\n  second")), one_line(KeyboardInterrupt())
        ('first second', 'KeyboardInterrupt')
    """
    unnamed = type(error).__name__ if isinstance(error, BaseException) else ""
    return " ".join(str(error).split()) or unnamed
