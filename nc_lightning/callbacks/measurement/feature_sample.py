"""Sample of features for figures, with equally many of each class, whose size does not depend on the set."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from nc_lightning.checks import check_count

THUMBNAIL = 32
"""Largest side of the small images that are kept with the features."""


class FeatureSample:
    """Keep the first features of each class from a stream, in equal numbers, with labels and small images.

    Data in the same order give the same sample, so that figures of different epochs show the same inputs.

    Args:
        num_classes: C.
        max_points: Largest number of features; at least one of each class if that many classes fit.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> sample = FeatureSample(num_classes=2, max_points=4)
        >>> sample.update(torch.randn(9, 3), torch.arange(9) % 2, torch.zeros(9, 1, 8, 8))
        >>> sample.labels.tolist(), sample.images.shape
        ([0, 1, 0, 1], torch.Size([4, 1, 8, 8]))
    """

    def __init__(self, num_classes: int, max_points: int) -> None:
        check_count("num_classes", num_classes)
        check_count("max_points", max_points)
        self.max_points = max_points
        self._quota = max(1, max_points // num_classes)
        self._counts = torch.zeros(num_classes, dtype=torch.long)
        self._parts: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def __len__(self) -> int:
        """Return the number of features kept."""
        return int(self._counts.sum())

    def update(self, z: Tensor, labels: Tensor, inputs: Tensor) -> None:
        """Keep the samples that there is room for; inputs (N, 1 or 3, H, W) are kept as small images."""
        room = self.max_points - len(self)
        if room <= 0 or bool((self._counts >= self._quota).all()):
            return
        labels = labels.cpu().long()
        taken = torch.nonzero(self._counts[labels] + _earlier_of_class(labels) < self._quota).flatten()[:room]
        self._counts += labels[taken].bincount(minlength=len(self._counts))
        index = taken.to(z.device)
        images = thumbnails(inputs[index]) if inputs.ndim == 4 and inputs.shape[1] in (1, 3) else None
        self._parts.append((z[index].detach().float().cpu(), labels[taken], images))

    @property
    def z(self) -> Tensor:
        """Features (S, d), float32 on the CPU."""
        return torch.cat([z for z, _, _ in self._parts])

    @property
    def labels(self) -> Tensor:
        """Classes (S,)."""
        return torch.cat([labels for _, labels, _ in self._parts])

    @property
    def images(self) -> Tensor | None:
        """Small square images (S, 1 or 3, side, side) in [0, 1]; None if the inputs are no images."""
        parts = [images for _, _, images in self._parts if images is not None]
        if len(parts) < len(self._parts) or not parts:
            return None
        images = torch.cat(parts)
        low, high = images.min(), images.max()
        return (images - low) / (high - low).clamp(min=1e-12)


def thumbnails(images: Tensor, side: int = THUMBNAIL) -> Tensor:
    """Shrink images to at most ``side`` pixels, and pad them to squares with their smallest value.

    Example:
        >>> thumbnails(torch.rand(5, 3, 64, 128)).shape, thumbnails(torch.rand(5, 1, 8, 16)).shape
        (torch.Size([5, 3, 32, 32]), torch.Size([5, 1, 16, 16]))
    """
    images = images.detach().float()
    longest = max(images.shape[2:])
    if longest > side:
        height, width = (max(1, round(n * side / longest)) for n in images.shape[2:])
        images = interpolate(images, (height, width), mode="bilinear", antialias=True)
    height, width = images.shape[2:]
    missing = max(height, width) - height, max(height, width) - width
    edges = (missing[1] // 2, missing[1] - missing[1] // 2, missing[0] // 2, missing[0] - missing[0] // 2)
    return pad(images, edges, value=float(images.min()) if images.numel() else 0.0).cpu()


def _earlier_of_class(labels: Tensor) -> Tensor:
    """Return (N,): the number of earlier samples of the same class, for each sample of a batch."""
    order = labels.argsort(stable=True)
    sizes = labels.bincount()
    starts = sizes.cumsum(0) - sizes
    earlier = torch.empty_like(labels)
    earlier[order] = torch.arange(len(labels)) - starts[labels[order]]
    return earlier
