"""Encoders for the embedded data sets, and the paper's projection head.

An encoder is any module that maps a batch of inputs to features h (N, out_features) and says its ``out_features``.
A projector is made by calling ``projector(out_features, feature_dim)``: `torch.nn.Linear` will do.
"""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from nc_lightning.geometry.checks import check_count


class MLP(nn.Module):
    """Multi-layer perceptron over flattened inputs: Linear, BatchNorm and ReLU for each hidden layer.

    Args:
        input_shape: Shape of one input, such as (1, 8, 8) or (32,).
        hidden_features: Width of each layer; the last one is ``out_features``.

    Shape:
        (N, *input_shape) -> (N, hidden_features[-1])

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

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs to features h."""
        features: Tensor = self.layers(x)
        return features


class SmallCNN(nn.Module):
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
        if len(input_shape) != 3:
            raise ValueError(f"input_shape: got {tuple(input_shape)}, expected (channels, height, width)")
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

    def forward(self, x: Tensor) -> Tensor:
        """Map images to features h."""
        features: Tensor = self.layers(x)
        return features


class ProjectionHead(nn.Sequential):
    """The paper's projector: Linear, BatchNorm, ReLU, Linear.

    Args:
        in_features: Width of the encoder's features h.
        out_features: Dimension d of the projections.
        hidden_features: Width between; 512 in the paper.

    Shape:
        (N, in_features) -> (N, out_features)

    Raises:
        ValueError: If a size is below 1.

    Source:
        arXiv 2311.05139 and its public code: a projector 2048-512-(C - 1) on a ResNet-50.

    Example:
        >>> import torch
        >>> ProjectionHead(16, 9)(torch.zeros(2, 16)).shape
        torch.Size([2, 9])
    """

    def __init__(self, in_features: int, out_features: int, hidden_features: int = 512) -> None:
        for name, size in (("in", in_features), ("out", out_features), ("hidden", hidden_features)):
            check_count(f"{name}_features", size)
        super().__init__(
            nn.Linear(in_features, hidden_features, bias=False),
            nn.BatchNorm1d(hidden_features),
            nn.ReLU(inplace=True),
            nn.Linear(hidden_features, out_features),
        )
