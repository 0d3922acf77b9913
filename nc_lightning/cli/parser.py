"""Parsers of commands and their errors on one line; standard library only, so that ``--help`` answers at once."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from nc_lightning import __version__
from nc_lightning.cli.command_error import CommandError
from nc_lightning.did_you_mean import did_you_mean

SUBCOMMANDS = ("fit", "validate", "test", "predict", "evaluate", "export")
"""Subcommands of ``nc-train``."""
_INVALID = re.compile(r"argument (\S+?): invalid choice: '([^']*)'")


class CommandParser(argparse.ArgumentParser):
    """Parser of a command with ``--version``, without abbreviated options, and with errors on one line.

    Example:
        >>> parser = CommandParser("nc-report")
        >>> _ = parser.add_argument("--output")
        >>> parser.suggestion("unrecognized arguments: --outptu x.html")
        '; did you mean --output?'
    """

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, allow_abbrev=False, **kwargs)
        self._choices: dict[str, Sequence[str]] = {}
        self.options = ["--help", "--version"]
        self.add_argument("--version", action="version", version=version_line(), help="show the version and exit")

    def add_argument(self, *args: Any, **kwargs: Any) -> argparse.Action:
        """Add an argument, and remember its names and choices for suggestions."""
        action = super().add_argument(*args, **kwargs)
        if hasattr(self, "options"):
            self.options += [name for name in action.option_strings if name.startswith("--")]
            self._choices["/".join(action.option_strings)] = [str(choice) for choice in action.choices or ()]
        return action

    def suggestion(self, message: str) -> str:
        """Return the end of an error message that names what was probably meant; empty if nothing is near."""
        if invalid := _INVALID.match(message):
            return did_you_mean(invalid[2], self._choices.get(invalid[1], ()))
        unknown = re.search(r"unrecognized arguments: .*?(--[\w-]+)", message)
        return did_you_mean(unknown[1], self.options) if unknown else ""

    def error(self, message: str) -> NoReturn:
        """Raise a `CommandError` instead of printing the usage and exiting."""
        raise CommandError(f"{message}{self.suggestion(message)}", self.prog)


def version_line() -> str:
    """Return the package's name and version.

    Example:
        >>> version_line().split()[0]
        'nc-lightning'
    """
    return f"nc-lightning {__version__}"


def check_subcommand(args: Sequence[str]) -> None:
    """Raise unless a command line of ``nc-train`` has a subcommand.

    Raises:
        ValueError: If there is none, or an unknown one.

    Example:
        >>> check_subcommand(["fitt", "--config", "hscl.yaml"])
        Traceback (most recent call last):
        ...
        ValueError: got 'fitt', expected fit, validate, test, predict, evaluate or export; did you mean fit?
    """
    expected = f"{', '.join(SUBCOMMANDS[:-1])} or {SUBCOMMANDS[-1]}"
    if not args:
        raise ValueError(f"got no subcommand, expected {expected}; nc-train --help explains them")
    if args[0] in ("-h", "--help") or any(argument in SUBCOMMANDS for argument in args):
        return
    if args[0].startswith("-"):
        raise ValueError(f"got no subcommand, expected {expected}, such as nc-train fit {' '.join(args)}")
    raise ValueError(f"got {args[0]!r}, expected {expected}{did_you_mean(args[0], SUBCOMMANDS)}")
