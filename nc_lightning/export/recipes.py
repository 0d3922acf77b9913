"""Python code that makes an encoder again without this package, for the weights under its own names."""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import BasicBlock

from nc_lightning.encoders import ResNet, TimmEncoder, TorchvisionEncoder
from nc_lightning.encoders.base import _LayeredEncoder


def plain(encoder: nn.Module) -> nn.Module:
    """Return the model inside an encoder of this package, whose weights have that model's own names.

    Other encoders are returned unchanged.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> list(plain(MLP((4,), [8])).state_dict())[:2]
        ['1.weight', '2.weight']
    """
    return encoder.layers if isinstance(encoder, _LayeredEncoder) else encoder


def plain_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """Return the weights and buffers of an encoder under its model's own names, each with memory of its own."""
    return {name: value.detach().clone().contiguous() for name, value in plain(encoder).state_dict().items()}


def recipe(encoder: nn.Module, class_path: str) -> list[str]:
    r"""Return lines of Python that make ``model``, the model inside an encoder, with random weights.

    Example:
        >>> from nc_lightning.encoders import MLP
        >>> print("\n".join(recipe(MLP((4,), [8]), "nc_lightning.encoders.MLP")))
        model = torch.nn.Sequential(
            torch.nn.Flatten(start_dim=1, end_dim=-1),
            torch.nn.Linear(in_features=4, out_features=8, bias=False),
            torch.nn.BatchNorm1d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True),
            torch.nn.ReLU(inplace=True),
        )
    """
    model = plain(encoder)
    if isinstance(encoder, TimmEncoder):
        arguments = "".join(f", {name}={value!r}" for name, value in encoder.arguments.items())
        return ["import timm", "", f"model = timm.create_model({encoder.name!r}{arguments})"]
    if isinstance(encoder, (TorchvisionEncoder, ResNet)):
        changed = _changes(encoder.name, model)
        return ["import torchvision", "", f"model = torchvision.models.get_model({encoder.name!r})", *changed]
    if isinstance(model, nn.Sequential) and all(_has_code(layer) for layer in model):
        blocks = any(isinstance(layer, BasicBlock) for layer in model)
        imports = ["from torchvision.models.resnet import BasicBlock", ""] if blocks else []
        return [*imports, "model = torch.nn.Sequential(", *(f"    {_code(layer)}," for layer in model), ")"]
    return [f"model = ...  # your encoder, {class_path}"]


def _changes(name: str, model: nn.Module) -> Iterator[str]:
    """Yield an assignment for each layer in which a model differs from torchvision's of that name."""
    with torch.device("meta"):
        original: Mapping[str, nn.Module] = dict(models.get_model(name, weights=None).named_modules())
    for path, layer in model.named_modules():
        if not any(True for _ in layer.children()) and repr(layer) != repr(original[path]):
            indexed = re.sub(r"\.(\d+)", r"[\1]", path)
            yield f"model.{indexed} = {_code(layer)}"


def _has_code(layer: nn.Module) -> bool:
    return isinstance(layer, BasicBlock) or type(layer).__module__.startswith("torch.nn")


def _code(layer: nn.Module) -> str:
    """Return Python that makes a layer of torch or a block of torchvision.

    For a layer it is the representation, in the words of every version of torch.

    Example:
        >>> _code(nn.ReLU(inplace=True)), _code(BasicBlock(8, 8))
        ('torch.nn.ReLU(inplace=True)', 'BasicBlock(8, 8, 1, None)')
    """
    if isinstance(layer, BasicBlock):
        shortcut = layer.downsample
        made = shortcut and f"torch.nn.Sequential({', '.join(map(_code, shortcut.children()))})"
        return f"BasicBlock({layer.conv1.in_channels}, {layer.conv1.out_channels}, {layer.stride}, {made})"
    return f"torch.nn.{layer!r}".replace(", affine=True, bias=True", ", affine=True")  # newer versions name it
