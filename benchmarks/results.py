"""Result files of the benchmarks, from which the documentation renders its tables."""

import argparse
import json
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add the command-line option for the result file."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table to this file")


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return median and range.

    Example:
        >>> spread([2.0, 1.0, 4.0])
        '2.00 (1.00 to 4.00)'
    """
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def write(path: Path | None, machine: str, rows: Sequence[Mapping[str, float | str | None]]) -> None:
    """Write the rows with the command that made them; nothing without a path."""
    if path is None:
        return
    arguments = sys.argv[1:]
    at = arguments.index("--json") if "--json" in arguments else len(arguments)
    command = shlex.join(
        ["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments[:at], *arguments[at + 2 :]]
    )
    result = {"command": command, "machine": f"{machine}, torch {torch.__version__}", "rows": list(rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
