"""Write arrays of features to a file in the format of its extension, without loading them into memory."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nc_lightning.io.part_files import Array, blocks
from nc_lightning.io.safetensors_files import safetensors_file

FORMATS = (".npz", ".safetensors", ".parquet")
_PACKAGES = {".safetensors": "safetensors", ".parquet": "pyarrow"}
_HEADER_BYTES = 100_000_000
"""Longest header that the readers of safetensors accept."""


def check_format(argument: str, path: Path) -> None:
    """Refuse an extension that is unknown, or whose package is missing.

    Raises:
        ValueError: If the extension is unknown.
        ModuleNotFoundError: If the format needs a package that is not installed.

    Example:
        >>> check_format("path", Path("features.csv"))
        Traceback (most recent call last):
        ...
        ValueError: path: got 'features.csv', expected a file that ends in .npz, .safetensors or .parquet
    """
    if path.suffix not in FORMATS:
        raise ValueError(
            f"{argument}: got {str(path)!r}, expected a file that ends in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        )
    if path.suffix in _PACKAGES:
        package = _PACKAGES[path.suffix]
        try:
            import_module(package)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{argument}: got {str(path)!r}, which needs {package}: pip install {package}"
            ) from error


def check_texts(argument: str, path: Path, texts: Sequence[Any]) -> None:
    """Refuse more text than a file can hold: the header of a .safetensors, which has it, is at most 100 MB.

    Raises:
        ValueError: If the texts do not fit.
    """
    size = sum(len(json.dumps(str(text))) + 2 for text in texts) if path.suffix == ".safetensors" else 0
    if size > 0.9 * _HEADER_BYTES:
        raise ValueError(
            f"{argument}: got {str(path)!r} for {len(texts)} file names of {size / 1e6:.0f} MB, expected at most 90 "
            "MB in a .safetensors; use .npz or .parquet"
        )


def write_arrays(
    path: Path, extension: str, arrays: Mapping[str, Array], class_names: Sequence[str] | None = None
) -> None:
    """Write arrays with N rows each, of numbers or strings, in the format of a file extension.

    The arrays are copied in blocks, so that memory-mapped ones may be larger than memory.

    Args:
        path: Path of the file, under any name: `atomic_write` yields a temporary one.
        extension: One of `FORMATS`.
        arrays: Arrays by name, features (N, d), labels (N,) and others.
        class_names: Names of the C classes: an array in a .npz, JSON in the metadata of a .safetensors, as arrays of
            strings are there, and a column with the name of each sample's class in a .parquet.

    Raises:
        OSError: If the file cannot be written.
    """
    writers: dict[str, Callable[..., None]] = {
        ".npz": _write_npz,
        ".safetensors": _write_safetensors,
        ".parquet": _write_parquet,
    }
    writers[extension](path, arrays, class_names)


def _write_npz(path: Path, arrays: Mapping[str, Array], class_names: Sequence[str] | None) -> None:
    named: dict[str, Any] = dict(arrays)
    if class_names is not None:
        named["class_names"] = np.array(class_names, dtype=str)
    with open(path, "wb") as file:  # np.savez leaves a file that it opens itself open on an error
        np.savez(file, **named)


def _write_safetensors(path: Path, arrays: Mapping[str, Array], class_names: Sequence[str] | None) -> None:
    from safetensors.numpy import save_file  # noqa: PLC0415 - optional

    texts = {name: array for name, array in arrays.items() if array.dtype.kind == "U"}
    metadata = {name: json.dumps(array.tolist()) for name, array in texts.items()}
    if class_names is not None:
        metadata["class_names"] = json.dumps(list(class_names))
    with safetensors_file(path):
        save_file({name: array for name, array in arrays.items() if name not in texts}, path, metadata or None)


def _write_parquet(path: Path, arrays: Mapping[str, Array], class_names: Sequence[str] | None) -> None:
    import pyarrow  # noqa: PLC0415 - optional
    from pyarrow import parquet  # noqa: PLC0415 - optional

    def column(rows: Array) -> Any:
        if rows.ndim == 2:
            return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.ravel()), rows.shape[1])
        return pyarrow.array(rows)

    def table(groups: Mapping[str, Array]) -> Any:
        columns = {name: column(rows) for name, rows in groups.items()}
        if class_names is not None and "labels" in groups:
            known = (groups["labels"] >= 0) & (groups["labels"] < len(class_names))
            numbers = pyarrow.array(np.where(known, groups["labels"], 0), mask=~known)
            columns["class_names"] = pyarrow.DictionaryArray.from_arrays(numbers, list(class_names))
        return pyarrow.table(columns)

    schema = table({name: array[:0] for name, array in arrays.items()}).schema
    with parquet.ParquetWriter(path, schema) as writer:
        for group in zip(*map(blocks, arrays.values()), strict=True):
            writer.write_table(table(dict(zip(arrays, group, strict=True))))
