"""Checks of common arguments, such as ``z``, ``labels`` and positive numbers, with one-line errors.

`as_features` and `as_labels` are the one place where arrays and lists become tensors.
"""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array: TypeAlias = Tensor | npt.NDArray[Any] | Sequence[Any]
"""What functions of features take: a tensor, a numpy array, or nested lists."""

MISSING = (
    *("", "nan", "-nan", "null", "none", "<na>", "#n/a", "#na", "n/a", "na"),
    *("?", "??", "???", "-", "--", "---", "\u2013", "\u2014"),
)
"""Words for a missing name in tables, in lower case."""
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def as_features(z: Array, name: str = "z") -> Tensor:
    """Return a tensor itself, and an array or lists as a tensor of their dtype, or of float64 for lists and integers.

    An array is not copied unless it is read-only or not in native byte order.

    Raises:
        TypeError: If there is no torch dtype for the values.
        ValueError: If rows have several lengths.

    Example:
        >>> as_features([[3, 4]]), as_features(np.ones(1, dtype=np.float32))
        (tensor([[3., 4.]], dtype=torch.float64), tensor([1.]))
        >>> as_features(np.array([3, 4])).dtype
        torch.float64
    """
    if isinstance(z, Tensor):
        return z
    array = _array(z, name)
    return _tensor(array.astype(np.float64) if array.dtype.kind in "iu" else array, name, "numbers of shape (N, d)")


def as_labels(labels: Array, name: str = "labels") -> Tensor:
    """Return a tensor itself, and an array or a list of integers as an int64 tensor.

    Raises:
        TypeError: If an array or a list does not hold integers.

    Example:
        >>> as_labels([0, 2]), as_labels(np.array([1], dtype=np.uint16))
        (tensor([0, 2]), tensor([1]))
        >>> as_labels(["cat", "dog"])
        Traceback (most recent call last):
        ...
        TypeError: labels: got <U3, expected integers; number them with numpy.unique(labels, return_inverse=True)[1]
    """
    if isinstance(labels, Tensor):
        return labels
    array = _array(labels, name)
    if array.dtype.kind not in "iu" and array.size > 0:
        raise TypeError(
            f"{name}: got {array.dtype}, expected integers; number them with numpy.unique({name}, "
            "return_inverse=True)[1]"
        )
    return _tensor(array.astype(np.int64), name, "integers")


def _array(given: Array, name: str) -> npt.NDArray[Any]:
    try:
        return np.asarray(given)
    except ValueError as error:
        raise ValueError(f"{name}: got rows of several lengths, expected an array of numbers") from error


def _tensor(array: npt.NDArray[Any], name: str, expected: str) -> Tensor:
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    try:
        return torch.from_numpy(native if native.flags["W"] else native.copy())
    except TypeError as error:
        raise TypeError(f"{name}: got {array.dtype}, expected {expected}") from error


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
        raise TypeError(f"{name}: got {got}, expected a floating-point tensor of shape (N, d){_as_float(z, name)}")
    if z.ndim != 2 or z.shape[1] == 0:
        raise ValueError(f"{name}: got shape {tuple(z.shape)}, expected (N, d), one row per sample")


def _as_float(z: Any, name: str) -> str:
    integers = isinstance(z, Tensor) and z.dtype in _INTEGERS
    return f"; convert it with {name}.double()" if integers else ""


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
    bound = f" > {above}" if above is not None else f" >= {at_least}" if at_least is not None else ""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or (above is not None and value <= above) or (at_least is not None and value < at_least):
        raise ValueError(f"{name}: got {value!r}, expected a finite number{bound}")


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


def separated_names(name: str, given: Sequence[str] | str) -> tuple[str, ...]:
    """Return names that are given as a list, or as a text separated by commas.

    Raises:
        ValueError: If there is none, or one is empty or there twice.

    Example:
        >>> separated_names("layers", "encoder, z"), separated_names("layers", ["encoder", "z"])
        (('encoder', 'z'), ('encoder', 'z'))
        >>> separated_names("layers", "encoder,encoder")
        Traceback (most recent call last):
        ...
        ValueError: layers: got 'encoder,encoder', expected different names, separated by commas
    """
    names = tuple(part.strip() for part in (given.split(",") if isinstance(given, str) else given))
    if not names or "" in names or len(set(names)) < len(names):
        raise ValueError(f"{name}: got {given!r}, expected different names, separated by commas")
    return names


def one_line(error: object) -> str:
    r"""Return the message of an error, or a text, on one line; the class name if an error has no message.

    Example:
        >>> one_line(OSError("first\n  second")), one_line(KeyboardInterrupt())
        ('first second', 'KeyboardInterrupt')
    """
    unnamed = type(error).__name__ if isinstance(error, BaseException) else ""
    return " ".join(str(error).split()) or unnamed
