"""ResNets, with a stem for small or for ImageNet images."""

from collections.abc import Sequence
from typing import Literal

from torch import nn
from torchvision import models

from nc_lightning.checks import check_choice
from nc_lightning.encoders.base import _LayeredEncoder
from nc_lightning.encoders.image_shape import check_image

Stem = Literal["cifar", "imagenet"]
Depth = Literal[18, 34, 50]


class ResNet(_LayeredEncoder):
    """ResNet-18, 34 or 50 without its classifier.

    Args:
        input_shape: Shape of one image, (channels, height, width).
        depth: Number of layers: 18, 34 or 50.
        stem: ``cifar`` for a 3x3 convolution without pooling, for small images; ``imagenet`` for a 7x7 convolution of
            stride 2 and pooling.

    Shape:
        (N, channels, height, width) -> (N, 512), or (N, 2048) for depth 50

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        He, Zhang, Ren, Sun (2016), Deep residual learning for image recognition; the stem is that of SimCLR on CIFAR.

    Example:
        >>> import torch
        >>> ResNet((3, 32, 32), depth=18)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(self, input_shape: Sequence[int] = (3, 32, 32), depth: Depth = 18, stem: Stem = "cifar") -> None:
        super().__init__()
        check_choice("stem", stem, Stem)
        check_choice("depth", depth, Depth)
        check_image(input_shape)
        self.name = f"resnet{depth}"
        self.layers: nn.Module = models.get_model(self.name, weights=None)
        self.out_features: int = self.layers.fc.in_features
        self.layers.fc = nn.Identity()
        size, stride, padding = (3, 1, 1) if stem == "cifar" else (7, 2, 3)
        if stem == "cifar":
            self.layers.maxpool = nn.Identity()
        if stem == "cifar" or input_shape[0] != 3:
            convolution = nn.Conv2d(input_shape[0], 64, size, stride, padding, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            self.layers.conv1 = convolution
