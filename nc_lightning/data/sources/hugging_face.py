"""Images of a Hugging Face data set: a folder written by `save_to_disk`, or a name on the Hub."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nc_lightning.checks import MISSING, one_line
from nc_lightning.data.base import Split
from nc_lightning.data.files.classes import class_name
from nc_lightning.data.files.split_folders import ROLES
from nc_lightning.data.sources.image_files import ImageFileOptions, ImageFiles, ImageFilesDataModule, OnError
from nc_lightning.options import Unpack

_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
LABEL_NAMES = ("label", "labels", "class", "target", "y")
"""Names of a column of labels that is not a ClassLabel, in order of preference."""


class ImageRows(ImageFiles):
    """Images in the rows of a table, decoded on access, and their labels (n,).

    Args:
        table: Data set of Hugging Face with undecoded images.
        column: Name of the column of images.
        rows: Rows (n,) to use.
        split: Name of the table, for messages and paths, such as ``train[7]``.
        labels: Integer labels (n,).
        side: Size of the images, see `ImageFiles`.
        on_error: Handling of an image that cannot be read, see `ImageFiles`.
    """

    def __init__(
        self,
        table: Any,
        column: str,
        rows: Tensor,
        split: str,
        labels: Tensor,
        side: int | None = None,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__([Path(f"{split}[{row}]") for row in rows.tolist()], labels, side, on_error)
        self.table, self.column, self.rows, self.split = table, column, rows, split

    def source(self, index: int) -> Path | bytes:
        """Return the content of an image, or its path if the table has only that."""
        image = self.table[int(self.rows[index])][self.column]
        if image is None:
            raise ValueError("the row has no image")
        content: bytes | None = image["bytes"]
        return Path(image["path"]) if content is None else content

    def subset(self, index: Tensor, labels: Tensor) -> "ImageRows":
        """Return the images at ``index`` with new labels."""
        rows = ImageRows(
            self.table, self.column, self.rows[index], self.split, labels, side=self.side, on_error=self.on_error
        )
        rows.size = self.size
        return rows


class HuggingFaceDataModule(ImageFilesDataModule):
    """Load the images of a Hugging Face data set, from a folder written by `save_to_disk` or by a name on the Hub.

    Columns are found by their types: the only one of images, and the only ``ClassLabel``, whose names become the class
    names. Without a ``ClassLabel``, the column is ``label``, ``labels``, ``class``, ``target`` or ``y``, with whole
    numbers or strings. Rows with the label -1, which means an unknown one, are skipped and counted. Splits have the
    usual names (train; val, valid, validation or dev; test or eval); others are skipped and counted. Without a
    validation split, ``val_share`` of each class of the training split is held out. Images are decoded as those of
    `ImageFolderDataModule`.

    Args:
        path: Folder written by `save_to_disk`, or name of a data set such as ``uoft-cs/cifar10``.
        name: Configuration of the data set, if it has several.
        image: Column of images; None to find it.
        label: Column of labels, such as ``fine_label``; None to find it.
        download: Whether to download the data set if it is not in the cache of Hugging Face.
        kwargs: Arguments of `ImageFilesDataModule` and `ImageDataModule`.

    Raises:
        ImportError: If the package datasets is not installed.
        ValueError: If the data set cannot be read, it has no training split, a column is missing or may be one of
            several, or an argument is out of its range.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        image: str | None = None,
        label: str | None = None,
        download: bool = False,
        **kwargs: Unpack[ImageFileOptions],
    ) -> None:
        super().__init__(**kwargs)
        tables = self._by_split(_load(path, name, download), path)
        features = tables["train"][1].features
        kinds = {column: type(feature).__name__ for column, feature in features.items()}
        images = [column for column, kind in kinds.items() if kind == "Image"]
        classes = [column for column, kind in kinds.items() if kind == "ClassLabel"]
        plain = [column for column in LABEL_NAMES if kinds.get(column) == "Value"][:1]
        self._image = _column("image", image, images, kinds)
        column = _column("label", label, [*classes, *plain] if label else classes or plain, kinds)
        labels = {split: _values(table, column) for split, (_, table) in tables.items()}
        if kinds[column] == "ClassLabel":
            names = [class_name(each) for each in features[column].names]
            self.choose_classes(range(len(names)), names)
        elif labels["train"].dtype.kind == "U":
            names = sorted(set(labels["train"].tolist()))
            number = {each: i for i, each in enumerate(names)}
            self.choose_classes(range(len(names)), names)
            labels = {split: _numbers(each, number, split) for split, each in labels.items()}
        else:
            found = np.unique(np.concatenate(list(labels.values())))
            self.choose_classes(found[found >= 0].tolist())
        self._sets: dict[Split, ImageFiles] = {}
        for split, (key, table) in tables.items():
            known = torch.from_numpy(labels[split].astype(np.int64))
            rows = torch.nonzero(known >= 0).flatten()
            self.passed_over.add("without a label", f"{key}[{int((known < 0).int().argmax())}]", len(known) - len(rows))
            self.origins[split] = f"{key} of {path}"
            if len(rows) > 0:
                self._sets[split] = ImageRows(
                    _undecoded(table, self._image), self._image, rows, key, known[rows], self.image_size, self.on_error
                )
        shape = self._sets["train"].first_shape() if "train" in self._sets else None
        if shape is None:
            raise ValueError(f"path: got no labeled, readable image in the training split of {path}")
        self.input_shape = shape

    def list_files(self) -> dict[Split, ImageFiles]:
        """Return the labeled images of each split."""
        for images in self._sets.values():
            images.size = (self.input_shape[1], self.input_shape[2])
        return self._sets

    def _by_split(self, loaded: Any, path: str) -> dict[Split, tuple[str, Any]]:
        """Return the name and the table of each split; a single table is for training."""
        if not isinstance(loaded, dict):
            return {"train": (str(loaded.split or "train"), loaded)}
        found: dict[Split, tuple[str, Any]] = {}
        for key, table in loaded.items():
            role = ROLES.get(key.lower())
            if role is None:
                self.passed_over.add("splits not read", key)
            elif role in found:
                raise ValueError(f"path: got the splits {found[role][0]} and {key} in {path}, expected one for {role}")
            else:
                found[role] = (key, table)
        if "train" not in found:
            raise ValueError(f"path: got the splits {', '.join(loaded)} in {path}, expected train among them")
        return found


