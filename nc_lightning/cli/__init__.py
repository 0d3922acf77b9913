"""``nc-train``, as a function and as a class."""

from nc_lightning.cli.configs import config_folder, find_config, resolve_configs, shipped_configs
from nc_lightning.cli.train import ContrastiveCLI, console_script, main

__all__ = [
    "ContrastiveCLI",
    "config_folder",
    "console_script",
    "find_config",
    "main",
    "resolve_configs",
    "shipped_configs",
]
