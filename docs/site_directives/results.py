"""Tables from result files, so that no number of the documentation is written by hand.

A file in docs/results is what a benchmark or a plan wrote with ``--json``: an object with ``command`` (the line that
wrote it), ``machine`` (what it ran on, in words) and ``rows``, a list of objects with the same keys, the columns.
"""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def as_markdown(result: dict[str, Any], columns: list[str] | None = None) -> str:
    """Return the table of a result, with the command that made it below.

    Example:
        >>> print(as_markdown({"command": "python -m benchmarks.loss", "rows": [{"N": 512, "seconds": 0.0213}]}))
        | N | seconds |
        | ---: | ---: |
        | 512 | 0.0213 |
        <BLANKLINE>
        From `python -m benchmarks.loss`.
    """
    rows = result["rows"]
    columns = columns or list(rows[0])
    numbers = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    lines = [columns, ["---:" if number else "---" for number in numbers]]
    lines += [[_shown(row.get(column)) for column in columns] for row in rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    machine = f", on {result['machine']}" if "machine" in result else ""
    return f"{table}\n\nFrom `{result['command']}`{machine}."


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class ResultsTable(SphinxDirective):
    """``results-table loss.json``; the option ``columns`` names some of them, in their order, separated by commas."""

    required_arguments = 1
    option_spec = {"columns": str}

    def run(self) -> list[nodes.Node]:
        """Read the file."""
        path = Path(self.env.srcdir) / "results" / self.arguments[0]
        self.env.note_dependency(path)
        columns = [name.strip() for name in self.options["columns"].split(",")] if "columns" in self.options else None
        return self.parse_text_to_nodes(as_markdown(json.loads(path.read_text()), columns))


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("results-table", ResultsTable)
