"""Torchvision's small image data sets: CIFAR-10, CIFAR-100, STL-10 and Fashion-MNIST."""

import math
import os
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torchvision import datasets

from nc_lightning.checks import one_line
from nc_lightning.data.base import Split
from nc_lightning.data.loader import LabeledImages, LabeledTensors
from nc_lightning.data.sources.images import ImageDataModule, ImageOptions, data_root
from nc_lightning.options import Unpack

_CIFAR100_CLASSES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""


class TorchvisionDataModule(ImageDataModule):
    """Base of the data modules for torchvision data sets that fit into memory.

    Args:
        root: Folder that contains the data set as torchvision stores it; None for ``$NC_DATA_DIR``, or else the folder
            ``data``.
        download: Whether to download the data set if it is missing. The download is moved into place when complete.
        url: URL of a mirror to download from; None for torchvision's own.
        kwargs: Arguments of `ImageDataModule`.

    Raises:
        FileNotFoundError: In `setup`, if the data set is missing.
        ValueError: If it is damaged, or an argument is out of its range.
    """

    dataset: ClassVar[Any]
    num_images: ClassVar[int]
    folder: ClassVar[str]
    names: ClassVar[list[str]]

    def __init__(
        self, root: str | None = None, download: bool = False, url: str | None = None, **kwargs: Unpack[ImageOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.root = data_root(root)
        self.download = download
        self.url = url
        self.choose_classes(range(len(self.names)), self.names)

    def prepare_data(self) -> None:
        """Download the data set if requested and missing."""
        if self.download and not (self.root / self.folder).exists():
            changed = {} if self.url is None else {"url": self.url, "mirrors": [self.url.rstrip("/") + "/"]}
            dataset = type(self.dataset.__name__, (self.dataset,), changed)
            download_whole(self.root, self.folder, lambda place: dataset(place, download=True))

    def num_bytes(self) -> int:
        """Return the size in bytes of the images of the chosen classes; all classes are equally large."""
        return self.num_images * len(self._labels) // len(self.names) * math.prod(self.input_shape)

    def read(self) -> dict[Split, LabeledImages]:
        """Return the training and test sets as torchvision reads them."""
        name, place = self.dataset.__name__, self.root / self.folder
        check_is_there(name, self.root, place, self.download)
        self.origins |= {"train": f"its training set in {place}", "test": f"its test set in {place}"}
        try:
            return {"train": self._as_tensors(self._open(True)), "test": self._as_tensors(self._open(False))}
        except PermissionError:
            raise
        except Exception as error:
            raise ValueError(
                f"root: got {str(place)!r}, a damaged {name}: {one_line(error)}; remove it and download it again"
            ) from error

    def _open(self, train: bool) -> Any:
        return self.dataset(self.root, train=train)

    def _as_tensors(self, dataset: Any) -> LabeledTensors:
        images = torch.as_tensor(dataset.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
        return LabeledTensors(images, torch.as_tensor(dataset.targets, dtype=torch.int64))


def download_whole(root: Path, folder: str, download: Any) -> None:
    """Download into a temporary folder and move the result into place when complete; a failure leaves nothing behind.

    Args:
        root: Data folder.
        folder: Folder that ``download`` makes, relative to ``root``.
        download: Function that is called with the folder to download to.

    Raises:
        OSError: If the download fails; the message says what to do instead.

    Example:
        >>> root = Path(tempfile.mkdtemp())
        >>> download_whole(root, "set", lambda place: (Path(place) / "set").mkdir())
        >>> [path.name for path in root.iterdir()]
        ['set']
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".download-") as place:
        try:
            download(place)
        except Exception as error:
            raise OSError(
                f"download: got {type(error).__name__}: {one_line(error)}; try a mirror by --data.url, or "
                f"put the data set into {root} yourself"
            ) from error
        top = folder.split("/")[0]
        os.replace(Path(place) / top, root / top)


def check_is_there(name: str, root: Path, place: Path, download: bool) -> None:
    """Raise a `FileNotFoundError` that says where ``name`` was searched for and what to type."""
    if place.exists():
        return
    how = "it was not downloaded" if download else "add --data.download true"
    raise FileNotFoundError(
        f"root: got {str(root)!r}, which has no {name}: looked for {place}; {how}, or set its folder with --data.root "
        "or NC_DATA_DIR"
    )


class CIFAR10DataModule(TorchvisionDataModule):
    """Load CIFAR-10: 60,000 color images 32x32 of 10 classes; the arguments are those of `TorchvisionDataModule`.

    Example:
        >>> data = CIFAR10DataModule(classes=["cat", "dog"], batch_size=64)
        >>> data.num_classes, data.input_shape
        (2, (3, 32, 32))
    """

    dataset = datasets.CIFAR10
    num_images = 60_000
    folder = "cifar-10-batches-py"
    input_shape = (3, 32, 32)
    names: ClassVar = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


class CIFAR100DataModule(TorchvisionDataModule):
    """Load CIFAR-100: 60,000 color images 32x32 of 100 classes; the arguments are those of `TorchvisionDataModule`.

    Example:
        >>> CIFAR100DataModule().num_classes
        100
    """

    dataset = datasets.CIFAR100
    num_images = 60_000
    folder = "cifar-100-python"
    input_shape = (3, 32, 32)
    names: ClassVar = _CIFAR100_CLASSES.split()


class FashionMNISTDataModule(TorchvisionDataModule):
    """Load Fashion-MNIST: 70,000 gray images 28x28 of 10 classes; the arguments are those of `TorchvisionDataModule`.

    Example:
        >>> FashionMNISTDataModule().input_shape
        (1, 28, 28)
    """

    dataset = datasets.FashionMNIST
    num_images = 70_000
    folder = "FashionMNIST/raw"
    input_shape = (1, 28, 28)
    names: ClassVar = datasets.FashionMNIST.classes


class STL10DataModule(TorchvisionDataModule):
    """Load STL-10: 13,000 labeled color images 96x96 of 10 classes; the arguments are those of `TorchvisionDataModule`.

    Example:
        >>> STL10DataModule().input_shape
        (3, 96, 96)
    """

    dataset = datasets.STL10
    num_images = 13_000
    folder = "stl10_binary"
    input_shape = (3, 96, 96)
    names: ClassVar = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]

    def read(self) -> dict[Split, LabeledImages]:
        """Return the training and test sets as torchvision reads them, and count the images without labels."""
        unlabeled = self.root / self.folder / "unlabeled_X.bin"
        if unlabeled.is_file():
            count = unlabeled.stat().st_size // math.prod(self.input_shape)
            self.passed_over.add("images without labels", unlabeled.name, count)
        return super().read()

    def _open(self, train: bool) -> Any:
        return self.dataset(self.root, split="train" if train else "test")

    def _as_tensors(self, dataset: Any) -> LabeledTensors:
        return LabeledTensors(torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels.astype(np.int64)))
