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


def as_markdown(result: dict[str, Any]) -> str:
    """Return the table of a result, with the command that made it below.

    Example:
        >>> rows = [{"N": 512, "seconds": 0.0213}]
        >>> print(as_markdown({"command": "python -m benchmarks.loss", "machine": "2 CPU threads", "rows": rows}))
        | N | seconds |
        | ---: | ---: |
        | 512 | 0.0213 |
        <BLANKLINE>
        From `python -m benchmarks.loss`, on 2 CPU threads.
    """
    rows = result["rows"]
    columns = list(rows[0])
    numbers = [all(isinstance(row.get(column), int | float | None) for row in rows) for column in columns]
    lines = [columns, ["---:" if number else "---" for number in numbers]]
    lines += [[_shown(row.get(column)) for column in columns] for row in rows]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{table}\n\nFrom `{result['command']}`, on {result['machine']}."


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


class ResultsTable(SphinxDirective):
    """``results-table loss.json``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the file."""
        path = Path(self.env.srcdir) / "results" / self.arguments[0]
        self.env.note_dependency(path)
        return self.parse_text_to_nodes(as_markdown(json.loads(path.read_text())))


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("results-table", ResultsTable)
