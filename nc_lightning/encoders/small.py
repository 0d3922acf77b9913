"""Small encoders for the bundled data."""

import itertools
import math
from collections.abc import Sequence

from torch import nn

from nc_lightning.checks import check_count
from nc_lightning.encoders.base import _LayeredEncoder
from nc_lightning.encoders.image_shape import check_image


class MLP(_LayeredEncoder):
    """Multi-layer perceptron over flattened inputs: Linear, BatchNorm and ReLU for each hidden layer.

    Args:
        input_shape: Shape of one input, such as (1, 8, 8) or (32,).
        hidden_features: Widths of the layers; the last one is ``out_features``.

    Shape:
        ``(N, *input_shape) -> (N, hidden_features[-1])``

    Raises:
        ValueError: If a size is below 1, or there is no layer.

    Example:
        >>> import torch
        >>> MLP((1, 8, 8), hidden_features=[32, 16])(torch.zeros(4, 1, 8, 8)).shape
        torch.Size([4, 16])
    """

    def __init__(self, input_shape: Sequence[int], hidden_features: Sequence[int] = (512, 512)) -> None:
        super().__init__()
        if len(hidden_features) == 0:
            raise ValueError("hidden_features: got no layer, expected at least one width")
        sizes = [math.prod(input_shape), *hidden_features]
        for size in sizes:
            check_count("hidden_features" if size in hidden_features else "input_shape", size)
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(sizes):
            # BatchNorm subtracts any bias, so the linear layer has none.
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.out_features = sizes[-1]


class SmallCNN(_LayeredEncoder):
    """Three 3x3 convolutions with BatchNorm and ReLU, halving the resolution twice, then the mean over positions.

    Args:
        input_shape: Shape of one image, (channels, height, width).
        width: Channels of the first convolution; the others have twice and four times as many.

    Shape:
        (N, channels, height, width) -> (N, 4 width)

    Raises:
        ValueError: If ``input_shape`` is not that of an image, or ``width`` is below 1.

    Example:
        >>> import torch
        >>> SmallCNN((1, 8, 8), width=8)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 32])
    """

    def __init__(self, input_shape: Sequence[int], width: int = 32) -> None:
        super().__init__()
        check_count("width", width)
        check_image(input_shape)
        layers: list[nn.Module] = []
        channels = input_shape[0]
        for out, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            layers += [
                nn.Conv2d(channels, out, kernel_size=3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            ]
            channels = out
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out_features = channels
