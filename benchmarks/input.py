"""Compare images per second of the cached input path with the usual torchvision loader and with kornia.

    python -m benchmarks.input [--images 10000] [--batch_size 512] [--rounds 5] [--device cuda]

All read the same random 32x32 images and return standardized float batches. They alternate round by round, one epoch
each after an epoch of warm-up; medians over rounds and the medians of the ratios to ours are reported. With an
augmentation the unit is views, two of each image. With a device, batches end there, and ours and kornia also augment
there.

    ours          ArrayDataModule, one process, all threads
    torchvision   a DataLoader with 2 persistent workers and torchvision.transforms.v2 on PIL images
    kornia        ours with the augmentations of kornia instead of SimCLR; only if kornia is installed
"""

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks import device as of_device
from benchmarks import results
from nc_lightning.data import ArrayDataModule, SimCLR
from nc_lightning.data.views import Augmentation

MEAN, STD = [0.5] * 3, [0.25] * 3


class PILImages(Dataset[Any]):
    """Images in the form of torchvision's CIFAR: an array of bytes, each converted to PIL and then transformed."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], transform: Any, views: int) -> None:
        self.images, self.labels, self.transform, self.views = images, labels, transform, views

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self.images[index])
        views = tuple(self.transform(image) for _ in range(self.views))
        return views if self.views > 1 else views[0], int(self.labels[index])


class Kornia:
    """The SimCLR recipe for whole batches, with kornia."""

    def __init__(self) -> None:
        import kornia.augmentation as K  # noqa: N812, PLC0415 - optional

        self.layers = K.AugmentationSequential(
            K.RandomResizedCrop((32, 32), scale=(0.2, 1.0)),
            K.RandomHorizontalFlip(),
            K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            K.RandomGrayscale(p=0.2),
        )

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment a batch."""
        views: Tensor = self.layers(x)
        return views


class KorniaInOurPlace(SimCLR):
    """Receive the batches that `SimCLR` would receive."""

    def __init__(self) -> None:
        super().__init__()
        self.kornia = Kornia()

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment a batch."""
        return self.kornia(x)


def torchvision_loader(images: Any, labels: Any, batch_size: int, augmented: bool) -> DataLoader[Any]:
    """Return the usual loader of torchvision."""
    recipe: list[Any] = [
        v2.RandomResizedCrop(32, scale=(0.2, 1.0)),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
    ]
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    transform = v2.Compose([*(recipe if augmented else []), *to_tensor])
    dataset = PILImages(images, labels, transform, 2 if augmented else 1)
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)


def our_loader(path: Path, batch_size: int, augmentation: Augmentation | None, device: torch.device) -> Iterable[Any]:
    """Return the loader of the cached path."""
    views = 1 if augmentation is None else 2
    data = ArrayDataModule(
        path=str(path), val_share=0.0, views=views, augmentation=augmentation, batch_size=batch_size, batches="random"
    )
    data.setup()
    loader = data.train_dataloader()
    loader.device = device
    return loader


def rate(loader: Iterable[Any], device: torch.device) -> float:
    """Return views per second over an epoch, including the transfer to the device."""
    start, views = time.perf_counter(), 0
    for x, labels in loader:
        made = [view.to(device, non_blocking=True) for view in (x if isinstance(x, (tuple, list)) else [x])]
        views += len(labels) * len(made)
    of_device.synchronize(device)
    return views / (time.perf_counter() - start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--batch_size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    of_device.add_arguments(parser, precision=False)
    results.add_argument(parser)
    args = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.ERROR)

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (args.images, 32, 32, 3), dtype=np.uint8), np.arange(args.images) % 10
    print(f"{args.images} images 32x32, batches of {args.batch_size}, {of_device.name_of(args.device)}")
    table: list[dict[str, float | str | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        np.savez(path, x_train=images, y_train=labels, x_test=images[:10], y_test=labels[:10])
        for augmented in (False, True):
            loaders: dict[str, Callable[[], Iterable[Any]]] = {
                "ours": lambda: our_loader(path, args.batch_size, SimCLR() if augmented else None, args.device),  # noqa: B023
                "torchvision": lambda: torchvision_loader(images, labels, args.batch_size, augmented),  # noqa: B023
            }
            if augmented:
                loaders["kornia"] = lambda: our_loader(path, args.batch_size, KorniaInOurPlace(), args.device)
            title = "two SimCLR views" if augmented else "one unchanged view"
            table += compare(title, loaders, args.rounds, args.device)
    results.write(args.json, of_device.name_of(args.device), table)


def compare(
    title: str, loaders: dict[str, Callable[[], Iterable[Any]]], rounds: int, device: torch.device
) -> list[dict[str, float | str | None]]:
    """Time all loaders in alternation, and return a row for each."""
    made: dict[str, Iterable[Any]] = {}
    for name, make in loaders.items():
        try:
            made[name] = make()
            rate(made[name], device)
        except ImportError:
            print(f"{name}: not installed")
    rates: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, loader in made.items():
            rates[name].append(rate(loader, device))
    rows: list[dict[str, float | str | None]] = []
    for name, values in rates.items():
        ratio = results.spread([ours / other for ours, other in zip(rates["ours"], values, strict=True)], digits=1)
        views = f"{statistics.median(values):,.0f}"
        print(f"{title:20} {name:12} {views:>10} views/s   ours is {ratio} times as fast")
        rows.append({"views": title, "loader": name, "views per second": views, "ours / this": ratio})
    return rows


if __name__ == "__main__":
    main()
