"""A residual network for small images on CPUs."""

import itertools
from collections.abc import Sequence

from torch import nn
from torchvision.models.resnet import BasicBlock

from nc_lightning.checks import check_count
from nc_lightning.encoders.base import _LayeredEncoder
from nc_lightning.encoders.image_shape import check_image


class SmallResNet(_LayeredEncoder):
    """Residual network with a strided stem and one block per width, small enough to be trained on a CPU.

    The stem is a convolution of non-overlapping patches, so that every block works on few positions: 8x8, 4x4 and 2x2
    for images of 32x32. The blocks are those of a ResNet-18; each one after the first halves the resolution.

    Args:
        input_shape: Shape of one image, (channels, height, width).
        widths: Channels of the blocks; the last one is ``out_features``.
        patch: Side of a patch in pixels, which is the stride of the stem. 2 keeps more detail than 4 and takes
            three to four times as long.

    Shape:
        (N, channels, height, width) -> (N, widths[-1]); pixels beyond the last whole patch are not used. In bfloat16 on
        CPUs images should have at least two positions before the last block, or gradients may be NaN (torch 2.14.1).

    Raises:
        ValueError: If ``input_shape`` is not that of an image or smaller than a patch, a size is below 1, or there is
            no block.

    Source:
        The block is that of He, Zhang, Ren, Sun (2016), Deep residual learning for image recognition.

    Example:
        >>> import torch
        >>> SmallResNet((3, 32, 32), widths=[16, 32])(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 32])
    """

    def __init__(self, input_shape: Sequence[int], widths: Sequence[int] = (64, 128, 256), patch: int = 4) -> None:
        super().__init__()
        check_image(input_shape)
        check_count("patch", patch)
        if isinstance(widths, int):
            raise TypeError(f"widths: got {widths}, expected a list, such as [{widths}, {2 * widths}]")
        if len(widths) == 0:
            raise ValueError("widths: got no block, expected at least one width")
        for width in widths:
            check_count("widths", width)
        if min(input_shape[1:]) < patch:
            raise ValueError(f"patch: got {patch} for images {tuple(input_shape)}, expected at most their sides")
        self.layers = nn.Sequential(
            nn.Conv2d(input_shape[0], widths[0], patch, stride=patch, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
            BasicBlock(widths[0], widths[0]),
            *(_halving(before, after) for before, after in itertools.pairwise(widths)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.out_features = widths[-1]


def _halving(in_channels: int, out_channels: int) -> BasicBlock:
    """Return a block that halves the resolution, with a strided 1x1 convolution as its shortcut."""
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=2, bias=False), nn.BatchNorm2d(out_channels)
    )
    return BasicBlock(in_channels, out_channels, stride=2, downsample=shortcut)
