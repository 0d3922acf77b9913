"""Features of a module that are measured, and the classifier that they are compared with."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nc_lightning.batch import concatenate_views
from nc_lightning.geometry.classifier import check_classifier

FEATURE_KEYS = ("z", "features", "feature", "embeddings", "embedding", "pooler_output", "image_embeds")
"""Names that features may have in the output of a module."""


class Measured(NamedTuple):
    """Sources of the inputs, labels, features and classifier of a measurement.

    Attributes:
        features: Submodule whose output is measured, or its name, or a callable (module, inputs) -> features; None for
            the output of the module or, with a classifier, for the classifier's input.
        classifier: Linear layer of the module, or its name; None for that of an `OnlineLinearProbe`.
        batch: Callable (batch) -> (inputs, labels); None for the formats of `nc_lightning.batch.read_batch`.
        layers: Names of submodules whose features are measured in the same forward pass.

    Example:
        >>> import torch
        >>> module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
        >>> x = torch.ones(5, 4)
        >>> bool((Measured(features="0").of(module, x) == Measured(classifier="1").of(module, x)).all())
        True
    """

    features: str | Callable[..., Any] | None = None
    classifier: str | Callable[..., Any] | None = None
    batch: Callable[[Any], Any] | None = None
    layers: tuple[str, ...] = ()

    def read(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the inputs (V N, ...) and labels (V N,) of a batch of V views."""
        try:
            x, labels, _ = concatenate_views(batch if self.batch is None else self.batch(batch))
        except ValueError as error:
            raise ValueError(f"{error}; give batch=, a callable (batch) -> (x, labels)") from error
        return x, labels

    def of(self, module: nn.Module, x: Tensor) -> Tensor:
        """Return the features (N, d) of inputs (N, ...).

        Raises:
            ValueError: If there is no such layer, the forward pass does not run it exactly once, or its output is
                ambiguous.
        """
        if callable(self.features) and not isinstance(self.features, nn.Module):
            return one_tensor(self.features(module, x), len(x))
        name, layer = ("features", self.features) if self.features is not None else ("classifier", self.classifier)
        if layer is None:
            return one_tensor(module(x), len(x))
        with _caught(module, name, layer, len(x)) as caught:
            module(x)
        if len(caught) != 1:
            raise ValueError(
                f"{name}: got {_shown(layer)}, which the forward pass of {type(module).__name__} runs {len(caught)} "
                "times, expected once; give features=, a callable (module, x) -> z"
            )
        return caught[0]

    def linear(self, module: nn.Module, num_classes: int, feature_dim: int) -> Any:
        """Return the classifier of the module, with ``weight`` and ``bias``; None if none was named.

        Raises:
            ValueError: If it does not fit the classes and the features.
        """
        if self.classifier is None:
            return None
        classifier: Any = _layer(module, "classifier", self.classifier)
        weight = getattr(classifier, "weight", None)
        if not isinstance(weight, Tensor):
            raise ValueError(
                f"classifier: got {_shown(self.classifier)}, a {type(classifier).__name__} without weight, expected a "
                "linear layer"
            )
        try:
            check_classifier(weight.detach(), None, num_classes, feature_dim)
        except ValueError as error:
            raise ValueError(
                f"classifier: got {_shown(self.classifier)} for other features or classes: {error}"
            ) from error
        return classifier

    def optimal_gram(self, module: nn.Module) -> Tensor | None:
        """Return the Gram matrix of the class means at the minimum of the module's loss, its ``optimal_gram``.

        None if that is neural collapse or unknown, or if other features are measured than those of the loss.
        """
        own = self.features is None and self.classifier is None
        gram: Tensor | None = getattr(module, "optimal_gram", None) if own else None
        return gram


