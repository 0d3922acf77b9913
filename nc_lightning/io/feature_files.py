"""Open features in files by their extension, and read them in batches instead of as a whole."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nc_lightning.checks import MISSING
from nc_lightning.io.feature_names import Keys
from nc_lightning.io.feature_sources import matching, open_source, read_labels
from nc_lightning.io.feature_tables import is_whole


class FeatureFile:
    """Features (N, d) and labels (N,), if there are any, in files of one set, read in batches as often as needed.

    ``.npz``: arrays ``features`` and ``labels``, as written by ``nc-train predict``; unpacked batch by batch.
    ``.npy``: features; memory-mapped.
    ``.pt``: a dict of tensors ``features`` and ``labels``, a pair of them, or a tensor; memory-mapped, loaded as
    weights only.
    ``.parquet``: a column of lists ``features``, or one column per dimension, and ``labels``; read by row groups.
    ``.safetensors``: tensors ``features`` and ``labels``; memory-mapped.
    ``.csv``: a column for each dimension, such as ``features_0``, and ``labels``; read by rows.
    A folder of Hugging Face's ``save_to_disk``: columns as in a ``.parquet``; memory-mapped.
    A pattern such as ``feats_*.npy``: the files that match, in natural order, as one set.

    Other names for ``features`` are ``feats``, ``embeddings``, ``z`` and ``x`` and their singulars, in any case; for
    ``labels``, ``label``, ``y``, ``targets`` and ``class``. Labels may be any integers or strings, without white space
    around them, and are numbered in sorted order. Negative integers mean an unknown label; these samples are skipped.

    Args:
        path: Path, folder or pattern.
        labels: Path or pattern of files with the labels alone: .npy, .pt or .txt.
        keys: Names of the features and labels.

    Attributes:
        classes: Sorted labels that occur; empty without labels.
        feature_dim: Dimension d.
        columns: Names of the columns of a table, one for each dimension; empty for other files.
        num_unknown: Number of samples with an unknown label.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the extension is unknown, an array is missing or of a wrong shape, or the file cannot be read.
        ModuleNotFoundError: If a package for the format is not installed.
    """

    def __init__(self, path: str | Path, labels: str | Path | None = None, keys: Keys | None = None) -> None:
        self.path, self.keys = Path(path), keys or Keys()
        self._source = _opened(self.path, self.keys)
        self.columns: list[str] = list(getattr(self._source, "dimensions", []))
        if labels is not None:
            self._source.labels = _guarded(read_labels, Path(labels))
        self.feature_dim = int(self._source.shape[1])
        self.classes: list[Any] = []
        self.num_unknown = 0
        self._labels = np.zeros(self._source.shape[0], dtype=np.int64)
        if self._source.labels is not None:
            self._number(self._source.labels, Path(labels or path).name)

    def _number(self, labels: Any, place: str) -> None:
        """Check the labels of a file, and number the classes."""
        given = _as_text(np.asarray(labels))
        if given.dtype.kind == "f" and is_whole(given).all():
            given = given.astype(np.int64)
        of_texts = given.dtype.kind != "O" or all(isinstance(label, (str, bytes)) for label in given.flat)
        if given.ndim != 1 or given.dtype.kind not in "iuUSO" or not of_texts:
            raise ValueError(
                f"FILE: got labels of shape {given.shape} and type {given.dtype} in {place}, expected (N,) "
                "integers or strings"
            )
        if given.dtype.kind in "UO":
            given = np.char.strip(given.astype(str))
            for row in np.flatnonzero(np.isin(np.char.lower(given), MISSING))[:1].tolist():
                label = str(given[row])
                raise ValueError(f"FILE: got the label {label!r} in row {row} of {place}, expected the name of a class")
        labeled = given >= 0 if given.dtype.kind in "iu" else np.ones(len(given), dtype=bool)
        self.num_unknown = int((~labeled).sum())
        classes, numbers = np.unique(given[labeled], return_inverse=True)
        self.classes = classes.tolist()
        self._labels = np.full(len(given), -1)
        self._labels[labeled] = numbers
        if len(given) != self._source.shape[0]:
            apart = "" if place == self.path.name else f" in {self.path.name}"
            got = f"features of shape {self._source.shape}{apart} and {len(given)} labels in {place}"
            raise ValueError(f"FILE: got {got}, expected (N, d) and N")
        if not self.classes:
            raise ValueError(f"FILE: got unknown labels only in {place}, expected at least one class")

    def __len__(self) -> int:
        """Return N, including samples with unknown labels."""
        return len(self._labels)

    def batches(self, batch_size: int = 4096) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield float features (n, d) and their class numbers (n,), all 0 without labels; unknown labels are left out.

        Raises:
            ValueError: If a feature of a sample with a known label is not finite, or no number.
        """
        start = 0
        for read in self._source.rows(batch_size):
            rows = _as_tensor(read, self.path)
            labels = torch.from_numpy(self._labels[start : start + len(rows)])
            labeled = labels >= 0
            _check_finite(rows, labeled, start, self.path)
            start += len(rows)
            yield rows[labeled], labels[labeled]

    def sample(self, size: int) -> Tensor:
        """Return float features (n, d), n <= size, spread evenly over the samples with a known label."""
        total, start, kept = len(self) - self.num_unknown, 0, []
        chosen = torch.arange(min(size, total)) * total // max(1, min(size, total))
        for z, _ in self.batches():
            kept.append(z[chosen[(chosen >= start) & (chosen < start + len(z))] - start])
            start += len(z)
        return torch.cat(kept)


