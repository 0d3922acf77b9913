"""``nc-train``, as a function and as a class; imported lazily."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nc_lightning.cli.command_error import CommandError
from nc_lightning.cli.configs import config_folder, find_config, resolve_configs, shipped_configs

if TYPE_CHECKING:
    from nc_lightning.cli.train import ContrastiveCLI, main

__all__ = [
    "CommandError",
    "ContrastiveCLI",
    "config_folder",
    "find_config",
    "main",
    "resolve_configs",
    "shipped_configs",
]


if not TYPE_CHECKING:  # type checkers would take any misspelled name for one that it knows

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return getattr(import_module("nc_lightning.cli.train"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
