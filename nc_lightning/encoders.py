"""Encoders: small ones for the embedded data, ResNets, any model of torchvision or timm; and the paper's projector.

An encoder is any module that maps a batch of inputs to features h (N, out_features) and says its ``out_features``.
A projector is made by calling ``projector(out_features, feature_dim)``: `torch.nn.Linear` will do.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision import models

from nc_lightning.geometry.checks import check_choice, check_count

Stem = Literal["cifar", "imagenet"]
Depth = Literal[18, 34, 50]


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
        >>> SmallCNN((1, 8, 8), width=8)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 32])
    """

    def __init__(self, input_shape: Sequence[int], width: int = 32) -> None:
        super().__init__()
        check_count("width", width)
        _check_image(input_shape)
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


class ResNet(nn.Module):
    """ResNet-18, 34 or 50 without its classifier.

    Args:
        input_shape: Shape of one image, (channels, height, width).
        depth: 18, 34 or 50 layers.
        stem: ``cifar`` starts with a 3x3 convolution and no pooling, for small images; ``imagenet`` with a 7x7
            convolution of stride 2 and pooling.

    Shape:
        (N, channels, height, width) -> (N, 512), or (N, 2048) for depth 50

    Raises:
        ValueError: If an argument is out of its range.

    Source:
        He, Zhang, Ren, Sun (2016), Deep residual learning for image recognition; the stem is that of SimCLR on CIFAR.

    Example:
        >>> ResNet((3, 32, 32), depth=18)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 512])
    """

    def __init__(self, input_shape: Sequence[int] = (3, 32, 32), depth: Depth = 18, stem: Stem = "cifar") -> None:
        super().__init__()
        check_choice("stem", stem, Stem)
        check_choice("depth", depth, Depth)
        _check_image(input_shape)
        self.layers: nn.Module = getattr(models, f"resnet{depth}")(weights=None)
        self.out_features: int = self.layers.fc.in_features
        self.layers.fc = nn.Identity()
        size, stride, padding = (3, 1, 1) if stem == "cifar" else (7, 2, 3)
        if stem == "cifar":
            self.layers.maxpool = nn.Identity()
        if stem == "cifar" or input_shape[0] != 3:
            convolution = nn.Conv2d(input_shape[0], 64, size, stride, padding, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            self.layers.conv1 = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Map images to features h."""
        features: Tensor = self.layers(x)
        return features


class TorchvisionEncoder(nn.Module):
    """Any classifier of torchvision by its name, without its last linear layer.

    Args:
        name: As ``torchvision.models.list_models()`` has it, such as ``efficientnet_b0``.
        weights: Name of weights that torchvision downloads, such as ``DEFAULT``; None for random ones.

    Shape:
        (N, 3, height, width) -> (N, out_features)

    Raises:
        ValueError: If there is no such model, or it does not end in a linear layer.

    Example:
        >>> TorchvisionEncoder("mobilenet_v3_small")(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 1024])
    """

    def __init__(self, name: str, weights: str | None = None) -> None:
        super().__init__()
        if name not in models.list_models(module=models):
            raise ValueError(f"name: got {name!r}, expected one of torchvision.models.list_models()")
        self.layers: nn.Module = models.get_model(name, weights=weights)
        last, linear = list(self.layers.named_modules())[-1]
        if not isinstance(linear, nn.Linear) or hasattr(self.layers, "aux_logits"):
            raise ValueError(f"name: got {name!r}, which does not end in one linear layer, expected a model that does")
        parent, _, attribute = last.rpartition(".")
        setattr(self.layers.get_submodule(parent), attribute, nn.Identity())
        self.out_features = linear.in_features

    def forward(self, x: Tensor) -> Tensor:
        """Map images to features h."""
        features: Tensor = self.layers(x)
        return features


class TimmEncoder(nn.Module):
    """Any model of timm by its name, pooled and without its classifier; needs the extra ``timm``.

    Args:
        name: As ``timm.list_models()`` has it, such as ``vit_tiny_patch16_224``.
        input_shape: Shape of one image, (channels, height, width).
        pretrained: Take the weights that timm downloads.
        options: Further arguments of ``timm.create_model``, such as ``{"img_size": 32, "patch_size": 4}`` for a ViT.

    Shape:
        (N, channels, height, width) -> (N, out_features)

    Raises:
        ImportError: If timm is not installed.
        ValueError: If there is no such model, or it does not take such images.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int] = (3, 32, 32),
        pretrained: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        _check_image(input_shape)
        try:
            import timm
        except ImportError as error:
            raise ImportError("TimmEncoder: got no timm; install it by pip install 'nc-lightning[timm]'") from error
        try:
            kwargs = {"in_chans": input_shape[0], "num_classes": 0, **(options or {})}
            self.layers: nn.Module = timm.create_model(name, pretrained=pretrained, **kwargs)
            self.layers.eval()
            with torch.no_grad():
                self.out_features = self.layers(torch.zeros(1, *input_shape)).shape[1]
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"name: got {name!r} for images {tuple(input_shape)}: {reason}") from error
        self.layers.train()

    def forward(self, x: Tensor) -> Tensor:
        """Map images to features h."""
        features: Tensor = self.layers(x)
        return features


def _check_image(input_shape: Sequence[int]) -> None:
    if len(input_shape) != 3:
        raise ValueError(f"input_shape: got {tuple(input_shape)}, expected (channels, height, width)")


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
