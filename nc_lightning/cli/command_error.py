"""The error that a command raises on bad input, and its one line in a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class CommandError(Exception):
    """Bad input of a command: ``main([...])`` raises it, and the console script prints its line and exits.

    Args:
        message: One line: the argument, what was got, and what is expected.
        command: Name of the command.
        code: Exit code of the console script.

    Example:
        >>> CommandError("FILE: got 'no.npz', expected a file that exists", "nc-measure").line
        "nc-measure: error: FILE: got 'no.npz', expected a file that exists"
    """

    def __init__(self, message: str, command: str, code: int = 2) -> None:
        super().__init__(message)
        self.command, self.code = command, code

    @property
    def line(self) -> str:
        """The line that the console script prints."""
        return f"{self.command}: error: {self}"

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows instead of a traceback."""
        return [self.line]


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print the line of a `CommandError` and exit with its code, as console scripts do.

    Raises:
        SystemExit: Instead of the error.

    Example:
        >>> with exit_on_error():
        ...     raise CommandError("FILE: got 'no.npz'", "nc-measure")
        Traceback (most recent call last):
        ...
        SystemExit: 2
    """
    try:
        yield
    except CommandError as error:
        # A single write: several processes print at the same time.
        print(f"{error.line}\n", end="", file=sys.stderr)
        raise SystemExit(error.code) from None
