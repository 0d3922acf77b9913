"""Open features in files by their extension, and read them in batches instead of as a whole."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nc_lightning.data.files.classes import MISSING

FEATURE_NAMES = ("features", "z", "embeddings", "x")
LABEL_NAMES = ("labels", "label", "y", "targets")


class FeatureFile:
    """Features (N, d) and labels (N,) in a file, read in batches as often as needed.

    ``.npz``: arrays ``features`` and ``labels``, as written by ``nc-train predict``; unpacked batch by batch.
    ``.npy``: features, with the labels in a second file; memory-mapped.
    ``.pt``: a dict of tensors ``features`` and ``labels``, or a pair of them; memory-mapped, loaded as weights only.
    ``.parquet``: a column of lists ``features``, or one column per dimension, and ``labels``; read by row groups.

    Other names for ``features`` are ``z``, ``embeddings`` and ``x``; for ``labels``, ``label``, ``y`` and ``targets``.
    Labels may be any integers or strings, without white space around them, and are numbered in sorted order. Negative
    integers mean an unknown label; these samples are skipped.

    Args:
        path: Path of the file.
        labels: Path of a second file with the labels, for `.npy`.

    Attributes:
        classes: Sorted labels that occur.
        feature_dim: Dimension d.
        num_unknown: Number of samples with an unknown label.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the extension is unknown, an array is missing or of a wrong shape, or the file cannot be read.
        ModuleNotFoundError: If pyarrow is needed and not installed.
    """

    def __init__(self, path: str | Path, labels: str | Path | None = None) -> None:
        self.path = Path(path)
        for file in (self.path, Path(labels) if labels is not None else self.path):
            if not file.is_file():
                raise FileNotFoundError(f"FILE: got {str(file)!r}, expected a file that exists")
        if (labels is not None) != (self.path.suffix == ".npy"):
            got = labels and str(labels)
            raise ValueError(f"LABELS: got {got!r}, expected a second .npy with a .npy of features, and only then")
        try:
            self._source = _open(self.path, labels)
        except Exception as error:
            if str(error).startswith("FILE: "):
                raise
            raise ValueError(f"FILE: got {str(self.path)!r}, which is damaged or not a {self.path.suffix}") from error
        given = _as_text(np.asarray(self._source.labels))
        of_texts = given.dtype.kind != "O" or all(isinstance(label, (str, bytes)) for label in given.flat)
        if given.ndim != 1 or given.dtype.kind not in "iuUSO" or not of_texts:
            raise ValueError(
                f"FILE: got labels of shape {given.shape} and type {given.dtype}, expected (N,) integers or strings"
            )
        if given.dtype.kind in "UO":
            given = np.char.strip(given.astype(str))
            for row in np.flatnonzero(np.isin(np.char.lower(given), MISSING))[:1].tolist():
                raise ValueError(f"FILE: got the label {str(given[row])!r} in row {row}, expected the name of a class")
        labeled = given >= 0 if given.dtype.kind in "iu" else np.ones(len(given), dtype=bool)
        self.num_unknown = int((~labeled).sum())
        classes, numbers = np.unique(given[labeled], return_inverse=True)
        self.classes: list[Any] = classes.tolist()
        self._labels = np.full(len(given), -1)
        self._labels[labeled] = numbers
        shape = self._source.shape
        if len(shape) != 2 or shape[0] != len(given) or 0 in shape:
            raise ValueError(f"FILE: got features of shape {shape} and {len(given)} labels, expected (N, d) and N")
        if not self.classes:
            raise ValueError("FILE: got unknown labels only, expected at least one class")
        self.feature_dim = int(shape[1])

    def __len__(self) -> int:
        """Return N, including samples with unknown labels."""
        return len(self._labels)

    def batches(self, batch_size: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float features (n, d) and their class numbers (n,), without samples of unknown label."""
        start = 0
        for read in self._source.rows(batch_size):
            rows = read if isinstance(read, Tensor) else _as_tensor(read)
            labels = torch.from_numpy(self._labels[start : start + len(rows)])
            start += len(rows)
            labeled = labels >= 0
            z = rows if rows.dtype == torch.float64 else rows.float()
            yield z[labeled], labels[labeled]


class _Arrays:
    """Arrays in memory, or memory-mapped."""

    def __init__(self, features: Any, labels: Any) -> None:
        self.features, self.labels, self.shape = features, labels, tuple(features.shape)

    def rows(self, batch_size: int) -> Iterator[Any]:
        for start in range(0, self.shape[0], batch_size):
            yield self.features[start : start + batch_size]