def unlabeled_batches(path: str | Path, keys: Keys | None = None, batch_size: int = 4096) -> Iterator[Tensor]:
    """Yield the float features (n, d) of all rows, labeled or not; arguments and errors as in `FeatureFile`."""
    path = Path(path)
    start = 0
    for read in _opened(path, keys or Keys()).rows(batch_size):
        rows = _as_tensor(read, path)
        _check_finite(rows, torch.ones(len(rows), dtype=torch.bool), start, path)
        start += len(rows)
        yield rows


def is_of_labels(path: str | Path) -> bool:
    """Return whether a .npy, or the first that matches a pattern, has labels alone: no matrix of floats.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    first = matching(Path(path))[0]
    if first.suffix != ".npy":
        return False
    array = _guarded(lambda file: np.load(file, mmap_mode="r", allow_pickle=False), first)
    return array.ndim == 1 or array.dtype.kind in "iuUS"


def _opened(path: Path, keys: Keys) -> Any:
    source = _guarded(lambda given: open_source(given, keys), path)
    if len(source.shape) != 2 or 0 in source.shape:
        hint = ""
        if len(source.shape) == 1 and path.suffix == ".npy":
            hint = "; if these are labels, put them after their features, and a pattern in quotes: 'labels_*.npy'"
        raise ValueError(f"FILE: got features of shape {source.shape} in {path.name}, expected (N, d){hint}")
    return source


def _guarded(read: Callable[[Path], Any], path: Path) -> Any:
    """Read a file, and name it in the error if that fails."""
    try:
        return read(path)
    except Exception as error:
        raise _on_one_line(error, path) from error


def _on_one_line(error: Exception, path: Path) -> Exception:
    """Return an error as it is if it is ours, or else one that names the file."""
    if str(error).startswith(("FILE: ", "--labels: ")):
        return error
    return ValueError(f"FILE: got {str(path)!r}, which is damaged or not a {path.suffix}")


def _as_tensor(rows: Tensor | np.ndarray[Any, Any], path: Path) -> Tensor:
    """Return rows as floats; an array is copied in native byte order, as torch needs memory that it may write to."""
    if not isinstance(rows, Tensor):
        if rows.dtype.kind not in "fiub":
            hint = "; name them with --features-key" * (rows.dtype.kind != "c")
            raise ValueError(f"FILE: got features of type {rows.dtype} in {path.name}, expected real numbers{hint}")
        rows = torch.from_numpy(rows.astype(rows.dtype.newbyteorder("=")))
    return rows if rows.dtype == torch.float64 else rows.float()


def _check_finite(rows: Tensor, used: Tensor, start: int, path: Path) -> None:
    """Refuse NaN and infinity in the rows that are used; row ``start`` of the file comes first."""
    finite = torch.isfinite(rows) | ~used[:, None]
    if not finite.all():
        row, column = torch.nonzero(~finite)[0].tolist()
        value = rows[row, column].item()
        raise ValueError(f"FILE: got {value} in row {start + row} of {path.name}, expected finite features")


def _as_text(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Decode labels stored as bytes, so that they are shown as names."""
    if labels.dtype.kind == "S":
        return np.char.decode(labels, "utf-8", "backslashreplace")
    if labels.dtype.kind == "O" and any(isinstance(label, bytes) for label in labels.flat):
        decoded = [x.decode(errors="backslashreplace") if isinstance(x, bytes) else x for x in labels.flat]
        text: np.ndarray[Any, Any] = np.array(decoded, dtype=object).reshape(labels.shape)
        return text
    return labels
