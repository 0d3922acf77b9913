"""Your own data in one file: a `.npz` with training and test arrays."""

import math
from typing import Any

import numpy as np
import torch

from nc_lightning.checks import MISSING, one_line
from nc_lightning.data.base import SPLITS, Split
from nc_lightning.data.files.array_layout import as_inputs
from nc_lightning.data.files.classes import class_name, whole_numbers
from nc_lightning.data.files.finding import real_path
from nc_lightning.data.files.split_folders import ROLES
from nc_lightning.data.loader import LabeledImages, LabeledTensors
from nc_lightning.data.sources.images import ImageDataModule, ImageOptions
from nc_lightning.options import Unpack

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class ArrayDataModule(ImageDataModule):
    """Load images or vectors from a `.npz` file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Images are (N, H, W), (N, H, W, C) or (N, C, H, W). Bytes (0 to 255, in any type) are converted to float and
    standardized by the mean and standard deviation of each channel of the training set. Images in [0, 1] or already
    standardized, and vectors, are only converted to float32. The summary at setup logs which of these applies.

    ``x_val`` and ``y_val`` are the validation set, if present. Names may be in any case, with the usual split names,
    such as ``X_valid`` or ``y_dev``. An array ``classes`` or ``class_names`` may name the classes; the summary counts
    all other arrays.

    Args:
        path: Path of the file. Pickled arrays are refused.
        kwargs: Arguments of `ImageDataModule`. Vectors cannot be augmented.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an array is missing or of a wrong shape or type, labels are not 0 to C - 1, or an argument is out
            of its range.

    Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/data.npz"
        >>> images, labels = np.zeros((20, 8, 8), dtype=np.uint8), np.arange(20) % 4
        >>> np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
        >>> data = ArrayDataModule(path, batch_size=8)
        >>> data.num_classes, data.input_shape
        (4, (1, 8, 8))
    """

    def __init__(self, path: str, **kwargs: Unpack[ImageOptions]) -> None:
        super().__init__(**kwargs)
        self.path = real_path(path)
        with self._open() as file:
            self._keys = self._find(file.files)
            self._in_file: list[Split] = [split for split in SPLITS if f"y_{split}" in self._keys]
            found = sorted({int(label) for split in self._in_file for label in np.unique(self._labels_of(file, split))})
            if found[0] < 0:
                raise ValueError(f"labels: got {found[0]}, expected none below 0")
            self.choose_classes(found, _names(file, self._keys["classes"], found) if "classes" in self._keys else None)
            name = self._keys["x_test"]
            inputs = as_inputs(_inputs(file, name), name)
        self.input_shape = tuple(inputs.shape[1:])
        self._dtype = inputs.dtype
        if self.augmentation is not None and self._dtype != np.uint8:
            raise ValueError(
                f"augmentation: got one for inputs {self.input_shape} of {inputs.dtype}, expected images of bytes"
            )

    def num_bytes(self) -> int:
        """Return the size in bytes of the images of the chosen classes."""
        with self._open() as file:
            labels = (self._labels_of(file, split) for split in self._in_file)
            wanted = sum(int(np.isin(of_split, self._labels).sum()) for of_split in labels)
        return int(wanted * math.prod(self.input_shape) * self._dtype.itemsize)

    def read(self) -> dict[Split, LabeledImages]:
        """Read the splits, with the labels of the file."""
        with self._open() as file:
            return {split: self._read(file, split) for split in self._in_file}

    def _find(self, keys: list[str]) -> dict[str, str]:
        """Return the key of each array to read by its standard name, and count the others."""
        found: dict[str, str] = {}
        for key in keys:
            name = _plain_name(key)
            if name is None:
                self.passed_over.add("not read", key)
            elif name in found:
                raise ValueError(f"path: got {found[name]} and {key} in {self.path.name}, expected one {name}")
            else:
                found[name] = key
        needed = (*ARRAYS, "x_val", "y_val") if {"x_val", "y_val"} & found.keys() else ARRAYS
        if not found.keys() >= set(needed):
            got = ", ".join(sorted(keys)) or "nothing"
            raise ValueError(f"path: got {got} in {self.path.name}, expected {', '.join(needed)}")
        return found

    def _labels_of(self, file: Any, split: Split) -> np.ndarray[Any, Any]:
        return _labels(file, self._keys[f"y_{split}"])

    def _open(self) -> Any:
        if not self.path.is_file():
            raise FileNotFoundError(f"path: got {str(self.path)!r}, expected a .npz file that exists")
        try:
            return np.load(self.path, allow_pickle=False)
        except PermissionError:
            raise
        except Exception as error:
            raise ValueError(f"path: got {str(self.path)!r}, which is damaged or not a .npz") from error

    def _read(self, file: Any, split: Split) -> LabeledTensors:
        name = self._keys[f"x_{split}"]
        x, labels = _inputs(file, name), self._labels_of(file, split)
        if len(x) != len(labels):
            raise ValueError(
                f"{name}: got {x.dtype} of shape {x.shape} and {len(labels)} labels, expected one for each"
            )
        inputs = as_inputs(x, name)
        shape: tuple[int, ...] = tuple(inputs.shape[1:])
        if shape != self.input_shape:
            raise ValueError(f"{name}: got inputs of shape {shape}, expected {self.input_shape}, as in x_test")
        if inputs.dtype != self._dtype:
            kinds = {True: "bytes", False: "floats used unchanged"}
            raise ValueError(
                f"{name}: got {kinds[inputs.dtype == np.uint8]} from {inputs.min():g} to {inputs.max():g}, expected "
                f"{kinds[self._dtype == np.uint8]} as in x_test"
            )
        kind = "bytes" if inputs.dtype == np.uint8 else "floats"
        span = f"{kind} from {inputs.min():.3g} to {inputs.max():.3g}"
        self.origins[split] = f"{name} in {self.path}, {span}"
        return LabeledTensors(torch.from_numpy(inputs), torch.from_numpy(labels.astype(np.int64)))


