"""What data modules of labelled images share: choice of classes, validation share, views, cache, standardisation."""

import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from nc_lightning.data.base import Batches, LabelledDataModule, Split
from nc_lightning.data.loader import LabelledImages, LabelledTensors
from nc_lightning.data.samplers import members_by_class
from nc_lightning.data.views import Augmentation
from nc_lightning.geometry.checks import check_choice

Cache = Literal["ram", "device"]
Classes = list[int] | list[str] | Literal["found"]
STATISTICS_FROM = 1000
"""Number of images that mean and standard deviation are taken from where they are not in memory."""


class ImageDataModule(LabelledDataModule):
    """Base of the data modules for images.

    A subclass calls `choose_classes` as soon as it knows the labels there are, and reads its training and test set in
    `read`. Images are kept as bytes; a batch becomes float, is augmented and standardised by the mean and the standard
    deviation of each channel of the training set when it is asked for. Validation, test and geometry see one view,
    never augmented.

    Args:
        classes: Labels to keep, by number or by name, numbered from 0 in this order; ``found`` for all there are,
            whatever their numbers; None for all, which must be 0 to C - 1.
        val_share: Share of each class of the training set held out for validation, in [0, 1); with 0 the test set
            stands in for it.
        views: Number of views of each image in training.
        augmentation: What makes a view, such as `SimCLR`; None for the image as it is.
        cache: Where images in memory are kept: in ``ram``, or on the training ``device``.
        batch_size: Images in a batch of each process.
        batches: ``balanced``, ``random`` or ``stratified``.
        classes_per_batch: Number of different classes in a balanced batch; None for all.
        seed: Of the split, of the order of batches and of augmentation.

    Raises:
        ValueError: If an argument is out of its range.
    """

    _caches: Any = Cache

    def __init__(
        self,
        classes: Classes | None = None,
        val_share: float = 0.1,
        views: int = 1,
        augmentation: Augmentation | None = None,
        cache: Cache = "ram",
        batch_size: int = 256,
        batches: Batches = "balanced",
        classes_per_batch: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, batches, seed, classes_per_batch, views, augmentation)
        if not 0 <= val_share < 1:
            raise ValueError(f"val_share: got {val_share!r}, expected a share in [0, 1)")
        if isinstance(classes, list) and (len(classes) < 2 or len(set(classes)) < len(classes)):
            raise ValueError(f"classes: got {classes}, expected at least two different labels")
        check_choice("cache", cache, self._caches)
        self.classes = classes
        self.val_share = val_share
        self.cache = cache
        self._labels: list[int] = []

    @abstractmethod
    def read(self) -> tuple[LabelledImages, LabelledImages | None]:
        """Return training and test set with the labels as they are; None if there is no test set."""

    def num_bytes(self) -> int:
        """Return about how many bytes the images of the chosen classes take, as far as that is known unread; else 0."""
        return 0

    def choose_classes(self, found: Sequence[int], names: Sequence[str] | None = None) -> None:
        """Work out ``num_classes`` and ``class_names`` from the labels there are, in ascending order."""
        if self.classes is None and list(found) != list(range(len(found))):
            raise ValueError(
                f"labels: got {_listed(found)}, expected 0 to C - 1; choose and renumber them by classes=[...], "
                "or all of them by classes='found'"
            )
        if self.classes is None or self.classes == "found":
            chosen = list(found)
        else:
            known: dict[int | str, int] = {label: label for label in found}
            known |= dict(zip(names or [], found, strict=False))
            absent = [name for name in self.classes if name not in known]
            if absent:
                shown = _listed(names if names and isinstance(absent[0], str) else found)
                raise ValueError(f"classes: got {absent}, which the data does not have, expected some of {shown}")
            chosen = [known[name] for name in self.classes]
        if len(chosen) < 2:
            raise ValueError(f"labels: got {_listed(chosen)} alone, expected at least two classes")
        self._labels = chosen
        self.num_classes = len(chosen)
        if names is not None:
            name_of = dict(zip(found, names, strict=True))
            self.class_names = [name_of[label] for label in chosen]

    def make_splits(self) -> dict[Split, LabelledImages]:
        """Read the sets, keep the chosen classes, hold out the validation set, and find mean and deviation."""
        device = self.trainer.strategy.root_device if self.cache == "device" and self.trainer is not None else None
        if device is not None:
            check_memory(self.num_bytes(), device)
        train, test = self.read()
        train = self._chosen(train)
        held_out = share_of_each_class(train.labels, self.val_share, self.seed)
        val: LabelledImages | None = None
        if held_out.any():
            val = _subset(train, held_out)
            train = _subset(train, ~held_out)
        test = val if test is None else self._chosen(test)
        val = test if val is None else val
        if val is None or test is None:
            raise ValueError(
                f"val_share: got {self.val_share} and no test set, expected a share above 0 to validate on"
            )
        self.mean, self.std = channel_statistics(train, self.seed)
        counts = train.labels.bincount(minlength=self.num_classes)
        if (counts == 0).any():
            raise ValueError(f"labels: got no training image of class {int(counts.argmin())}, expected some of each")
        rank_zero_info(
            f"data: {len(train)} training, {len(val)} validation and {len(test)} test inputs, {self.num_classes} "
            f"classes of {int(counts.min())} to {int(counts.max())} in training"
        )
        splits: dict[Split, LabelledImages] = {"train": train, "val": val, "test": test}
        return splits if device is None else _on_device(splits, device)

    def _chosen(self, images: LabelledImages) -> LabelledImages:
        number = torch.full((int(images.labels.max()) + 1,), -1)
        for i, label in enumerate(self._labels):
            if label < len(number):
                number[label] = i
        labels = number[images.labels]
        if bool((labels >= 0).all()) and torch.equal(labels, images.labels):
            return images
        kept = torch.nonzero(labels >= 0).flatten()
        return images.subset(kept, labels[kept])


