"""Look into the recipe of an augmentation, however it is put together."""

import functools
from collections.abc import Iterator
from typing import Any

from torch import nn


def normalization_in(recipe: Any) -> str | None:
    """Return the name of a step that normalizes, such as ``Normalize``, or None.

    Lists, modules, attributes of objects, partial functions and what a function closes over are searched.

    Example:
        >>> from torchvision.transforms import v2
        >>> normalization_in(v2.Compose([v2.RandomApply([v2.Normalize([0.5], [0.5])])]))
        'Normalize'
        >>> normalization_in(v2.RandomHorizontalFlip())
    """
    seen: set[int] = set()
    waiting = [recipe]
    while waiting:
        step = waiting.pop()
        if id(step) in seen:
            continue
        seen.add(id(step))
        for kind in type(step).__mro__:
            if kind.__name__.lower() in ("normalize", "normalise"):
                return type(step).__name__
        if getattr(step, "__name__", "") == "normalize":
            return "normalize"
        waiting += _parts(step)
    return None


def _parts(step: Any) -> Iterator[Any]:
    if isinstance(step, (list, tuple, set)):
        yield from step
    elif isinstance(step, dict):
        yield from step.values()
    elif isinstance(step, nn.Module):
        yield from step.children()
        yield from (value for name, value in vars(step).items() if not name.startswith("_"))
    elif isinstance(step, functools.partial):
        yield from (step.func, *step.args, *step.keywords.values())
    elif callable(step) and not isinstance(step, type):
        yield from (cell.cell_contents for cell in getattr(step, "__closure__", None) or ())
        yield from getattr(step, "__dict__", {}).values()
        if hasattr(step, "__self__"):
            yield step.__self__
