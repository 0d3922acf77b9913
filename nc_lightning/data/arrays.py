"""Data of your own in one file: a `.npz` with training and test arrays."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nc_lightning.data.images import ImageDataModule
from nc_lightning.data.loader import LabelledTensors

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class ArrayDataModule(ImageDataModule):
    """Images or vectors from a `.npz` file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Bytes are images, (N, H, W) or (N, H, W, 3): they become channels first, float, and standardised by mean and
    standard deviation of each channel of the training set. Other numbers are taken as they are, in float32. Names of
    the classes may be in a further array ``classes``.

    Args:
        path: The file. Pickled arrays are refused.
        kwargs: Of `ImageDataModule`: classes, val_share, views, augmentation, cache, batch_size, batches,
            classes_per_batch and seed. Vectors have no augmentation.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If an array is missing, of a wrong shape or type, labels are not 0 to C - 1, or an argument is out
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

    def __init__(self, path: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.path = Path(path)
        with self._open() as file:
            missing = [name for name in ARRAYS if name not in file.files]
            if missing:
                got = ", ".join(sorted(file.files)) or "nothing"
                raise ValueError(f"path: got {got} in {self.path.name}, expected {', '.join(ARRAYS)}")
            found = sorted({int(label) for name in ("y_train", "y_test") for label in np.unique(_labels(file, name))})
            if found[0] < 0:
                raise ValueError(f"labels: got {found[0]}, expected none below 0")
            self.choose_classes(found, _names(file, found))
            head = torch.from_numpy(_channels_first(_array(file, "x_test")[:1]))
        self.input_shape = tuple(head.shape[1:])
        self._itemsize = 1 if head.dtype == torch.uint8 else 4
        if self.augmentation is not None and (head.dtype != torch.uint8 or head.ndim != 4):
            raise ValueError(f"augmentation: got one for inputs {self.input_shape} of {head.dtype}, expected images")

    def num_bytes(self) -> int:
        """Return the bytes of the images of the chosen classes."""
        with self._open() as file:
            wanted = sum(int(np.isin(_labels(file, name), self._labels).sum()) for name in ("y_train", "y_test"))
        return wanted * math.prod(self.input_shape) * self._itemsize

    def read(self) -> tuple[LabelledTensors, LabelledTensors]:
        """Read both sets, with the labels of the file."""
        with self._open() as file:
            return self._read(file, "train"), self._read(file, "test")

    def _open(self) -> Any:
        if not self.path.is_file():
            raise FileNotFoundError(f"path: got {str(self.path)!r}, expected a .npz file that exists")
        try:
            return np.load(self.path, allow_pickle=False)
        except PermissionError:
            raise
        except Exception as error:
            raise ValueError(f"path: got {str(self.path)!r}, which is damaged or no .npz") from error

    def _read(self, file: Any, split: str) -> LabelledTensors:
        x, labels = _array(file, f"x_{split}"), _labels(file, f"y_{split}")
        if x.dtype.kind not in "fiu" or x.ndim < 2 or len(x) != len(labels):
            raise ValueError(
                f"x_{split}: got {x.dtype} of shape {x.shape} and {len(labels)} labels, expected numbers (N, ...) and N"
            )
        inputs = torch.from_numpy(_channels_first(x))
        shape: tuple[int, ...] = tuple(inputs.shape[1:])
        if shape != self.input_shape:
            raise ValueError(f"x_{split}: got inputs of shape {shape}, expected {self.input_shape}")
        inputs = inputs if inputs.dtype == torch.uint8 else inputs.float()
        return LabelledTensors(inputs, _as_tensor(labels))


def _array(file: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = file[name]
    except Exception as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from error
    return array


def _labels(file: Any, name: str) -> np.ndarray[Any, Any]:
    labels = _array(file, name)
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise ValueError(f"{name}: got {labels.dtype} of shape {labels.shape}, expected (N,) integers")
    return labels


def _as_tensor(labels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(labels.astype(np.int64))


def _names(file: Any, found: list[int]) -> list[str] | None:
    if "classes" not in file.files:
        return None
    names = _array(file, "classes")
    if names.ndim != 1 or len(names) <= found[-1]:
        raise ValueError(f"classes: got names of shape {names.shape}, expected one for each label up to {found[-1]}")
    return [str(names[label]) for label in found]


def _channels_first(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if x.dtype != np.uint8:
        return x
    if x.ndim == 3:
        return x[:, None]
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 and x.shape[3] in (1, 3, 4) else x
