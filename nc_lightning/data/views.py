"""Make batches of one or several views of images."""

import itertools
from collections.abc import Callable

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn

from nc_lightning.checks import check_count
from nc_lightning.data.augmentation import SimCLR

_MADE = itertools.count()
"""Counter of views made without a generator, so that each has different random numbers."""

Augmentation = SimCLR | Callable[[Tensor], Tensor] | nn.Module
"""Transform that makes a view: `SimCLR` takes whole batches, any other one image, as torchvision.transforms.v2 does."""


class Views:
    """Convert a batch of images to views for training: float in [0, 1], augmented, then standardized.

    Args:
        count: Number of views of each image.
        augmentation: Transform of the images; None leaves them unchanged. `SimCLR` is applied to whole batches; any
            other, such as ``torchvision.transforms.v2``, to one image at a time, which is slower.
        mean: Mean (channels,) of the training images in [0, 1]; None for no standardization.
        std: Standard deviation (channels,) of the training images.

    Shape:
        (N, channels, H, W) uint8, or (N, ...) float -> float32; a tensor for one view, a tuple for several

    Raises:
        ValueError: If ``count`` is below 1.

    Example:
        >>> first, second = Views(count=2, augmentation=SimCLR())(torch.zeros(5, 3, 8, 8, dtype=torch.uint8))
        >>> first.shape
        torch.Size([5, 3, 8, 8])
    """

    def __init__(
        self,
        count: int = 1,
        augmentation: Augmentation | None = None,
        mean: Tensor | None = None,
        std: Tensor | None = None,
    ) -> None:
        check_count("views", count)
        self.count = count
        self.augmentation = augmentation
        self.mean = mean
        self.std = std
        self._checked = False
        self._own: torch.Generator | None = None
        self._on: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor | tuple[Tensor, ...]:
        """Make the views with a generator on the images' device, or with a new one."""
        x = as_floats(x)
        augmented = [self._augment(x, generator) for _ in range(self.count)]
        if self.augmentation is not None and not self._checked:
            self._checked = True
            self._check(augmented)
        views = tuple(self._standardize(view) for view in augmented)
        return views[0] if self.count == 1 else views

    def _check(self, views: list[Tensor]) -> None:
        """Warn if all views of an image are identical, or their values are not those of images in [0, 1]."""
        if self.count > 1 and torch.equal(views[0], views[1]):
            rank_zero_warn("augmentation: got one that is not random, so all views of an image are identical")
        if self.mean is not None and type(self.augmentation) is not SimCLR:
            low, high = (float(value) for value in torch.aminmax(views[0]))
            if ((views[0] < -0.5) | (views[0] > 1.5)).float().mean() > 0.1:  # added noise gives few such values
                rank_zero_warn(
                    f"augmentation: got values from {low:.3g} to {high:.3g} of images in [0, 1], which only training "
                    "would see; leave standardization to the data module"
                )

    def _augment(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.augmentation is None:
            return x
        if isinstance(self.augmentation, SimCLR):
            # A subclass may work in place, and all views are made from the same images.
            return self.augmentation(x if type(self.augmentation) is SimCLR else x.clone(), generator)
        if generator is None:
            self._own = self._own or torch.Generator().manual_seed(torch.initial_seed() + next(_MADE))
            generator = self._own
        # Such transforms use the global generators: seed them, and restore them afterwards.
        devices = [] if x.device.type == "cpu" else [x.device]
        with torch.random.fork_rng(devices, device_type=x.device.type):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator, device=generator.device)))
            # A copy: some transforms work in place.
            views = [self.augmentation(image) for image in x.clone()]
        if len(shapes := {tuple(view.shape) for view in views if isinstance(view, Tensor)}) > 1:
            raise ValueError(f"augmentation: got views of the shapes {sorted(shapes)[:3]}, expected the same for all")
        return as_floats(torch.stack(views))

    def _standardize(self, x: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return x
        if (x.device, x.dtype) not in self._on:
            self._on[x.device, x.dtype] = self.mean.to(x), self.std.to(x)  # once: every copy blocks the host
        return standardize(x, *self._on[x.device, x.dtype])


def as_floats(x: Tensor) -> Tensor:
    """Return images in float32, uint8 scaled to [0, 1].

    Example:
        >>> as_floats(torch.tensor([255], dtype=torch.uint8))
        tensor([1.])
    """
    return x.float().div_(255) if x.dtype == torch.uint8 else x.float()


def standardize(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return images (N, channels, ...) minus the mean (channels,), divided by the standard deviation (channels,).

    Raises:
        ValueError: If the images have another number of channels.

    Example:
        >>> standardize(torch.tensor([[[0.75]]]), torch.tensor([0.5]), torch.tensor([0.25]))
        tensor([[[1.]]])
    """
    if x.ndim < 2 or x.shape[1] != len(mean):  # a single channel would be broadcast
        raise ValueError(f"images: got shape {tuple(x.shape)}, expected (N, {len(mean)}, ...), as in training")
    shape = (-1, *([1] * (x.ndim - 2)))
    return (x - mean.view(shape)).div_(std.view(shape))
