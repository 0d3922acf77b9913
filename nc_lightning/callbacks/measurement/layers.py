"""Features of several layers of a module from one forward pass."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from nc_lightning.callbacks.measurement.features import eagerly, one_tensor
from nc_lightning.checks import separated_names
from nc_lightning.did_you_mean import nearest

OUTPUT = "z"
"""Name of the output of the whole module, next to the names of its submodules."""


def layer_features(module: nn.Module, x: Tensor, layers: Sequence[str] | str) -> dict[str, Tensor]:
    """Compute the features of several layers in one forward pass, by the names of the layers.

    Args:
        module: Module that is called once.
        x: Inputs (N, ...).
        layers: Names of submodules such as ``encoder`` or ``projector.0``, and ``z`` for the output of the module; as a
            list or separated by commas.

    Returns:
        Features (N, d) of each layer; maps are averaged over their positions, see `pooled`.

    Raises:
        ValueError: If there is no such layer (the message has the nearest names), the forward pass does not run it
            exactly once, or its output is ambiguous.

    Example:
        >>> import torch
        >>> module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> {name: tuple(h.shape) for name, h in layer_features(module, torch.ones(5, 1, 8, 8), ["0", "z"]).items()}
        {'0': (5, 4), 'z': (5, 2)}
    """
    names = separated_names("layers", layers)
    with caught_layers(module, names, len(x)) as caught:
        output = module(x)
    return features_of_call(module, caught, output, names, len(x))


@contextmanager
def caught_layers(module: nn.Module, layers: Sequence[str], num_samples: int) -> Iterator[Mapping[str, list[Tensor]]]:
    """Collect the features of the named submodules at each call within the context, in the order of execution.

    Raises:
        ValueError: If there is no such layer, or its output is ambiguous.
    """
    check_layers("layers", module, layers)
    caught: dict[str, list[Tensor]] = {}
    with ExitStack() as stack:
        hooked = [name for name in layers if not _is_output(module, name)]
        if hooked:
            stack.enter_context(eagerly())
        for name in hooked:

            def catch(_: nn.Module, __: Any, output: Any, name: str = name) -> None:
                caught.setdefault(name, []).append(_features(name, output, num_samples))

            stack.callback(module.get_submodule(name).register_forward_hook(catch).remove)
        yield caught


def features_of_call(
    module: nn.Module, caught: Mapping[str, list[Tensor]], output: Any, layers: Sequence[str], num_samples: int
) -> dict[str, Tensor]:
    """Return the features of each layer after one call of the module, from what was caught and its output.

    Raises:
        ValueError: If the forward pass did not run a layer exactly once.
    """
    found = {}
    for name in layers:
        calls = [_features(name, output, num_samples)] if _is_output(module, name) else caught.get(name, [])
        if len(calls) != 1:
            raise ValueError(
                f"layers: got {name!r}, which the forward pass of {type(module).__name__} runs {len(calls)} times, "
                "expected once"
            )
        found[name] = calls[0]
    return found


def check_layers(argument: str, module: nn.Module, layers: Sequence[str]) -> None:
    """Refuse names that are no submodules.

    Raises:
        ValueError: With the nearest names there are.

    Example:
        >>> check_layers("layers", nn.ModuleDict({"encoder": nn.Flatten()}), ["encode"])
        Traceback (most recent call last):
        ...
        ValueError: layers: got 'encode', expected z or a submodule of ModuleDict, such as encoder
    """
    names = [key for key, _ in module.named_modules() if key]
    for name in layers:
        if name == OUTPUT or name in names:
            continue
        near = nearest(name, names, count=5, cutoff=0.5) or [key for key in names if "." not in key]
        raise ValueError(
            f"{argument}: got {name!r}, expected {OUTPUT} or a submodule of {type(module).__name__}, such as "
            f"{', '.join(near) or 'none'}"
        )


def pooled(features: Tensor) -> Tensor:
    """Average features over positions: maps (N, d, H, W) over H and W, tokens (N, T, d) over T.

    Example:
        >>> import torch
        >>> pooled(torch.ones(2, 3, 4, 4)).shape, pooled(torch.ones(2, 7, 3)).shape, pooled(torch.ones(2, 3)).shape
        (torch.Size([2, 3]), torch.Size([2, 3]), torch.Size([2, 3]))
    """
    if features.ndim == 3:
        return features.mean(1)
    return features.flatten(2).mean(2) if features.ndim > 3 else features


def _is_output(module: nn.Module, name: str) -> bool:
    return name == OUTPUT and name not in dict(module.named_modules())


def _features(name: str, output: Any, num_samples: int) -> Tensor:
    try:
        features = pooled(one_tensor(output, num_samples)).detach()
    except ValueError as error:
        raise ValueError(f"layers: {name!r}: {error}") from error
    if features.ndim != 2 or len(features) != num_samples or not features.is_floating_point():
        raise ValueError(
            f"layers: got an output {tuple(features.shape)} of {name!r} for {num_samples} inputs, expected (N, d)"
        )
    # A copy: the next layer may work in place.
    return features.clone()
