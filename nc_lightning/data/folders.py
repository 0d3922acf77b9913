"""Any tree of images: labels from folders, from a CSV file, or none."""

import csv
from copy import copy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS

from nc_lightning.data.base import Split
from nc_lightning.data.image_files import ImageFiles, ImageFilesDataModule
from nc_lightning.data.images import data_root
from nc_lightning.data.loader import BatchLoader, LabelledImages
from nc_lightning.data.samplers import EpochSampler, RandomBatchSampler
from nc_lightning.data.views import UNLABELLED


class ImageFolderDataModule(ImageFilesDataModule):
    """Images in folders, one for each class: ``root/train/<class>/*`` and ``root/test/<class>/*``.

    ``root/val`` stands in for a missing ``root/test``; without ``root/train`` all of ``root`` is the training set.
    Folders and files are taken in alphabetical order. Whatever is no image by its name is passed over.

    Args:
        root: The tree; None for ``$NC_DATA_DIR``, and without that ``data`` here.
        labels: ``folder``; or the path of a CSV file with the columns ``file``, relative to ``root``, and ``label``;
            or ``none``: then the label of a training image is its own number, so that its views are its positives,
            and geometry is measured as far as it needs no labels. Give the model its ``feature_dim``, and let
            positives go by view.
        image_size: Side of the squares that images become; None for images that all have one size already.
        cache: ``ram``, ``device`` or ``none``.
        num_workers: Processes that decode batches with ``cache: none``.
        on_error: ``raise`` at a file that cannot be read, or ``skip`` it.
        kwargs: Of `ImageDataModule`: classes, val_share, views, augmentation, batch_size, batches, classes_per_batch
            and seed.

    Raises:
        FileNotFoundError: If there is no such folder or CSV file.
        ValueError: If a class folder is empty, the test set has classes that training has not, or an argument is out
            of its range.
    """

    def __init__(
        self,
        root: str | None = None,
        labels: str = "folder",
        image_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_size=image_size, **kwargs)
        self.root = data_root(root)
        self.labels = labels
        if not self.root.is_dir():
            raise FileNotFoundError(f"root: got {str(self.root)!r}, expected a folder of images")
        train, test = self._folders()
        if labels == "none":
            self._files = [images_in(train), images_in(test) if test else []]
            if not self._files[0]:
                raise ValueError(f"root: got no image in {train}, expected files such as *.png or *.jpg")
            if self.classes is not None:
                raise ValueError(f"classes: got {self.classes} with labels: none, expected None")
            self.num_classes = len(self._files[0]) - int(self.val_share * len(self._files[0]))
            self._labels = [0]
        else:
            named = self._from_folders(train, test) if labels == "folder" else self._from_csv(Path(labels), test)
            names = sorted({name for _, name in named[0]})
            self._check_names(names, named[1])
            number = {name: i for i, name in enumerate(names)}
            self._files = [[path for path, _ in files] for files in named]
            self._numbers = [torch.tensor([number[name] for _, name in files]) for files in named]
            self.choose_classes(range(len(names)), names)
        self.input_shape = self._first_shape()

    def list_files(self) -> tuple[ImageFiles, ImageFiles | None]:
        """Return the files and the numbers of their classes, in alphabetical order of the classes' names."""
        if self.labels == "none":
            numbers = [torch.zeros(len(files), dtype=torch.int64) for files in self._files]
        else:
            numbers = self._numbers
        sets = [
            ImageFiles(files, n, self.image_size, self.on_error) for files, n in zip(self._files, numbers, strict=True)
        ]
        for files in sets:
            files.size = (self.input_shape[1], self.input_shape[2])
        return sets[0], sets[1] if len(sets[1]) else None

    def make_splits(self) -> dict[Split, LabelledImages]:
        """Read the sets; without labels, number the training images."""
        if self.labels != "none":
            return super().make_splits()
        known, self.num_classes = self.num_classes, 1
        splits = super().make_splits()
        self.num_classes = known
        for images in splits.values():
            images.labels = torch.full_like(images.labels, UNLABELLED)
        rank_zero_warn(
            f"labels: got none, so each of the {known} training images is a class of its own; set model.feature_dim"
        )
        return splits

    def train_dataloader(self) -> BatchLoader:
        """Training batches; without labels an image's own number is its label."""
        loader = super().train_dataloader()
        if self.labels == "none":
            loader.images = copy(loader.images)
            loader.images.labels = torch.arange(len(loader.images), device=loader.images.labels.device)
        return loader

    def _sampler(self, labels: Tensor) -> EpochSampler:
        if self.labels == "none":
            # Every image is a class of its own: a random batch holds each at most once, which is balanced.
            return RandomBatchSampler(len(labels), self.batch_size, self.seed)
        return super()._sampler(labels)

    def _first_shape(self) -> tuple[int, ...]:
        files = ImageFiles(self._files[0], torch.zeros(len(self._files[0])), self.image_size, self.on_error)
        images = (files.decode(i) for i in range(len(files)))
        shape = next((tuple(image.shape) for image in images if isinstance(image, Tensor)), None)
        if shape is None:
            raise ValueError(f"root: got no image in {self.root} that can be read")
        return shape

    def _folders(self) -> tuple[Path, Path | None]:
        if not (self.root / "train").is_dir():
            return self.root, None
        test = next((self.root / name for name in ("test", "val") if (self.root / name).is_dir()), None)
        return self.root / "train", test

    def _from_folders(self, train: Path, test: Path | None) -> list[list[tuple[Path, str]]]:
        named = []
        for place in (train, test):
            classes = sorted(path for path in place.iterdir() if path.is_dir()) if place else []
            members = {path.name: images_in(path) for path in classes if not path.name.startswith(".")}
            empty = [name for name, files in members.items() if not files]
            if empty:
                raise ValueError(
                    f"root: got no image in the class folders {empty} of {place}, expected some or no folder"
                )
            if place and len(members) < 2:
                raise ValueError(
                    f"root: got {len(members)} class folders in {place}, expected at least two; or set labels to none "
                    "or to a CSV file"
                )
            named.append([(path, name) for name, files in members.items() for path in files])
        return named

    def _from_csv(self, path: Path, test: Path | None) -> list[list[tuple[Path, str]]]:
        if not path.is_file():
            raise FileNotFoundError(f"labels: got {str(path)!r}, expected folder, none, or a CSV file that exists")
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if not {"file", "label"} <= set(reader.fieldnames or []):
                raise ValueError(f"labels: got the columns {reader.fieldnames} in {path}, expected file and label")
            rows = [(self.root / row["file"], row["label"]) for row in reader]
        missing = [file for file, _ in rows if not file.is_file()]
        if missing or not rows:
            raise ValueError(f"labels: got {len(missing)} of {len(rows)} files missing, {(missing or [path])[0]} first")
        held_out = [test is not None and test in file.parents for file, _ in rows]
        return [[row for row, out in zip(rows, held_out, strict=True) if out == wanted] for wanted in (False, True)]

    def _check_names(self, names: list[str], test: list[tuple[Path, str]]) -> None:
        unknown = sorted({name for _, name in test} - set(names))
        if unknown:
            raise ValueError(f"labels: got the classes {unknown} in the test set, which the training set does not have")


def images_in(folder: Path) -> list[Path]:
    """Return the images in a folder and those below it, in alphabetical order.

    Example:
        >>> images_in(Path("/nowhere"))
        []
    """
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS and path.is_file())
