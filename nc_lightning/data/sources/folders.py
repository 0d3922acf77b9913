"""Any tree of images, labeled by folders, by a CSV file, or not at all."""

from copy import copy
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from nc_lightning.batch import UNLABELED
from nc_lightning.data.base import Split
from nc_lightning.data.files.listing import Named, named_by_folder, named_by_table, unnamed
from nc_lightning.data.files.split_folders import split_folders
from nc_lightning.data.loader import BatchLoader, LabeledImages
from nc_lightning.data.samplers import EpochSampler, RandomBatchSampler
from nc_lightning.data.sources.image_files import ImageFileOptions, ImageFiles, ImageFilesDataModule
from nc_lightning.data.sources.images import data_root
from nc_lightning.options import Unpack


class ImageFolderDataModule(ImageFilesDataModule):
    """Load images from one folder per class: ``root/train/<class>/*``, and the same for ``val`` and ``test``.

    Split folders have the usual names in any case: train or training; val, valid, validation or dev; test, testing,
    eval or evaluation. ``root/val`` is the validation set, and replaces a missing ``root/test``; without split folders,
    all of ``root`` is the training set. Without labels, or with those of a CSV file, splits may lie deeper. Folders and
    files are read in alphabetical order and links are followed; a file in two splits or two classes is refused, even
    under a link or a hard link. Files that Pillow cannot read, hidden files and tool folders are skipped, and counted
    in the summary at setup.

    Images are rotated upright by their EXIF orientation, samples of 10 to 16 bits are scaled by the depth that the file
    declares, and transparent pixels are composited on white.

    Args:
        root: Root folder of the tree; None for ``$NC_DATA_DIR``, or else the folder ``data``.
        labels: Source of the labels: ``folder``; the path of a CSV file with the columns ``file``, relative to
            ``root``, and ``label``; or ``none``. With ``none``, the label of a training image is its index, so that its
            views are its positives, and only measures without labels are computed; set the model's ``feature_dim``
            and positives by view.
        kwargs: Arguments of `ImageFilesDataModule` and `ImageDataModule`.

    Raises:
        FileNotFoundError: If there is no such folder or CSV file.
        ValueError: If a class folder is empty, a folder's role is unclear, a file is in two splits or classes, the
            test set has classes that the training set lacks, or an argument is out of its range.
    """

    def __init__(self, root: str | None = None, labels: str = "folder", **kwargs: Unpack[ImageFileOptions]) -> None:
        super().__init__(**kwargs)
        self.root = data_root(root)
        self.labels = labels
        if not self.root.is_dir():
            raise FileNotFoundError(f"root: got {str(self.root)!r}, expected a folder of images")
        folders = split_folders(self.root, labels, self.passed_over)
        self.origins = {
            split: f"{first} and {len(more)} more" if more else str(first) for split, (first, *more) in folders.items()
        }
        if labels == "none":
            named = unnamed(folders, self.passed_over)
            if not named["train"]:
                raise ValueError(
                    f"root: got no image in {self.origins['train']}, expected files such as *.png or *.jpg"
                )
            if self.classes is not None:
                raise ValueError(f"classes: got {self.classes} with labels: none, expected None")
            of_training = len(named["train"])
            self.num_classes = of_training - (0 if named.get("val") else int(self.val_share * of_training))
            self._labels = [0]
            names = [""]
        elif labels == "folder":
            named = named_by_folder(folders, self.passed_over, self.on_error == "raise")
            names = self._choose(named)
        else:
            named = named_by_table(self.root, Path(labels).expanduser(), folders, self.passed_over)
            names = self._choose(named)
        number = {name: i for i, name in enumerate(names)}
        self._named = {
            split: [(path, number[name]) for path, name in rows if name in number] for split, rows in named.items()
        }
        self.input_shape = self._first_shape()

    def list_files(self) -> dict[Split, ImageFiles]:
        """Return the files and their class numbers, with classes in alphabetical order of their names."""
        sets = {split: self.files_of(rows) for split, rows in self._named.items() if rows}
        for files in sets.values():
            files.size = (self.input_shape[1], self.input_shape[2])
        return sets

    def make_splits(self) -> dict[Split, LabeledImages]:
        """Read the splits; without labels, number the training images."""
        if self.labels != "none":
            return super().make_splits()
        known, self.num_classes = self.num_classes, 1
        splits = super().make_splits()
        self.num_classes = known
        for images in splits.values():
            images.labels = torch.full_like(images.labels, UNLABELED)
        rank_zero_warn(
            f"labels: got none, so each of the {known} training images is a class of its own; set model.feature_dim"
        )
        return splits

    def train_dataloader(self) -> BatchLoader:
        """Return the training batches; without labels, the label of an image is its index."""
        loader = super().train_dataloader()
        if self.labels == "none":
            loader.images = copy(loader.images)
            loader.images.labels = torch.arange(len(loader.images), device=loader.images.labels.device)
        return loader

    def _sampler(self, labels: Tensor) -> EpochSampler:
        if self.labels == "none":
            # Every image is its own class: a random batch holds each at most once, which is balanced.
            return RandomBatchSampler(len(labels), self.batch_size, self.seed)
        return super()._sampler(labels)

    def _choose(self, named: Named) -> list[str]:
        """Choose classes among those in the training set, which must include all classes of the other splits."""
        names = sorted({name for _, name in named["train"]})
        self.choose_classes(range(len(names)), names)
        if not isinstance(self.classes, list):
            for split, rows in named.items():
                unknown = sorted({name for _, name in rows} - set(names))
                if unknown:
                    of = {"val": "validation"}.get(split, split)
                    raise ValueError(
                        f"labels: got the classes {unknown} in the {of} set, which the training set does not have"
                    )
        return names

    def _first_shape(self) -> tuple[int, ...]:
        shape = self.files_of(self._named["train"]).first_shape()
        if shape is None:
            raise ValueError(f"root: got no readable image in {self.root}, expected at least one")
        return shape
