"""Features and labels in files of several formats, read in batches instead of as a whole."""

import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nc_lightning.io.feature_names import Keys
from nc_lightning.io.feature_tables import CsvTable, ParquetTable, SavedDataset, as_integers


class _Arrays:
    """Arrays in memory, or memory-mapped."""

    def __init__(self, features: Any, labels: Any) -> None:
        self.features, self.labels, self.shape = features, labels, tuple(features.shape)

    def rows(self, batch_size: int) -> Iterator[Any]:
        for start in range(0, self.shape[0], batch_size):
            yield self.features[start : start + batch_size]


class _Npz:
    """An archive whose features are unpacked batch by batch; numpy would unpack all of them at once."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        with np.load(path, allow_pickle=False) as file:
            self.name = keys.find_features(path, file.files)
            labels = keys.find_labels(path, file.files)
            try:
                self.labels = file[labels] if labels else None
            except ValueError as error:  # only pickle can read them, and it may run code
                raise ValueError(
                    f"FILE: got Python objects as {labels} in {path.name}, expected integers or strings; save them by "
                    ".astype(str)"
                ) from error
        with zipfile.ZipFile(path) as archive, archive.open(f"{self.name}.npy") as member:
            self.shape, fortran, self.dtype = _header(member)
        if self.dtype.kind not in "fiub":
            raise ValueError(f"FILE: got {self.name} of type {self.dtype} in {path.name}, expected real numbers")
        if fortran:
            raise ValueError(
                f"FILE: got {self.name} in {path.name}, stored by columns, expected numbers stored by rows: "
                "np.ascontiguousarray"
            )

    def rows(self, batch_size: int) -> Iterator[np.ndarray[Any, Any]]:
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as member:
            _header(member)
            for start in range(0, self.shape[0], batch_size):
                n = min(batch_size, self.shape[0] - start)
                data = np.frombuffer(bytearray(member.read(n * row)), dtype=self.dtype)
                yield data.reshape(n, *self.shape[1:])


class _Safetensors:
    """Tensors, memory-mapped."""

    def __init__(self, path: Path, keys: Keys) -> None:
        try:
            from safetensors import safe_open  # noqa: PLC0415 - optional
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "FILE: got a .safetensors, which needs safetensors: pip install safetensors"
            ) from error
        self.path, self.file = path, safe_open(path, "pt")
        names = list(self.file.keys())
        labels = keys.find_labels(path, names)
        self.labels = None if labels is None else self.file.get_tensor(labels).numpy()
        self.features = self.file.get_slice(keys.find_features(path, names))
        self.shape = tuple(self.features.get_shape())

    def rows(self, batch_size: int) -> Iterator[Tensor]:
        for start in range(0, self.shape[0], batch_size):
            rows: Tensor = self.features[start : start + batch_size]
            if rows.is_complex():
                raise ValueError(f"FILE: got features of type {rows.dtype} in {self.path.name}, expected real numbers")
            yield rows


class _Shards:
    """Sources with the same dimension, one after the other."""

    def __init__(self, paths: list[Path], keys: Keys) -> None:
        self.parts = [open_source(path, keys) for path in paths]
        first = self.parts[0]
        for path, part in zip(paths, self.parts, strict=True):
            if part.shape[1:] != first.shape[1:] or (part.labels is None) != (first.labels is None):
                got = f"features of shape {part.shape}{' without labels' * (part.labels is None)} in {path.name}"
                other = f"{first.shape}{' with labels' * (first.labels is not None)} in {paths[0].name}"
                raise ValueError(f"FILE: got {got} and {other}, expected equal dimensions, and labels in all or none")
        self.dimensions = getattr(first, "dimensions", [])
        self.shape = (sum(part.shape[0] for part in self.parts), *first.shape[1:])
        self.labels = None if first.labels is None else np.concatenate([np.asarray(p.labels) for p in self.parts])

    def rows(self, batch_size: int) -> Iterator[Any]:
        for part in self.parts:
            yield from part.rows(batch_size)


def open_source(path: Path, keys: Keys) -> Any:
    """Open the features of a file, of a folder, or of the files that match a pattern such as ``feats_*.npy``.

    Args:
        path: Path or pattern.
        keys: Names of the features and labels.

    Returns:
        An object with ``shape`` and ``labels``, None if there are none, and a method ``rows(batch_size)`` that yields
        features.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the extension is unknown, or an array is missing or no numbers.
        ModuleNotFoundError: If the format needs a package that is not installed.
    """
    paths = matching(path)
    if len(paths) > 1:
        return _Shards(paths, keys)
    (path,) = paths
    if path.is_dir():
        return SavedDataset(path, keys)
    if path.suffix not in _SOURCES:
        raise ValueError(f"FILE: got {path.name!r}, expected {', '.join(_SOURCES)}, or a folder of Hugging Face")
    return _SOURCES[path.suffix](path, keys)


def read_labels(path: Path) -> np.ndarray[Any, Any]:
    """Read labels from a .npy, a .pt with a tensor, or a .txt with one on each line; or from all that match a pattern.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the extension is unknown.
    """
    found = []
    for file in matching(path):
        if file.suffix == ".npy":
            found.append(np.load(file, allow_pickle=False))
        elif file.suffix in (".pt", ".pth"):
            found.append(_loaded(file, mmap=False).detach().numpy())
        elif file.suffix == ".txt":
            found.append(as_integers(np.array(file.read_text(encoding="utf-8").rstrip().splitlines())))
        else:
            raise ValueError(f"--labels: got {file.name!r}, expected a .npy, .pt or .txt with labels alone")
    return found[0] if len(found) == 1 else np.concatenate(found)


def matching(path: Path) -> list[Path]:
    """Return the path itself if it exists, or else what matches it as a pattern, in natural order.

    Raises:
        FileNotFoundError: If there is none.
    """
    if path.exists():
        return [path]
    found = sorted(map(Path, glob(str(path))), key=_in_natural_order)
    if not found:
        pattern = "files that match the pattern" if set(str(path)) & set("*?[") else "a file that exists"
        raise FileNotFoundError(f"FILE: got {str(path)!r}, expected {pattern}")
    return found


def _in_natural_order(path: Path) -> list[tuple[bool, int, str]]:
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", str(path))]


def _npy(path: Path, keys: Keys) -> _Arrays:
    return _Arrays(np.load(path, mmap_mode="r", allow_pickle=False), None)


def _pt(path: Path, keys: Keys) -> _Arrays:
    data = _loaded(path, mmap=True)
    if isinstance(data, dict):
        labels = keys.find_labels(path, data)
        data = data[keys.find_features(path, data)], None if labels is None else data[labels]
    elif isinstance(data, Tensor):
        data = data, None
    tensors = [part for part in data if part is not None] if isinstance(data, (tuple, list)) else []
    if len(data) != 2 or not tensors or not all(isinstance(part, Tensor) for part in tensors):
        raise ValueError(f"FILE: got {type(data).__name__} in {path.name}, expected tensors features and labels")
    features, labels = data
    if features.is_complex() or features.is_quantized or features.layout != torch.strided:
        raise ValueError(
            f"FILE: got features of type {features.dtype}, {features.layout} in {path.name}, expected dense numbers"
        )
    return _Arrays(features.detach(), None if labels is None else labels.detach().numpy())


def _loaded(path: Path, mmap: bool) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        if "Unsupported" not in str(error):
            raise
        raise ValueError(
            f"FILE: got Python objects in {path.name}, which only pickle can read and may run code, expected tensors: "
            "torch.from_numpy"
        ) from error


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)


_SOURCES: dict[str, Callable[[Path, Keys], Any]] = {
    ".npz": _Npz,
    ".npy": _npy,
    ".pt": _pt,
    ".pth": _pt,
    ".csv": CsvTable,
    ".parquet": ParquetTable,
    ".safetensors": _Safetensors,
}