def data_root(root: str | None) -> Path:
    """Return where data lives: ``root``, or the environment's ``NC_DATA_DIR``, or ``data`` here.

    Example:
        >>> data_root("/sets").name
        'sets'
    """
    return Path(root or os.environ.get("NC_DATA_DIR") or "data").expanduser()


def _on_device(splits: dict[Split, Any], device: torch.device) -> dict[Split, LabelledImages]:
    """Move the sets to a device, one that stands for two only once."""
    different = {id(images): images for images in splits.values()}
    check_memory(sum(images.x.nbytes for images in different.values()), device)  # some say only now how large they are
    moved = {key: LabelledTensors(images.x.to(device), images.labels.to(device)) for key, images in different.items()}
    return {name: moved[id(images)] for name, images in splits.items()}


def check_memory(num_bytes: int, device: torch.device) -> None:
    """Raise if images do not fit into the memory that is free on a device, as far as the device can tell.

    Raises:
        ValueError: If they do not.

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
    """Return (n,) bool: a share of each class, rounded down, drawn at random.

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


def channel_statistics(images: LabelledImages, seed: int = 0) -> tuple[Tensor | None, Tensor | None]:
    """Return mean and standard deviation (channels,) of images of bytes, in [0, 1]; None for other inputs.

    Of all images in memory, else of a thousand drawn at random.

    Example:
        >>> x = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> channel_statistics(LabelledTensors(x, torch.tensor([0, 1])))
        (tensor([0.5000]), tensor([0.5000]))
    """
    if isinstance(images, LabelledTensors):
        x = images.x
    else:
        drawn = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:STATISTICS_FROM]
        x = images[drawn.sort().values.tolist()][0]
    if x.dtype != torch.uint8:
        return None, None
    # Counts of the 256 values are exact and take no float copy of the set.
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in x.unbind(1)]).double()
    values = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(1, keepdim=True)
    mean = share @ values
    std = (share * (values - mean[:, None]) ** 2).sum(1).sqrt().clamp(min=1e-6)
    return mean.float(), std.float()


def _subset(images: LabelledImages, chosen: Tensor) -> LabelledImages:
    index = torch.nonzero(chosen).flatten()
    return images.subset(index, images.labels[index])


def _listed(labels: Sequence[int] | Sequence[str]) -> str:
    return str(list(labels)) if len(labels) <= 12 else f"[{', '.join(map(repr, labels[:5]))}, ..., {labels[-1]!r}]"