def _plain_name(key: str) -> str | None:
    """Return the standard name of an array's key, such as ``x_val`` for ``X_valid``; None if it is not to be read."""
    kind, _, split = key.lower().partition("_")
    if kind in ("x", "y") and split in ROLES:
        return f"{kind}_{ROLES[split]}"
    return "classes" if key.lower() in ("classes", "class_names") else None


def _array(file: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = file[name]
    except Exception as error:
        raise ValueError(f"{name}: {one_line(error)}") from error
    return array


def _inputs(file: Any, name: str) -> np.ndarray[Any, Any]:
    x = _array(file, name)
    if x.dtype.kind not in "fiub" or x.ndim < 2 or len(x) == 0:
        raise ValueError(f"{name}: got {x.dtype} of shape {x.shape}, expected numbers (N, ...)")
    return x


def _labels(file: Any, name: str) -> np.ndarray[Any, Any]:
    labels = given = _array(file, name)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind in "bf":
        values = labels.astype(np.float64)
        exact = (values == np.rint(values)) & (np.abs(values) < 2**53)
        labels = values.astype(np.int64) if exact.all() else labels
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise ValueError(f"{name}: got {given.dtype} of shape {given.shape}, expected whole numbers (N,)")
    if labels.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: got {labels.max()}, expected labels below 2**63; is it the -1 of unknown ones?")
    return labels


def _names(file: Any, key: str, found: list[int]) -> list[str]:
    names = _array(file, key)
    if names.ndim != 1 or len(names) <= found[-1]:
        raise ValueError(f"{key}: got names of shape {names.shape}, expected one for each label up to {found[-1]}")
    texts = [_text(names[label]) for label in found]
    for label, text in zip(found, texts, strict=True):
        if text.lower() in MISSING:
            raise ValueError(f"{key}: got {text!r} for label {label}, expected a name")
    return whole_numbers(texts) or texts


def _text(name: Any) -> str:
    return class_name(name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name))
