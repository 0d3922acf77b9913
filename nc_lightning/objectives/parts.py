"""Checks of encoder and projector, and of the features they return."""

from collections.abc import Callable

from torch import Tensor, nn

from nc_lightning.encoders.width import width_of


def make_projector(projector: Callable[[int, int], nn.Module], encoder: nn.Module, feature_dim: int) -> nn.Module:
    """Return a projector module, or make it from the encoder's width and the feature dimension.

    Raises:
        ValueError: If the encoder or the projector is not a module, or the encoder's width cannot be found out.

    Example:
        >>> make_projector(nn.Linear, nn.Sequential(nn.Flatten(), nn.Linear(20, 12)), 3)
        Linear(in_features=12, out_features=3, bias=True)
    """
    _check_module("encoder", encoder)
    if not isinstance(projector, nn.Module) and callable(projector):
        projector = projector(width_of(encoder), feature_dim)
    _check_module("projector", projector)
    return projector


def check_features(name: str, module: nn.Module, features: object, width: int | None = None) -> None:
    """Raise unless features are a tensor (N, width), with any width for None.

    Raises:
        ValueError: If it is not; the message begins with ``name``.

    Example:
        >>> import torch
        >>> check_features("encoder", nn.Flatten(), torch.zeros(2, 4, 4), 16)
        Traceback (most recent call last):
        ...
        ValueError: encoder: got features of shape (2, 4, 4) from Flatten, expected a tensor (N, 16)
    """
    if isinstance(features, Tensor):
        if features.ndim == 2 and width in (None, features.shape[1]):
            return
        got = f"features of shape {tuple(features.shape)}"
    else:
        got = f"a {type(features).__name__}"
    raise ValueError(f"{name}: got {got} from {type(module).__name__}, expected a tensor (N, {width or 'd'})")


def _check_module(name: str, module: object) -> None:
    if not isinstance(module, nn.Module):
        if isinstance(module, str):
            named = f", such as TorchvisionEncoder({module!r}) of nc_lightning.encoders" if name == "encoder" else ""
            raise ValueError(f"{name}: got {module!r}, expected a torch.nn.Module{named}")
        got = getattr(module, "__name__", type(module).__name__)
        raise ValueError(f"{name}: got {got}, expected a torch.nn.Module; wrap a function in one")
