"""Base of the data modules for labeled images: choice of classes, validation split, views, cache, standardization."""

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from nc_lightning.checks import check_choice
from nc_lightning.data.base import BatchOptions, LabeledDataModule, Split
from nc_lightning.data.files.classes import Classes, listed, pick_classes, warn_of_case
from nc_lightning.data.files.finding import real_path
from nc_lightning.data.loader import LabeledImages, LabeledTensors
from nc_lightning.data.preprocess import channel_statistics
from nc_lightning.data.samplers import members_by_class
from nc_lightning.options import Unpack

Cache = Literal["ram", "device"]


class CommonImageOptions(BatchOptions, total=False):
    """Arguments of `ImageDataModule`, except the cache, which has other choices for images in files."""

    classes: Classes | None
    val_share: float
    batch_size: int


class ImageOptions(CommonImageOptions, total=False):
    """Arguments of `ImageDataModule`."""

    cache: Cache


class ImageDataModule(LabeledDataModule):
    """Base of the data modules for images.

    A subclass calls `choose_classes` as soon as it knows the labels, and reads its training and test sets in `read`.
    Images are kept as uint8; each batch is converted to float, augmented, and standardized by the mean and standard
    deviation of each channel of the training set. Validation, test and geometry use one view without augmentation.

    Args:
        classes: Labels to keep, by name or by number, renumbered from 0 in this order; a name takes precedence if
            names are numbers. ``found`` for all labels, with any numbers; None for all, which must be 0 to C - 1.
        val_share: Share of each class of the training set held out for validation, in [0, 1), if the data has no
            validation set; with 0, the test set is used for validation.
        cache: Place of images in memory: ``ram``, or the training ``device``.
        batch_size: Images in a batch of each process.
        kwargs: Other arguments of `LabeledDataModule`: batches, classes_per_batch, seed, views and augmentation.
    """

    _caches: Any = Cache

    def __init__(
        self,
        classes: Classes | None = None,
        val_share: float = 0.1,
        cache: Cache = "ram",
        batch_size: int = 256,
        **kwargs: Unpack[BatchOptions],
    ) -> None:
        super().__init__(batch_size, **kwargs)
        if not 0 <= val_share < 1:
            raise ValueError(f"val_share: got {val_share!r}, expected a share in [0, 1)")
        if isinstance(classes, list) and (len(classes) < 2 or len(set(classes)) < len(classes)):
            raise ValueError(f"classes: got {classes}, expected at least two different labels")
        check_choice("cache", cache, self._caches)
        self.classes = classes
        self.val_share = val_share
        self.cache: str = cache
        self._labels: list[int] = []

    @abstractmethod
    def read(self) -> Mapping[Split, LabeledImages]:
        """Return the training set, and the validation and test sets if there are any, with their original labels."""

    def num_bytes(self) -> int:
        """Return the approximate size in bytes of the images of the chosen classes if known before reading, else 0."""
        return 0

    def choose_classes(self, found: Sequence[int], names: Sequence[str] | None = None) -> None:
        """Set ``num_classes`` and ``class_names`` from the labels that occur, in ascending order."""
        self._labels = pick_classes(self.classes, found, names)
        self.num_classes = len(self._labels)
        if names is not None:
            warn_of_case(names)
            name_of = dict(zip(found, names, strict=True))
            self.class_names = [name_of[label] for label in self._labels]

    def make_splits(self) -> dict[Split, LabeledImages]:
        """Read the splits, keep the chosen classes, hold out the validation set, and compute mean and deviation."""
        device = self.trainer.strategy.root_device if self.cache == "device" and self.trainer is not None else None
        if device is not None:
            check_memory(self.num_bytes(), device)
        splits = {split: self._chosen(images) for split, images in self.read().items()}
        if "val" not in splits:
            held_out = share_of_each_class(splits["train"].labels, self.val_share, self.seed)
            if held_out.any():
                splits["val"] = _subset(splits["train"], held_out)
                splits["train"] = _subset(splits["train"], ~held_out)
                self.origins["val"] = f"{self.val_share:g} of the training set, held out"
        pairs: tuple[tuple[Split, Split], ...] = (("val", "test"), ("test", "val"))
        for missing, other in pairs:
            if missing not in splits and other in splits:
                splits[missing] = splits[other]
                self.origins[missing] = f"the same inputs as {other}"
        self._check_filled(splits)
        self.mean, self.std = channel_statistics(splits["train"], self.seed)
        return splits if device is None else _on_device(splits, device)

    def _check_filled(self, splits: dict[Split, LabeledImages]) -> None:
        counts = splits["train"].labels.bincount(minlength=self.num_classes)
        if (counts == 0).any():
            empty = torch.nonzero(counts == 0).flatten().tolist()
            names = listed([str(self.class_name(number)) for number in empty])
            raise ValueError(f"labels: got no training image of the classes {names}, expected some of each")
        if "val" not in splits:
            if self.val_share == 0:
                raise ValueError("val_share: got 0 and no test set, expected a share above 0 to validate on")
            raise ValueError(
                f"val_share: got {self.val_share:g}, less than one image of the largest class, and no test set; "
                f"expected more than 1/{int(counts.max())}"
            )

    def class_name(self, number: int) -> str | int:
        """Return the name of a class if it has one, else its label in the data."""
        labeled = len(self._labels) == self.num_classes  # without labels each image is its own class
        return self._labels[number] if self.class_names is None and labeled else super().class_name(number)

    def _chosen(self, images: LabeledImages) -> LabeledImages:
        order = torch.tensor(self._labels).argsort()
        chosen = torch.tensor(self._labels)[order]
        place = torch.searchsorted(chosen, images.labels).clamp_(max=len(chosen) - 1)
        labels = torch.where(chosen[place] == images.labels, order[place], -1)
        if bool((labels >= 0).all()) and torch.equal(labels, images.labels):
            return images
        kept = torch.nonzero(labels >= 0).flatten()
        return images.subset(kept, labels[kept])


