"""Images in files: decoding, damaged files, and the data module that caches images or decodes them per batch."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torchvision.transforms.v2 import functional as F  # noqa: N812

from nc_lightning.checks import check_choice, check_count, one_line
from nc_lightning.data.base import Split
from nc_lightning.data.files.decoding import has_more_pages, read_picture
from nc_lightning.data.loader import LabeledImages, LabeledTensors
from nc_lightning.data.sources.images import CommonImageOptions, ImageDataModule
from nc_lightning.options import Unpack

OnError = Literal["raise", "skip"]
FileCache = Literal["ram", "device", "none"]


class Unreadable(NamedTuple):
    """A file that cannot be read, and the reason."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class ImageFiles:
    """Images (3, side, side) in files, decoded on access, and their labels (n,).

    Args:
        paths: Paths of the files.
        labels: Integer labels (n,).
        side: Size that the shorter side is resized to before a center crop; None for images that all have one size.
        on_error: Handling of a file that cannot be read: ``raise`` or ``skip``.

    Attributes:
        size: Height and width that each image must have; None until the first one is decoded.

    Raises:
        ValueError: When an image cannot be read, or has another size.
    """

    def __init__(
        self, paths: Sequence[Path], labels: Tensor, side: int | None = None, on_error: OnError = "raise"
    ) -> None:
        self.labels, self.side, self.on_error = labels, side, on_error
        self.paths = list(paths)
        self.size: tuple[int, int] | None = None if side is None else (side, side)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: list[int]) -> Any:
        """Return images and labels, and the files that could not be read."""
        decoded = [self.decode(i) for i in index]
        return self._collect(index, decoded)

    def subset(self, index: Tensor, labels: Tensor) -> "ImageFiles":
        """Return the files at ``index`` with new labels."""
        files = ImageFiles([self.paths[i] for i in index.tolist()], labels, self.side, self.on_error)
        files.size = self.size
        return files

    def source(self, index: int) -> Path | bytes:
        """Return the path or the content of a file."""
        return self.paths[index]

    def first_shape(self) -> tuple[int, ...] | None:
        """Return the shape of the first image that can be read, None without any."""
        images = (self.decode(i) for i in range(len(self)))
        return next((tuple(image.shape) for image in images if isinstance(image, Tensor)), None)

    def decode(self, index: int) -> Tensor | Unreadable:
        """Return an image (3, H, W) uint8, or the reason why it cannot be read if such files are skipped."""
        path = self.paths[index]
        try:
            picture = read_picture(self.source(index))
            if self.side is not None:
                picture = F.center_crop(F.resize(picture, [self.side]), [self.side])
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        except PermissionError:
            raise
        except Exception as error:  # Pillow raises OSError, ValueError and even SyntaxError for damaged files
            unreadable = Unreadable(path, one_line(error))
            if self.on_error == "skip":
                return unreadable
            raise ValueError(f"image: got {unreadable}; set on_error to skip to leave such files out") from error
        size = (pixels.shape[1], pixels.shape[2])
        self.size = self.size or size
        if size != self.size:
            raise ValueError(f"image: got {size} in {path}, expected {self.size} as before; set image_size to resize")
        return pixels

    def decode_all(self) -> tuple[LabeledTensors, list[Unreadable]]:
        """Return all images decoded, and the files that cannot be read."""
        with ThreadPoolExecutor() as pool:  # Pillow decodes without holding the interpreter lock
            decoded = list(pool.map(self.decode, range(len(self))))
        images, labels, failed = self._collect(list(range(len(self))), decoded)
        kept = [path for path, image in zip(self.paths, decoded, strict=True) if isinstance(image, Tensor)]
        return LabeledTensors(images, labels, kept), failed

    def _collect(self, index: list[int], decoded: list[Tensor | Unreadable]) -> tuple[Tensor, Tensor, list[Unreadable]]:
        failed = [image for image in decoded if isinstance(image, Unreadable)]
        images = [image for image in decoded if isinstance(image, Tensor)]
        if not images:
            raise ValueError(
                f"image: got {len(failed)} of {len(failed)} that cannot be read, the first one {failed[0]}"
            )
        kept = [i for i, image in zip(index, decoded, strict=True) if isinstance(image, Tensor)]
        return torch.stack(images), self.labels[kept], failed


class ImageFileOptions(CommonImageOptions, total=False):
    """Arguments of `ImageFilesDataModule`."""

    image_size: int | None
    cache: FileCache
    num_workers: int
    on_error: OnError


class ImageFilesDataModule(ImageDataModule):
    """Base of the data modules for image files.

    Args:
        image_size: Side of the square images: the shorter side is resized to it and the center is cropped. None for
            images that already have one size.
        cache: Cache of decoded images: ``ram``, ``device`` (the training device), or ``none`` to decode each batch
            again, for data sets that do not fit into memory.
        num_workers: Number of worker processes that decode batches with ``cache: none``.
        on_error: Handling of a file that cannot be read: ``raise`` names it, ``skip`` warns with the number of them.
        kwargs: Other arguments of `ImageDataModule`.
    """

    _caches = FileCache

    def __init__(
        self,
        image_size: int | None = None,
        cache: FileCache = "ram",
        num_workers: int = 0,
        on_error: OnError = "raise",
        **kwargs: Unpack[CommonImageOptions],
    ) -> None:
        super().__init__(cache=cache, **kwargs)  # type: ignore[arg-type]
        if image_size is not None:
            check_count("image_size", image_size)
        check_count("num_workers", num_workers, at_least=0)
        check_choice("on_error", on_error, OnError)
        self.image_size = image_size
        self.num_workers = num_workers if cache == "none" else 0
        self.on_error = on_error

    def files_of(self, rows: list[tuple[Path, int]]) -> ImageFiles:
        """Return a set of these files with these labels."""
        labels = torch.tensor([label for _, label in rows])
        return ImageFiles([path for path, _ in rows], labels, self.image_size, self.on_error)

    @abstractmethod
    def list_files(self) -> dict[Split, ImageFiles]:
        """Return the files and labels of the training set, and of the validation and test sets if there are any."""

    def num_bytes(self) -> int:
        """Return the size in bytes of the decoded images of the chosen classes."""
        count = sum(len(files) for files in self._wanted().values())
        return count * math.prod(self.input_shape)

    def read(self) -> Mapping[Split, LabeledImages]:
        """Return the splits, decoded if they are cached."""
        wanted = self._wanted()
        for path in (path for files in wanted.values() for path in files.paths if has_more_pages(path)):
            self.passed_over.add("with pages after the first, which is read", path)
        if self.cache == "none":
            return wanted
        sets: dict[Split, LabeledImages] = {}
        for split, files in wanted.items():
            sets[split], failed = files.decode_all()
            if failed:
                rank_zero_warn(f"skipped {len(failed)} images that cannot be read, the first one {failed[0]}")
                self.passed_over.add("unreadable", failed[0].path, len(failed))
        return sets

    def _wanted(self) -> dict[Split, ImageFiles]:
        """Drop the files of classes that were not chosen, before any is decoded."""
        wanted: dict[Split, ImageFiles] = {}
        for split, files in self.list_files().items():
            kept = torch.nonzero(torch.isin(files.labels, torch.tensor(self._labels))).flatten()
            if len(kept) or split == "train":
                wanted[split] = files.subset(kept, files.labels[kept])
        return wanted
