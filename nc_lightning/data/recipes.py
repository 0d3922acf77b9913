"""Try an augmentation on plain images, and check that it returns images of the same kind."""

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from nc_lightning.data.views import Augmentation, Views

_COUNT = 8
"""Number of probe images of each kind, so that a step with a low probability is still applied to some."""
_MARGIN = 0.25
"""Tolerance for the mean of all probe images: added noise and unclipped brightness move it a little."""
_DARK = 0.1


def check_recipe(augmentation: Augmentation, image_shape: Sequence[int]) -> None:
    """Refuse an augmentation that normalizes, rescales or reshapes images, because evaluation would not do the same.

    Normalization moves the mean of black or white images out of [0, 1], or makes all of them almost black. Changes of
    color, noise and erased pixels do neither. The global random state is restored.

    Raises:
        ValueError: If the views are not images in [0, 1], or have another shape.

    Example:
        >>> from torchvision.transforms import v2
        >>> check_recipe(v2.ColorJitter(0.5), (3, 8, 8))
    """
    noise = torch.rand(_COUNT, *image_shape, generator=torch.Generator().manual_seed(0))
    probes = torch.cat([torch.zeros_like(noise), torch.ones_like(noise), noise])
    with isolate_rng(include_cuda=False):
        try:
            views = Views(1, augmentation)(probes, torch.Generator().manual_seed(0))
        except Exception:  # a recipe that fails on any image raises its own error in training
            return
    images = views if isinstance(views, Tensor) else torch.cat(views)
    if images.shape != probes.shape:
        raise ValueError(
            f"augmentation: got views of shape {tuple(images.shape[1:])} of images {tuple(image_shape)}, expected the "
            "same shape, which validation and geometry see; change the recipe, or the size of the images"
        )
    means = images.reshape(3, -1).mean(1)
    known = means[~means.isnan()]  # a constant image stretched to its own range is 0 / 0
    if not (len(known) and known.min() >= -_MARGIN and _DARK <= known.max() <= 1 + _MARGIN):
        black, white, mixed = means.tolist()
        raise ValueError(
            f"augmentation: got means of {black:.3g}, {white:.3g} and {mixed:.3g} for black, white and noise, expected "
            "them in [0, 1]; remove the step that normalizes or rescales: only training would see it, and the data "
            "module standardizes images itself"
        )
