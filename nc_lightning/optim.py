"""Optimizers when resuming: settings come from the configuration, progress from the checkpoint."""

import functools
import warnings
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from nc_lightning.private_apis.torch import SCHEDULE_RESULTS

_CYCLED = ("lr", "momentum", "betas")
"""Settings of an optimizer that torch's schedules change."""
_PROGRESS = ("last_epoch", "best", "num_bad_epochs", "cooldown_counter")
"""State of `ReduceLROnPlateau`, as opposed to its settings."""
_DERIVED = {"base_lrs", *SCHEDULE_RESULTS}
"""Values that schedules derive from their settings."""
_SHOWN = 4


class Configured(NamedTuple):
    """Settings with which an optimizer and its schedule were made.

    Attributes:
        optimizer: Class of the optimizer.
        groups: Settings of its parameter groups, before a schedule changed them.
        scheduler: Class and settings of the schedule; empty without one.
    """

    optimizer: str
    groups: list[dict[str, Any]]
    scheduler: dict[str, Any]

    def plain(self) -> dict[str, Any]:
        """Return the settings in plain types, for a checkpoint."""
        return {"optimizer": self.optimizer, "groups": _plain(self.groups), "scheduler": self.scheduler}


def group_settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return a copy of the settings of each parameter group, without the parameters.

    Example:
        >>> group_settings(torch.optim.Adagrad([torch.zeros(1)], lr=0.1))[0]["lr"]
        0.1
    """
    return [deepcopy({k: v for k, v in group.items() if k != "params"}) for group in optimizer.param_groups]


def configured(optimizer: Optimizer, groups: list[dict[str, Any]], scheduler: Any) -> Configured:
    """Describe an optimizer, by its `group_settings` before the schedule was made, and its schedule, if any."""
    return Configured(_class(optimizer), groups, {} if scheduler is None else _plain(scheduler))


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """Group the parameters: those with weight decay, and biases and scales without.

    Example:
        >>> [len(group["params"]) for group in parameter_groups(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))]
        [1, 3]
    """
    decayed = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim > 1]
    others = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def default_lr(make_optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]) -> float:
    """Return the initial step size of an optimizer that is made by a function.

    Example:
        >>> default_lr(torch.optim.Adam)
        0.001
    """
    return float(make_optimizer([nn.Parameter(torch.zeros(1, 1))]).param_groups[0]["lr"])


def check_same_optimizer(trained_with: str, optimizer: Optimizer, argument: str = "optimizer") -> None:
    """Refuse to resume with another class of optimizer, which cannot use the moments in the checkpoint.

    Raises:
        ValueError: If the checkpoint was trained with another class of optimizer.

    Example:
        >>> check_same_optimizer("torch.optim.sgd.SGD", torch.optim.Adam([torch.zeros(1)]))
        Traceback (most recent call last):
        ...
        ValueError: optimizer: got Adam for a checkpoint that was trained with SGD, expected SGD to resume it
    """
    if trained_with != _class(optimizer):
        kind = trained_with.rpartition(".")[2]
        raise ValueError(
            f"{argument}: got {type(optimizer).__name__} for a checkpoint that was trained with {kind}, expected "
            f"{kind} to resume it"
        )


def resume_settings(
    was: dict[str, Any], now: Configured, optimizer: Optimizer, argument: str = "optimizer"
) -> list[str]:
    """Apply the configured settings to an optimizer whose state was loaded from a checkpoint.

    Settings that have not changed keep their values in the checkpoint.

    Args:
        was: Settings with which the checkpoint was trained, `Configured` in plain types.
        now: Settings of this run.
        optimizer: Optimizer with the loaded state; groups that were added later are not changed.
        argument: Name of the optimizer in messages.

    Returns:
        Changed settings, such as "lr 0.1 -> 0.2".

    Raises:
        ValueError: If the class of the optimizer has changed.
    """
    check_same_optimizer(was["optimizer"], optimizer, argument)
    changes = _changes(was, now.plain())
    if changes:
        reduced = _reductions(was, now, optimizer)
        for group, settings, before in zip(optimizer.param_groups, now.groups, was["groups"], strict=False):
            changed = {k: v for k, v in settings.items() if k in _CYCLED or _plain(v) != before.get(k)}
            group.update(deepcopy(changed))
        for group, reduction in zip(optimizer.param_groups, reduced, strict=False):
            group["lr"] = group["lr"] * reduction
    return changes


def resumed_schedule(scheduler: Any, was: dict[str, Any], state: dict[str, Any], ticks: int) -> Any:
    """Advance a new schedule to the position of a resumed run, after ``ticks`` steps or epochs.

    It was made for an optimizer with `resume_settings`; ``was`` and ``state`` are its settings and state in the
    checkpoint.
    """
    if isinstance(scheduler, ReduceLROnPlateau):
        if _watches(was) == _watches(_plain(scheduler)):
            vars(scheduler).update({key: state[key] for key in _PROGRESS})
        return scheduler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch expects optimizer steps between schedule steps
        for _ in range(ticks):
            scheduler.step()
    return scheduler


def _watches(settings: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(settings.get(key) for key in ("class", "monitor", "mode"))


def _reductions(was: dict[str, Any], now: Configured, optimizer: Optimizer) -> list[float]:
    """Return how much `ReduceLROnPlateau` has scaled each group's step size; empty for other schedules."""
    if "num_bad_epochs" not in was["scheduler"] or _watches(was["scheduler"]) != _watches(now.scheduler):
        return []
    pairs = zip(optimizer.param_groups, was["groups"], strict=False)
    return [float(group["lr"]) / before["lr"] for group, before in pairs]


def tell(changes: list[str], argument: str = "optimizer") -> None:
    """Print the settings that have changed since the checkpoint, on one line."""
    if changes:
        more = f", and {len(changes) - _SHOWN} more" if len(changes) > _SHOWN else ""
        rank_zero_info(f"{argument}: resumed with new settings, {', '.join(changes[:_SHOWN])}{more}")


def _class(of: Any) -> str:
    return f"{type(of).__module__}.{type(of).__qualname__}"


def _plain(value: Any) -> Any:
    """Convert settings to plain types; functions and other objects to the name of their class."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (LRScheduler, ReduceLROnPlateau)):
        settings = {key: _plain(item) for key, item in vars(value).items() if key != "optimizer"}
        return {"class": _class(value), **settings}
    return type(value).__name__


def _changes(was: Any, now: Any, name: str = "") -> list[str]:
    """List the differences of nested settings by their innermost names, each once."""
    if isinstance(was, dict) and isinstance(now, dict):
        if not was or not now:
            pairs = [(was.get("class", None), now.get("class", None), "lr_scheduler")] if was or now else []
        else:
            keys = was.keys() & now.keys() - _DERIVED  # keys differ between versions of torch
            pairs = [(was.get(key), now.get(key), key) for key in sorted(keys)]
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        pairs = [(*pair, name) for pair in zip(was, now, strict=True)]
    else:
        pairs = []
        if was != now:
            return [f"{'lr_scheduler' if name == 'class' else name} {_shown(was)} -> {_shown(now)}"]
    return list(dict.fromkeys(change for pair in pairs for change in _changes(*pair)))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value.rpartition(".")[2]
    return f"{value:g}" if isinstance(value, float) else str(value)


def without_parser(factory: Callable[..., Any]) -> Callable[..., Any]:
    """Return a factory that makes the same objects, without a reference to the command line parser.

    The factory that jsonargparse makes from a ``class_path`` references its parser and through it the Trainer, so that
    copying the module would copy everything, and fail at the first lock. Other factories are returned unchanged.

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