def one_tensor(output: Any, num_samples: int) -> Tensor:
    """Return the features in an output: a tensor itself, one of `FEATURE_KEYS`, or the only (N, d) there is.

    Maps of one pixel (N, d, 1, 1), the result of global pooling, are flattened to (N, d). An output that is no tensor
    is a tuple, dict, dataclass or other mapping with tensors.

    Raises:
        ValueError: If no tensor, or more than one, can be the features.

    Example:
        >>> import torch
        >>> one_tensor({"logits": torch.zeros(2, 5), "features": torch.zeros(2, 3, 1, 1)}, 2).shape
        torch.Size([2, 3])
    """
    if isinstance(output, Tensor):
        pooled = output.ndim > 2 and output.shape[2:].numel() == 1
        return output.flatten(1) if pooled else output
    parts = _parts(output)
    named = [part for key, part in parts.items() if key in FEATURE_KEYS and isinstance(part, Tensor)]
    found = named or [part for part in parts.values() if _is_features(part, num_samples)]
    if len(found) != 1:
        shapes = ", ".join(f"{key}: {tuple(v.shape)}" for key, v in parts.items() if isinstance(v, Tensor))
        raise ValueError(
            f"features: got a {type(output).__name__} ({shapes or 'no tensor'}), expected one tensor (N, d); give "
            "features=, the name of a layer or a callable (module, x) -> z"
        )
    return one_tensor(found[0], num_samples)


def eagerly() -> AbstractContextManager[Any]:
    """Return a context in which compiled modules run uncompiled; before torch 2.6, one that changes nothing.

    Compiled code skips hooks, or is compiled again for each new one.
    """
    set_stance = getattr(torch.compiler, "set_stance", None)
    return nullcontext() if set_stance is None else set_stance("force_eager")


def look_like_logits(module: nn.Module, width: int, num_classes: int) -> str | None:
    """Return a warning for a module whose forward pass returns one column per class; None for any other.

    Example:
        >>> look_like_logits(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), 2, 2)
        "GeometryMonitor: got 2 columns for 2 classes from Sequential, which look like logits and are measured as \
features; expected those of a layer: pass classifier='1' to measure its input, or features='name of the encoder'"
    """
    if width != num_classes:
        return None
    linear = [name for name, part in module.named_modules() if getattr(part, "out_features", None) == num_classes]
    return (
        f"GeometryMonitor: got {width} columns for {num_classes} classes from {type(module).__name__}, which look like "
        f"logits and are measured as features; expected those of a layer: pass classifier={(linear or ['name'])[-1]!r} "
        "to measure its input, or features='name of the encoder'"
    )


def _parts(output: Any) -> dict[Any, Any]:
    if hasattr(output, "_asdict"):
        return dict(output._asdict())
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, (tuple, list)):
        return dict(enumerate(output))
    if is_dataclass(output):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return dict(getattr(output, "__dict__", {}))


def _is_features(part: Any, num_samples: int) -> bool:
    if not isinstance(part, Tensor) or not part.is_floating_point() or part.ndim < 2 or len(part) != num_samples:
        return False
    return part.shape[2:].numel() == 1


@contextmanager
def _caught(module: nn.Module, name: str, layer: Any, num_samples: int) -> Iterator[list[Tensor]]:
    """Catch the features at each call of a layer: its output, or the input of a classifier."""
    caught: list[Tensor] = []

    def catch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if name == "classifier":
            output = args[0] if args else next(iter(kwargs.values()))
        # A copy: the next layer may work in place.
        caught.append(one_tensor(output, num_samples).clone())

    handle = _layer(module, name, layer).register_forward_hook(catch, with_kwargs=True)
    try:
        with eagerly():
            yield caught
    finally:
        handle.remove()


def _layer(module: nn.Module, name: str, layer: Any) -> nn.Module:
    if isinstance(layer, nn.Module):
        return layer
    names = [key for key, _ in module.named_modules() if key]
    if layer not in names:
        names_below = ", ".join([key for key in names if "." not in key]) or "none"
        raise ValueError(
            f"{name}: got {layer!r}, expected the name of a submodule of {type(module).__name__}, such as {names_below}"
        )
    return module.get_submodule(layer)


def _shown(layer: Any) -> str:
    return repr(layer) if isinstance(layer, str) else f"a {type(layer).__name__}"
