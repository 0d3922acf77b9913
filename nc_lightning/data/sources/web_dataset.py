"""Images in WebDataset shards: tar files on a local disk, read by position instead of as a stream."""

import tarfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.checks import one_line
from nc_lightning.data.base import Split
from nc_lightning.data.files.split_folders import role_of
from nc_lightning.data.sources.image_files import ImageFileOptions, ImageFiles, ImageFilesDataModule, OnError
from nc_lightning.data.sources.images import data_root
from nc_lightning.options import Unpack

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm")
LABEL_EXTENSION = "cls"


class Member(NamedTuple):
    """Position of a file in a shard."""

    shard: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the content of the file."""
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


class ShardedImages(ImageFiles):
    """Images in tar files, read and decoded on access, and their labels (n,).

    Args:
        members: Positions of the images.
        labels: Integer labels (n,).
        side: Size of the images, see `ImageFiles`.
        on_error: Handling of an image that cannot be read, see `ImageFiles`.
    """

    def __init__(
        self, members: list[Member], labels: Tensor, side: int | None = None, on_error: OnError = "raise"
    ) -> None:
        super().__init__([member.shard / member.name for member in members], labels, side, on_error)
        self.members = members

    def source(self, index: int) -> Path | bytes:
        """Return the content of an image."""
        return self.members[index].read()

    def subset(self, index: Tensor, labels: Tensor) -> "ShardedImages":
        """Return the images at ``index`` with new labels."""
        images = ShardedImages([self.members[i] for i in index.tolist()], labels, self.side, self.on_error)
        images.size = self.size
        return images


class WebDatasetDataModule(ImageFilesDataModule):
    """Load the images of WebDataset shards in a folder: tar files with an image and a ``.cls`` for each sample.

    At construction the headers of all shards are read once, and then single images by their position. So batches are
    balanced, a run resumes in mid-epoch, and several processes read equal shares, however uneven the shards are. Names
    of shards or of their folders tell the splits, such as ``train-0000.tar`` or ``val/0000.tar``; without any, all
    shards are for training. Samples without an image or a label are skipped and counted. Images are decoded as those of
    `ImageFolderDataModule`. For shards that are not on a disk, train on a pipeline of the package webdataset instead.

    Args:
        root: Folder of the shards; None for ``$NC_DATA_DIR``, or else the folder ``data``.
        kwargs: Arguments of `ImageFilesDataModule` and `ImageDataModule`.

    Raises:
        FileNotFoundError: If there is no such folder, or no ``.tar`` in it.
        ValueError: If a shard is damaged or compressed, the split of a shard is unclear, there is no image for
            training, a label is not a whole number, or an argument is out of its range.
    """

    def __init__(self, root: str | None = None, **kwargs: Unpack[ImageFileOptions]) -> None:
        super().__init__(**kwargs)
        self.root = data_root(root)
        shards = sorted(self.root.rglob("*.tar"))
        if not shards:
            raise FileNotFoundError(f"root: got {str(self.root)!r}, expected a folder with .tar files")
        by_split: dict[Split, list[tuple[Member, int]]] = {}
        for split, of_split in self._by_split(shards).items():
            by_split[split] = [sample for shard in of_split for sample in self._samples(shard)]
            self.origins[split] = f"{len(of_split)} shards, {of_split[0]} first"
        if not by_split.get("train"):
            raise ValueError(f"root: got no image with a .cls for training in {self.root}, expected some")
        self.choose_classes(sorted({label for samples in by_split.values() for _, label in samples}))
        self._sets: dict[Split, ImageFiles] = {}
        for split, samples in by_split.items():
            labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
            members = [member for member, _ in samples]
            if members:
                self._sets[split] = ShardedImages(members, labels, self.image_size, self.on_error)
        shape = self._sets["train"].first_shape()
        if shape is None:
            raise ValueError(f"root: got no readable image in {self.root}, expected at least one")
        self.input_shape = shape

    def list_files(self) -> dict[Split, ImageFiles]:
        """Return the images of each split."""
        for images in self._sets.values():
            images.size = (self.input_shape[1], self.input_shape[2])
        return self._sets

    def _by_split(self, shards: list[Path]) -> dict[Split, list[Path]]:
        roles = {shard: role_of(shard.stem) or self._role_of_folders(shard) for shard in shards}
        if not any(roles.values()):
            return {"train": shards}
        by_split: dict[Split, list[Path]] = {}
        for shard, role in roles.items():
            if role is None:
                raise ValueError(f"root: got {shard.name} next to shards of splits, expected train, val or test in it")
            by_split.setdefault(role, []).append(shard)
        return by_split

    def _role_of_folders(self, shard: Path) -> Split | None:
        folders = reversed(shard.relative_to(self.root).parts[:-1])
        return next((role for folder in folders if (role := role_of(folder)) is not None), None)

    def _samples(self, shard: Path) -> list[tuple[Member, int]]:
        """Return the images of a shard that have a label, and their labels."""
        images: dict[str, Member] = {}
        labels: dict[str, int] = {}
        for member in _members(shard):
            folder, _, file = member.name.rpartition("/")
            stem, _, extension = file.partition(".")
            key, extension = f"{folder}/{stem}", extension.lower()
            if extension == LABEL_EXTENSION:
                labels[key] = _label(member)
            elif extension in IMAGE_EXTENSIONS:
                images[key] = member
        for key, member in images.items():
            if key not in labels:
                self.passed_over.add("images without a .cls", member.shard / member.name)
        self.passed_over.add("labels without an image", shard, len(labels.keys() - images.keys()))
        return [(member, labels[key]) for key, member in images.items() if key in labels]


def _members(shard: Path) -> list[Member]:
    try:
        with tarfile.open(shard, "r:") as archive:
            return [Member(shard, info.name, info.offset_data, info.size) for info in archive if info.isfile()]
    except tarfile.TarError as error:
        raise ValueError(f"root: got {shard}, which is damaged, or compressed: {one_line(error)}") from error


def _label(member: Member) -> int:
    text = member.read()
    try:
        label = int(text)
    except ValueError:
        label = -1
    if label < 0:
        shown = text[:20].decode(errors="backslashreplace")
        raise ValueError(f"labels: got {shown!r} in {member.name} of {member.shard}, expected a whole number from 0 on")
    return label
