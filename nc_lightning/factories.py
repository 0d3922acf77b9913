"""Factories of optimizers and schedules that can be copied and sent to other processes."""

import functools
from collections.abc import Callable
from typing import Any


def without_parser(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return a factory that makes the same objects, without the command line it was read from.

    The factory that jsonargparse makes of a ``class_path`` holds its parser, and through it the Trainer and all that
    this has: a copy of the module would be a copy of everything, and fail at the first lock. Others are returned as
    they are.

    Example:
        >>> import torch
        >>> without_parser(torch.optim.SGD) is torch.optim.SGD
        True
    """
    if not isinstance(factory, functools.partial) or not factory.args:
        return factory
    *makers, made = factory.func, *factory.args
    of_parser = any(_module(maker).partition(".")[0] == "jsonargparse" for maker in makers)
    return functools.partial(made, **factory.keywords) if of_parser and isinstance(made, type) else factory


def _module(maker: Any) -> str:
    return str(getattr(maker, "__module__", type(maker).__module__))
