"""Features and labels in tables: .csv, .parquet and data sets of Hugging Face saved to disk, read in batches."""

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nc_lightning.io.feature_names import Keys, columns_of_features, no_features


class CsvTable:
    """A .csv with a line of names, or with numbers only, which are features without labels."""

    def __init__(self, path: Path, keys: Keys) -> None:
        self.path = path
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = next(csv.reader(file), [])
            self.header = not all(map(_is_number, first))
        names = first if self.header else [str(number) for number in range(len(first))]
        label = keys.find_labels(path, names)
        columns, single = columns_of_features(names, keys.features, label)
        if single and keys.features is None:  # a name such as x is one dimension here
            columns = [name for name in names if name not in ("", label)]
        if not columns:
            raise no_features(path, names, keys.features)
        self.dimensions = columns
        self.columns = [names.index(column) for column in columns]
        self.names = names
        column = None if label is None else names.index(label)
        given = [row[column] for row in self._rows()] if column is not None else None
        self.labels = None if given is None else as_integers(np.array(given))
        self.shape = (sum(1 for _ in self._rows()) if given is None else len(given), len(columns))

    def rows(self, batch_size: int) -> Iterator[np.ndarray[Any, Any]]:
        """Yield features (n, d)."""
        rows, start = self._rows(), 0
        while batch := list(itertools.islice(rows, batch_size)):
            try:
                yield np.array([[row[column] for column in self.columns] for row in batch], dtype=np.float64)
            except ValueError:
                raise self._error(batch, start) from None
            start += len(batch)

    def _rows(self) -> Iterator[list[str]]:
        with self.path.open(newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(row for row in csv.reader(file) if row):
                if number == 0 and self.header:
                    continue
                if len(row) != len(self.names):
                    raise ValueError(
                        f"FILE: got {len(row)} values in row {number} of {self.path.name}, expected {len(self.names)}"
                    )
                yield row

    def _error(self, batch: list[list[str]], start: int) -> ValueError:
        row, column = next((i, c) for i, row in enumerate(batch) for c in self.columns if not _is_number(row[c]))
        return ValueError(
            f"FILE: got {batch[row][column]!r} in column {self.names[column]} and row {start + row} of "
            f"{self.path.name}, expected numbers; name the features with --features-key, the labels with --labels-key"
        )


class ArrowTable:
    """A table of Arrow: batches of it as a mapping from names to columns."""

    def __init__(self, path: Path, keys: Keys, names: list[str], num_rows: int) -> None:
        self.path = path
        label = keys.find_labels(path, names)
        self.columns, self.lists = columns_of_features(names, keys.features, label)
        if not self.columns:
            raise no_features(path, names, keys.features)
        self.dimensions = [] if self.lists else self.columns
        self.labels = None if label is None else self.read(label)
        first = next(self.rows(1), None)
        self.shape = (num_rows, 0 if first is None else first.shape[1])

    def read(self, column: str) -> np.ndarray[Any, Any]:
        """Return a whole column."""
        raise NotImplementedError

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Yield tables of Arrow with the columns of the features."""
        raise NotImplementedError

    def rows(self, batch_size: int) -> Iterator[np.ndarray[Any, Any]]:
        """Yield features (n, d)."""
        for batch in self.batches(batch_size):
            columns = [np.asarray(batch.column(name).to_numpy(zero_copy_only=False)) for name in self.columns]
            try:
                yield np.stack(list(columns[0])) if self.lists else np.stack(columns, 1)
            except ValueError as error:
                raise ValueError(
                    f"FILE: got features of several lengths in {self.path.name}, expected (N, d)"
                ) from error


class ParquetTable(ArrowTable):
    """A .parquet, read in row groups."""

    def __init__(self, path: Path, keys: Keys) -> None:
        try:
            from pyarrow import parquet  # noqa: PLC0415 - optional
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("FILE: got a .parquet, which needs pyarrow: pip install pyarrow") from error
        self.file = parquet.ParquetFile(path)
        super().__init__(path, keys, self.file.schema_arrow.names, self.file.metadata.num_rows)

    def read(self, column: str) -> np.ndarray[Any, Any]:
        """Return a whole column."""
        values: np.ndarray[Any, Any] = self.file.read(columns=[column])[column].to_numpy()
        return values

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Yield batches of rows."""
        return self.file.iter_batches(batch_size, columns=self.columns)  # type: ignore[no-any-return]


class SavedDataset(ArrowTable):
    """A data set of Hugging Face in the folder that `save_to_disk` wrote, memory-mapped."""

    def __init__(self, path: Path, keys: Keys) -> None:
        if (path / "dataset_dict.json").is_file():
            splits = sorted(str(folder.parent) for folder in path.glob("*/state.json"))
            raise ValueError(f"FILE: got {str(path)!r}, which has several splits, expected one: {', '.join(splits)}")
        if not (path / "state.json").is_file():
            raise ValueError(
                f"FILE: got the folder {str(path)!r}, expected a file, a pattern such as 'feats_*.npy', or the folder "
                "of a data set of Hugging Face, written by save_to_disk"
            )
        try:
            from datasets import load_from_disk  # noqa: PLC0415 - optional
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "FILE: got a data set of Hugging Face, which needs datasets: pip install datasets"
            ) from error
        self.data = load_from_disk(str(path)).with_format("arrow")
        super().__init__(path, keys, self.data.column_names, len(self.data))

    def read(self, column: str) -> np.ndarray[Any, Any]:
        """Return a whole column."""
        parts = [part[column].to_numpy(zero_copy_only=False) for part in self.data.select_columns([column]).iter(65536)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def batches(self, batch_size: int) -> Iterator[Any]:
        """Yield batches of rows."""
        return self.data.select_columns(self.columns).iter(batch_size)  # type: ignore[no-any-return]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def as_integers(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return labels as integers if all of them are, such as -1 for an unknown one, or 1.0 and 1e+00."""
    try:
        return labels.astype(np.int64)
    except (ValueError, OverflowError):
        pass
    try:
        numbers = labels.astype(np.float64)
    except ValueError:
        return labels
    return numbers.astype(np.int64) if is_whole(numbers).all() else labels


def is_whole(numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return which numbers are whole and can be stored exactly as integers."""
    return np.isfinite(numbers) & (numbers == np.round(numbers)) & (np.abs(numbers) < 2**53)  # type: ignore[no-any-return]
