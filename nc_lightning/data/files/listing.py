"""List the images of each split with the names of their classes, each file in only one split and class."""

import itertools
import unicodedata
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.data.base import SPLITS, Split
from nc_lightning.data.files.classes import class_name
from nc_lightning.data.files.finding import (
    File,
    dangling_links,
    file_at,
    find_images,
    folders_in,
    loose_files,
    real_path,
)
from nc_lightning.data.files.label_files import Row, read_label_file
from nc_lightning.data.files.split_folders import CLASSES, Folders
from nc_lightning.data.summary import PassedOver

Named = dict[Split, list[tuple[Path, str]]]
"""Files and their class names, for each split."""


def unnamed(folders: Folders, passed_over: PassedOver) -> Named:
    """Return all images of each split, without class names.

    Raises:
        ValueError: If a file is in two splits.

    Example:
        >>> import tempfile
        >>> unnamed({"train": [Path(tempfile.mkdtemp())]}, PassedOver())
        {'train': []}
    """
    found = _find(folders, passed_over)
    place_of: dict[File, Path] = {}
    for files in found.values():
        _claim(place_of, files)
    return {split: [(path, "") for path in files] for split, files in found.items()}


def named_by_folder(folders: Folders, passed_over: PassedOver, refuse_dangling: bool) -> Named:
    """Return the images of each split, labeled with the class folder that contains them.

    Args:
        folders: Folder of each split, one for each.
        passed_over: Counter of what is skipped.
        refuse_dangling: Whether to refuse dangling links to class folders instead of skipping them.

    Raises:
        ValueError: If a split has fewer than two class folders, one without images, or a file is in two of them.

    Example:
        >>> import tempfile
        >>> named_by_folder({"train": [Path(tempfile.mkdtemp())]}, PassedOver(), refuse_dangling=True)
        Traceback (most recent call last):
        ...
        ValueError: root: got 0 class folders in ..., expected at least two; or set labels to none or to a CSV file
    """
    named: Named = {}
    place_of: dict[File, Path] = {}
    for split, (place,) in folders.items():
        dangling = dangling_links(place)
        if dangling and refuse_dangling:
            raise ValueError(
                f"root: got {len(dangling)} dangling links in {place}, {dangling[0]} first, expected none; "
                "set on_error to skip to leave them out"
            )
        classes = folders_in(place, passed_over)
        loose_files(place, passed_over)
        folder_of: dict[str, Path] = {}
        for folder in classes:
            alike = folder_of.setdefault(class_name(folder.name), folder)
            if alike != folder:
                raise ValueError(
                    f"root: got the class folders {alike.name!a} and {folder.name!a} in {place}, whose names look the "
                    "same, expected one; move the images of the other into it"
                )
        members = {name: find_images(folder, passed_over) for name, folder in folder_of.items()}
        empty = [name for name, files in members.items() if not files]
        if empty:
            raise ValueError(f"root: got no image in the class folders {empty} of {place}, expected some or no folder")
        if len(members) < 2:
            raise ValueError(
                f"root: got {len(members)} class folders in {place}, expected at least two; or set labels to none "
                f"or to a CSV file{f', {CLASSES}' if len(folders) > 1 else ''}"
            )
        for files in members.values():
            _claim(place_of, files)
        named[split] = [(path, name) for name, files in members.items() for path in files]
    return named


def named_by_table(root: Path, table: Path, folders: Folders, passed_over: PassedOver) -> Named:
    """Return the files listed in a CSV file, each in the split of its folder, also if a link leads there.

    Files outside these folders are used for training, with a warning; a file in several of them is held out.

    Args:
        root: Folder that relative paths start from.
        table: Path of the CSV file.
        folders: Folders of each split.
        passed_over: Counter of rows that repeat others, and images that no row lists.

    Raises:
        FileNotFoundError: If there is no such CSV file.
        ValueError: If the CSV is malformed, a file is missing, or has two labels.
    """
    rows = read_label_file(table)
    found = _find(folders, passed_over)
    split_of = {file: split for split in SPLITS if split in found for file in found[split].values()}
    named: Named = {split: [] for split in folders}
    paths = [(row, _path(root, row.file)) for row in rows]
    missing = [(row, path) for row, path in paths if not path.is_file()]
    if missing:
        row, path = missing[0]
        raise ValueError(
            f"labels: got {len(missing)} of {len(rows)} files missing, {path} first, in row {row.line} of {table}"
        )
    seen: dict[File, Row] = {}
    outside: list[Path] = []
    for row, path in paths:
        file = file_at(path)
        earlier = seen.setdefault(file, row)
        if earlier.label != row.label:
            raise ValueError(
                f"labels: got {earlier.label!r} in row {earlier.line} and {row.label!r} in row {row.line} of {table} "
                f"for {path}, expected one label"
            )
        split = split_of.get(file) or _split_by_name(path, folders)
        if split is None:
            outside.append(path)
            split = "train"
        if row.split not in (None, split):
            raise ValueError(
                f"labels: got the split {row.split} in row {row.line} of {table} for {path}, which is in the folder of "
                f"{split}; move it into a folder {row.split}, or drop the column"
            )
        if earlier is not row:
            passed_over.add("listed again", f"row {row.line}")
            continue
        named[split].append((path, row.label))
    if outside:
        places = ", ".join(str(place) for places in folders.values() for place in places)
        rank_zero_warn(
            f"labels: {len(outside)} files of {table} are used for training because they are in none of {places}, "
            f"{outside[0]} first; move those that are for test, or set root to a folder above them"
        )
    unlisted = [path for files in found.values() for path, file in files.items() if file not in seen]
    passed_over.add("not listed", unlisted[0] if unlisted else "", len(unlisted))
    return named


def _path(root: Path, file: str) -> Path:
    """Return the path of a file as written, with Windows separators, or with accents as the disk encodes them."""
    looks = (unicodedata.normalize(form, text) for text in (file, class_name(file)) for form in ("NFC", "NFD"))
    spellings = (spelling for look in itertools.chain([file], looks) for spelling in (look, look.replace("\\", "/")))
    paths = (root / Path(spelling).expanduser() for spelling in spellings)
    return next((path for path in paths if path.is_file()), root / file)


def _split_by_name(path: Path, folders: Folders) -> Split | None:
    """Return the split of a file that the search skips, such as a hidden one."""
    places = {real_path(path), real_path(path.parent) / path.name}
    inside = {parent for place in places for parent in place.parents}
    within = (split for split in reversed(SPLITS) if not inside.isdisjoint(map(real_path, folders.get(split, []))))
    return next(within, None)


def _find(folders: Folders, passed_over: PassedOver) -> dict[Split, dict[Path, File]]:
    """Return the images of each split, without those of other splits whose folders lie inside the training folder."""
    real = {split: {real_path(folder) for folder in places} for split, places in folders.items()}
    every = frozenset().union(*real.values())
    return {
        split: {
            path: file
            for folder in places
            for path, file in find_images(folder, passed_over, every - real[split]).items()
        }
        for split, places in folders.items()
    }


def _claim(place_of: dict[File, Path], files: dict[Path, File]) -> None:
    """Remember the place of each file, and refuse a file with a second place."""
    for path, file in files.items():
        earlier = place_of.setdefault(file, path)
        if earlier != path:
            raise ValueError(
                f"root: got one file as {earlier} and as {path}, expected each in one split and one class; "
                "remove a link"
            )
