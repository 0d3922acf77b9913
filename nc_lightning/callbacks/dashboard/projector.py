"""Features for TensorBoard's projector, with class names and small images."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn.functional import interpolate

from nc_lightning.callbacks.measurement.feature_sample import FeatureSample

SMALLEST_SPRITE = 16
"""Smallest side of an image in pixels: smaller images are enlarged, so that they stay sharp."""
LARGEST_SPRITE = 8192
"""Largest side in pixels of the picture that holds all images: WebGL accepts no larger one."""


def write_projector(
    writer: Any, sample: FeatureSample, class_names: Sequence[str] | None, step: int, prefix: str = ""
) -> None:
    """Write a sample of features with their images and class names, or class numbers if there are no names.

    ``prefix`` is what the logger puts before tags.
    """
    names = [str(label) if class_names is None else class_names[label] for label in sample.labels.tolist()]
    images = None if sample.images is None else sprites(sample.images)
    writer.add_embedding(sample.z, metadata=names, label_img=images, global_step=step, tag=f"{prefix}features")


def sprites(images: Tensor) -> Tensor:
    """Convert square images to three channels, and resize them so that all fit into one picture of the projector.

    Example:
        >>> import torch
        >>> sprites(torch.rand(5, 1, 8, 8)).shape, sprites(torch.rand(90_000, 1, 32, 32)).shape
        (torch.Size([5, 3, 16, 16]), torch.Size([90000, 3, 27, 27]))
    """
    side = min(max(SMALLEST_SPRITE, images.shape[3]), LARGEST_SPRITE // math.ceil(math.sqrt(len(images))))
    return interpolate(images, (side, side), mode="nearest-exact").expand(-1, 3, -1, -1)