def _load(path: str, name: str | None, download: bool) -> Any:
    try:
        import datasets  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            "HuggingFaceDataModule: got no datasets; install it by pip install 'nc-lightning[hf]'"
        ) from error
    folder = Path(path).expanduser()
    saved = any((folder / marker).is_file() for marker in ("dataset_dict.json", "state.json"))
    if not saved and (folder.exists() or not _HUB_NAME.fullmatch(path)):  # datasets copies any folder into its cache
        raise ValueError(
            f"path: got {path!r}, expected a folder written by save_to_disk, or a name on the Hub; "
            "ImageFolderDataModule reads a folder of images"
        )
    try:
        if saved:
            return datasets.load_from_disk(str(folder))
        offline = datasets.DownloadConfig(local_files_only=not download)
        return datasets.load_dataset(path, name, download_config=offline)
    except Exception as error:
        there = "" if download or saved else "; set download to true to download it"
        raise ValueError(f"path: got {path!r}, which cannot be loaded: {one_line(error)}{there}") from error


def _column(argument: str, given: str | None, found: Sequence[str], kinds: dict[str, str]) -> str:
    if given is not None and given in found:
        return given
    if given is None and len(found) == 1:
        return found[0]
    listed = ", ".join(f"{column} ({kind})" for column, kind in kinds.items())
    expected = f"one of {', '.join(found)}" if found else f"a column of {argument}s"
    got = f"got {given!r}" if given is not None else f"got {len(found)} columns that may be it"
    raise ValueError(f"{argument}: {got}, expected {expected}; the columns are {listed}")


def _values(table: Any, column: str) -> Any:
    """Return the labels (n,), integers or strings, without decoding an image."""
    values = np.asarray(table.select_columns([column]).with_format("numpy")[:][column])
    if values.dtype.kind == "O":
        missing = [row for row, value in enumerate(values) if value is None]
        if missing:
            raise ValueError(f"label: got none in row {missing[0]} of the column {column}, expected a label")
        values = values.astype(str)
    if values.ndim != 1 or values.dtype.kind not in "iuU":
        raise ValueError(
            f"label: got {values.dtype} of shape {values.shape} in the column {column}, expected "
            "whole numbers or strings (n,)"
        )
    if values.dtype.kind == "U":
        values = np.array([class_name(value) for value in values.tolist()])
        for row in np.flatnonzero(np.isin(np.char.lower(values), MISSING))[:1].tolist():
            raise ValueError(f"label: got {str(values[row])!r} in row {row} of the column {column}, expected a name")
    return values


def _numbers(names: Any, number: dict[str, int], split: str) -> Any:
    unknown = sorted(set(names.tolist()) - number.keys())
    if unknown:
        raise ValueError(f"label: got the classes {unknown} in {split}, which the training split does not have")
    return np.array([number[name] for name in names.tolist()])


def _undecoded(table: Any, column: str) -> Any:
    import datasets  # noqa: PLC0415 - optional

    return table.select_columns([column]).with_format(None).cast_column(column, datasets.Image(decode=False))