class _Npz:
    """An archive whose features are unpacked batch by batch; numpy would unpack all of them at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with np.load(path, allow_pickle=False) as file:
            self.name, labels = _pick(file.files, FEATURE_NAMES), _pick(file.files, LABEL_NAMES)
            try:
                self.labels = file[labels]
            except ValueError as error:  # only pickle can read them, and it may run code
                raise ValueError(
                    f"FILE: got Python objects as {labels}, expected integers or strings; save them by .astype(str)"
                ) from error
        with zipfile.ZipFile(path) as archive, archive.open(f"{self.name}.npy") as member:
            self.shape, fortran, self.dtype = _header(member)
        if fortran or self.dtype.kind not in "fiu":
            raise ValueError(
                f"FILE: got {self.name} of type {self.dtype}{', stored by columns' if fortran else ''}, expected "
                "numbers stored by rows: np.ascontiguousarray"
            )

    def rows(self, batch_size: int) -> Iterator[np.ndarray[Any, Any]]:
        row = self.dtype.itemsize * int(np.prod(self.shape[1:]))
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as member:
            _header(member)
            for start in range(0, self.shape[0], batch_size):
                n = min(batch_size, self.shape[0] - start)
                data = np.frombuffer(bytearray(member.read(n * row)), dtype=self.dtype)
                yield data.reshape(n, *self.shape[1:])


class _Parquet:
    """A table, read in row groups."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import parquet  # noqa: PLC0415 - optional
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("FILE: got a .parquet, which needs pyarrow: pip install pyarrow") from error
        self.file = parquet.ParquetFile(path)
        names = self.file.schema_arrow.names
        label = _pick(names, LABEL_NAMES)
        self.labels = self.file.read(columns=[label])[label].to_numpy()
        of_lists = [name for name in FEATURE_NAMES if name in names]
        self.columns = of_lists[:1] or [name for name in names if name != label]
        self.lists = bool(of_lists)
        first = next(self.rows(1), None)
        self.shape = (self.file.metadata.num_rows, 0 if first is None else first.shape[1])

    def rows(self, batch_size: int) -> Iterator[np.ndarray[Any, Any]]:
        for batch in self.file.iter_batches(batch_size, columns=self.columns):
            columns = [column.to_numpy(zero_copy_only=False) for column in batch.columns]
            try:
                yield np.stack(list(columns[0])) if self.lists else np.stack(columns, 1)
            except ValueError as error:
                raise ValueError("FILE: got features of several lengths, expected d numbers in each row") from error


def _open(path: Path, labels: str | Path | None) -> Any:
    if path.suffix == ".npz":
        return _Npz(path)
    if path.suffix == ".npy" and labels is not None:  # always so, see above
        return _Arrays(np.load(path, mmap_mode="r", allow_pickle=False), np.load(labels, allow_pickle=False))
    if path.suffix in (".pt", ".pth"):
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if isinstance(data, dict):
            data = data[_pick(list(data), FEATURE_NAMES)], data[_pick(list(data), LABEL_NAMES)]
        if not (isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)):
            raise ValueError(f"FILE: got {type(data).__name__} in {path.name}, expected tensors features and labels")
        if data[0].is_complex() or data[0].is_quantized or data[0].layout != torch.strided:
            raise ValueError(f"FILE: got features of type {data[0].dtype}, {data[0].layout}, expected dense numbers")
        return _Arrays(data[0], data[1].numpy())
    if path.suffix == ".parquet":
        return _Parquet(path)
    raise ValueError(f"FILE: got {path.name!r}, expected a .npz, .npy, .pt or .parquet")


def _as_tensor(rows: np.ndarray[Any, Any]) -> Tensor:
    """Copy rows in native byte order; torch needs writable memory, and a mapped array is read-only."""
    if rows.dtype.kind not in "fiub":
        raise ValueError(f"FILE: got features of type {rows.dtype}, expected numbers")
    return torch.from_numpy(rows.astype(rows.dtype.newbyteorder("=")))


def _as_text(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Decode labels stored as bytes, so that they are shown as names."""
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8", "backslashreplace")
    if labels.dtype.kind == "O" and any(isinstance(label, bytes) for label in labels.flat):
        decoded = [x.decode(errors="backslashreplace") if isinstance(x, bytes) else x for x in labels.flat]
        text: np.ndarray[Any, Any] = np.array(decoded, dtype=object).reshape(labels.shape)
        return text
    return labels


def _pick(names: list[str], known: tuple[str, ...]) -> str:
    for name in known:
        if name in names:
            return name
    raise ValueError(f"FILE: got {', '.join(sorted(map(str, names)))}, expected one of {', '.join(known)} among them")


def _header(member: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(member)
