"""Data of your own in one file: a `.npz` with training and test arrays."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nc_lightning.data.base import Batches, InMemoryDataModule, LabelledTensors, Split

ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class ArrayDataModule(InMemoryDataModule):
    """Images or vectors from a `.npz` file with the arrays ``x_train``, ``y_train``, ``x_test`` and ``y_test``.

    Bytes are images, (N, H, W) or (N, H, W, 3): they become channels first, float, and standardised by mean and
    standard deviation of each channel of the training set. Other numbers are taken as they are, in float32. A share of
    each class of the training set is held out for validation.

    Args:
        path: The file. Pickled arrays are refused.
        classes: Labels to keep, which are numbered from 0 in this order; None for all, which must be 0 to C - 1.
        val_share: Share of each class held out for validation, in [0, 1); with 0 the test set stands in for it.
        batch_size: Inputs in a batch.
        batches: ``balanced`` or ``random``.
        seed: Of the split and of the order of batches.

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

    def __init__(
        self,
        path: str,
        classes: list[int] | None = None,
        val_share: float = 0.1,
        batch_size: int = 256,
        batches: Batches = "balanced",
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, batches, seed)
        if not 0 <= val_share < 1:
            raise ValueError(f"val_share: got {val_share!r}, expected a share in [0, 1)")
        if classes is not None and (len(classes) < 2 or len(set(classes)) < len(classes)):
            raise ValueError(f"classes: got {classes}, expected at least two different labels")
        self.path = Path(path)
        self.classes = classes
        self.val_share = val_share
        shape, labels = self._look()
        self.num_classes = len(labels)
        self.input_shape = shape

    def _look(self) -> tuple[tuple[int, ...], list[int]]:
        """Return the shape of an input and the labels there are, without the training inputs."""
        with self._open() as file:
            missing = [name for name in ARRAYS if name not in file.files]
            if missing:
                got = ", ".join(sorted(file.files)) or "nothing"
                raise ValueError(f"path: got {got} in {self.path.name}, expected {', '.join(ARRAYS)}")
            found = sorted({int(label) for name in ("y_train", "y_test") for label in np.unique(_labels(file, name))})
            shape = _input_shape(file["x_test"][:1])
        if self.classes is None:
            if found != list(range(len(found))):
                raise ValueError(
                    f"labels: got {_listed(found)}, expected 0 to C - 1; choose and renumber them by classes=[...]"
                )
            return shape, found
        absent = sorted(set(self.classes) - set(found))
        if absent:
            raise ValueError(f"classes: got {absent}, which the file does not have, expected some of {_listed(found)}")
        return shape, self.classes

    def make_splits(self) -> dict[Split, LabelledTensors]:
        """Read the file, hold out the validation set, and standardise."""
        with self._open() as file:
            train, test = self._read(file, "train"), self._read(file, "test")
        held_out = _share_of_each_class(train[1], self.val_share, self.seed)
        train, val = (train[0][~held_out], train[1][~held_out]), (train[0][held_out], train[1][held_out])
        if train[0].dtype == torch.uint8:
            axes = [0, *range(2, train[0].ndim)]
            scale = train[0].double().div(255)
            mean, std = scale.mean(axes), scale.std(axes, correction=0).clamp(min=1e-6)
            train, val, test = ((_standardised(x, mean, std), y) for x, y in (train, val, test))
        if len(val[1]) == 0:
            val = test
        return {"train": LabelledTensors(*train), "val": LabelledTensors(*val), "test": LabelledTensors(*test)}

    def _open(self) -> Any:
        if not self.path.is_file():
            raise FileNotFoundError(f"path: got {str(self.path)!r}, expected a .npz file that exists")
        try:
            return np.load(self.path, allow_pickle=False)
        except Exception as error:
            raise ValueError(f"path: got {str(self.path)!r}, which is damaged or no .npz") from error

    def _read(self, file: Any, split: str) -> tuple[Tensor, Tensor]:
        try:
            x = file[f"x_{split}"]
        except Exception as error:
            raise ValueError(f"x_{split}: {' '.join(str(error).split())}") from error
        labels = _labels(file, f"y_{split}")
        if x.dtype.kind not in "fiu" or x.ndim < 2 or len(x) != len(labels):
            raise ValueError(
                f"x_{split}: got {x.dtype} of shape {x.shape} and {len(labels)} labels, expected numbers (N, ...) and N"
            )
        if self.classes is not None:
            number = {label: i for i, label in enumerate(self.classes)}
            kept = np.isin(labels, self.classes)
            x, labels = x[kept], np.array([number[int(label)] for label in labels[kept]], dtype=np.int64)
        x = torch.from_numpy(_channels_first(x))
        if _input_shape(x) != self.input_shape:
            raise ValueError(f"x_{split}: got inputs of shape {_input_shape(x)}, expected {self.input_shape}")
        return x if x.dtype == torch.uint8 else x.float(), torch.from_numpy(labels.astype(np.int64))


def _labels(file: Any, name: str) -> np.ndarray[Any, Any]:
    try:
        labels: np.ndarray[Any, Any] = file[name]
    except ValueError as error:
        raise ValueError(f"{name}: {' '.join(str(error).split())}") from error
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) == 0:
        raise ValueError(f"{name}: got {labels.dtype} of shape {labels.shape}, expected (N,) integers")
    return labels


def _channels_first(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if x.dtype != np.uint8:
        return x
    if x.ndim == 3:
        return x[:, None]
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 and x.shape[3] in (1, 3, 4) else x


def _input_shape(x: Any) -> tuple[int, ...]:
    return tuple(x.shape[1:]) if isinstance(x, Tensor) else tuple(_channels_first(x).shape[1:])


def _standardised(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    shape = (1, -1, *([1] * (x.ndim - 2)))
    return ((x.float() / 255 - mean.float().view(shape)) / std.float().view(shape)).contiguous()


def _share_of_each_class(labels: Tensor, share: float, seed: int) -> Tensor:
    """(N,) bool: a share of each class, rounded down, drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        chosen[members[: int(share * len(members))]] = True
    return chosen


def _listed(labels: list[int]) -> str:
    return str(labels) if len(labels) <= 12 else f"[{', '.join(map(str, labels[:5]))}, ..., {labels[-1]}]"
