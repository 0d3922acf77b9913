"""The help of a command, as it prints it."""

import os
import subprocess
import sys
from functools import cache

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


@cache
def help_of(command: str, *arguments: str) -> str:
    """Return what a command prints; one process for each, as the parser of ``nc-train`` exits by itself."""
    function = command.replace("-", "_")
    code = f"import sys; from nc_lightning.cli.commands import {function}; sys.argv[0] = {command!r}; {function}()"
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    run = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(f"{command} {' '.join(arguments)}: {run.stderr}")
    return run.stdout.rstrip()


class CommandHelp(SphinxDirective):
    """``command-help nc-train fit --help``: the command, and what it answers."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Call the command."""
        shown = nodes.literal_block("", f"$ {self.arguments[0]}\n{help_of(*self.arguments[0].split())}")
        shown["language"] = "text"
        shown["classes"] = ["help"]
        return [shown]


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
