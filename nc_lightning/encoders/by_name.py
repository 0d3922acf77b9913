"""Models of torchvision or timm, by name."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision import models

from nc_lightning.checks import one_line
from nc_lightning.did_you_mean import did_you_mean
from nc_lightning.encoders.base import _LayeredEncoder
from nc_lightning.encoders.image_shape import check_image, features_of


class TorchvisionEncoder(_LayeredEncoder):
    """Use a classifier of torchvision, by name, without its last linear layer.

    Args:
        name: Name of the model, as in ``torchvision.models.list_models()``, such as ``efficientnet_b0``.
        weights: Name of the weights that torchvision downloads, such as ``DEFAULT``; None for random weights.
        input_shape: Shape of one image, (channels, height, width). If there are not 3 channels, the first convolution
            is replaced by one with the mean of its weights over the colors. None for color images of any size, which
            are not checked.

    Shape:
        (N, channels, height, width) -> (N, out_features)

    Raises:
        ValueError: If the model or its weights do not exist, the model does not end in a linear layer, or it does not
            accept images of this shape.
        OSError: If the weights cannot be downloaded.

    Example:
        >>> TorchvisionEncoder("mobilenet_v3_small")(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 1024])
    """

    def __init__(self, name: str, weights: str | None = None, input_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        known = models.list_models(module=models)
        if name not in known:
            near = did_you_mean(name, known)
            raise ValueError(f"name: got {name!r}, expected one of torchvision.models.list_models(){near}")
        self.name = name
        self.layers = _torchvision_model(name, weights)
        last, linear = list(self.layers.named_modules())[-1]
        if not isinstance(linear, nn.Linear) or hasattr(self.layers, "aux_logits"):
            raise ValueError(f"name: got {name!r}, which does not end in one linear layer, expected a model that does")
        _replace(self.layers, last, nn.Identity())
        self.out_features = linear.in_features
        if input_shape is not None:
            check_image(input_shape)
            _fit_channels(self.layers, input_shape[0])
            try:
                features_of(self.layers, input_shape)
            except Exception as error:
                raise ValueError(f"name: got {name!r} for images {tuple(input_shape)}: {one_line(error)}") from error


class TimmEncoder(_LayeredEncoder):
    """Use a model of timm, by name, with pooling and without its classifier; needs the extra ``timm``.

    Args:
        name: Name of the model, as in ``timm.list_models()``, such as ``vit_tiny_patch16_224``.
        input_shape: Shape of one image, (channels, height, width).
        pretrained: Whether to use the weights that timm downloads.
        options: Further arguments of ``timm.create_model``, such as ``{"img_size": 32, "patch_size": 4}`` for a ViT.

    Shape:
        (N, channels, height, width) -> (N, out_features)

    Raises:
        ImportError: If timm is not installed.
        ValueError: If the model does not exist, or does not accept images of this shape.
    """

    def __init__(
        self,
        name: str,
        input_shape: Sequence[int] = (3, 32, 32),
        pretrained: bool = False,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_image(input_shape)
        try:
            import timm  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ImportError("TimmEncoder: got no timm; install it by pip install 'nc-lightning[timm]'") from error
        try:
            kwargs = {"in_chans": input_shape[0], "num_classes": 0, **(options or {})}
            self.name = name
            self.arguments = kwargs
            self.layers = timm.create_model(name, pretrained=pretrained, **kwargs)
            self.out_features = features_of(self.layers, input_shape)
        except Exception as error:
            if str(error).startswith("Unknown model"):
                near = did_you_mean(name, timm.list_models())
                raise ValueError(f"name: got {name!r}, expected one of timm.list_models(){near}") from error
            raise ValueError(f"name: got {name!r} for images {tuple(input_shape)}: {one_line(error)}") from error


def _torchvision_model(name: str, weights: str | None) -> nn.Module:
    try:
        model: nn.Module = models.get_model(name, weights=weights)
    except (KeyError, ValueError, TypeError) as error:
        choices = [entry.name for entry in models.get_model_weights(name)]
        raise ValueError(f"weights: got {weights!r}, expected one of DEFAULT, {', '.join(choices)}") from error
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"weights: got {weights!r}, which cannot be downloaded: {one_line(error)}; put the file into "
            f"{torch.hub.get_dir()}/checkpoints yourself"
        ) from error
    return model


def _fit_channels(layers: nn.Module, channels: int) -> None:
    """Replace the first convolution by one with this number of channels, with the mean of its weights for each."""
    name, old = next((name, module) for name, module in layers.named_modules() if isinstance(module, nn.Conv2d))
    if channels == old.in_channels:
        return
    new = nn.Conv2d(
        channels,
        old.out_channels,
        kernel_size=tuple(old.kernel_size),  # type: ignore[arg-type]
        stride=tuple(old.stride),  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        new.weight.copy_(old.weight.sum(1, keepdim=True).expand_as(new.weight) / channels)
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    _replace(layers, name, new)


def _replace(layers: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(layers.get_submodule(parent), attribute, module)