def data_root(root: str | None) -> Path:
    """Return the data folder: ``root``, or the environment's ``NC_DATA_DIR``, or ``data``.

    Example:
        >>> data_root("/sets").name
        'sets'
    """
    return real_path(root or os.environ.get("NC_DATA_DIR") or "data")


def _on_device(splits: dict[Split, Any], device: torch.device) -> dict[Split, LabeledImages]:
    """Move the sets to a device; a set used for two splits is moved once."""
    different = {id(images): images for images in splits.values()}
    check_memory(sum(images.x.nbytes for images in different.values()), device)  # some sizes are known only now
    moved = {
        key: LabeledTensors(images.x.to(device), images.labels.to(device), images.paths)
        for key, images in different.items()
    }
    return {name: moved[id(images)] for name, images in splits.items()}


def check_memory(num_bytes: int, device: torch.device) -> None:
    """Raise if images do not fit into the free memory of a device, if the device reports it.

    Raises:
        ValueError: If they do not fit.

    Example:
        >>> check_memory(2**60, torch.device("cpu"))
    """
    ask = getattr(torch.get_device_module(device), "mem_get_info", None)
    free = num_bytes if ask is None else ask(device)[0]
    if num_bytes > free:
        needed, free = num_bytes / 2**20, free / 2**20
        raise ValueError(
            f"cache: got device for {needed:,.0f} MiB of images, expected at most {free:,.0f} MiB, as is free on "
            f"{device}; use cache: ram"
        )


def share_of_each_class(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return a mask (n,) of a random share of each class, rounded down.

    Example:
        >>> share_of_each_class(torch.tensor([0, 1, 0, 1, 0, 1]), share=0.4, seed=0).sum()
        tensor(2)
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for members in members_by_class(labels):
        shuffled = members[torch.randperm(len(members), generator=generator)]
        chosen[shuffled[: int(share * len(members))]] = True
    return chosen


def _subset(images: LabeledImages, chosen: Tensor) -> LabeledImages:
    index = torch.nonzero(chosen).flatten()
    return images.subset(index, images.labels[index])
