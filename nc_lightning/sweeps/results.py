"""Results of the cells of a sweep: a row for each cell, and rows averaged over seeds."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nc_lightning.geometry import measures
from nc_lightning.reports.record import RunRecord
from nc_lightning.reports.tables import LOSS_KEYS, format_value
from nc_lightning.sweeps.cell import STOPPED, CellFolder

HEADLINES = {
    **{f"geometry/train/{key}": key.replace("_", " ") for key in measures.HEADLINES},
    "loss/optimality_gap": "optimality gap",
    "geometry/val/ncc_accuracy": "accuracy (val)",
}
"""Measures of the Markdown table, and their names there."""


@dataclass
class Result:
    """The result of a cell.

    Attributes:
        name: Name of the cell.
        settings: Varied settings, including the seed.
        status: ``done``, ``failed``, ``stopped``, ``killed``, ``running`` or ``waiting``.
        error: Reason of a failure.
        seconds: Duration of training.
        record: Record of its latest run, if there is one.
        record_path: Path of the record.
    """

    name: str
    settings: dict[str, Any]
    status: str
    error: str = ""
    seconds: float = math.nan
    record: RunRecord | None = None
    record_path: Path | None = None

    @property
    def values(self) -> dict[str, float]:
        """Return the values of the last measurement, by their logged keys."""
        return self.record.latest("") if self.record is not None else {}

    @property
    def outcome(self) -> str:
        """Return the status, with the reason of a failure."""
        return f"{self.status}, {self.error}" if self.error else self.status


@dataclass
class Group:
    """Cells that differ only in their seeds; ``results`` has the finished ones."""

    settings: dict[str, Any]
    results: list[Result]

    @property
    def records(self) -> list[RunRecord]:
        """Return the records of the runs, one for each seed."""
        return [result.record for result in self.results if result.record is not None]

    def spread(self, key: str) -> tuple[float, float, float]:
        """Return the mean, minimum and maximum over the seeds; NaN if nothing was measured."""
        values = [value for result in self.results if not math.isnan(value := result.values.get(key, math.nan))]
        if not values:
            return math.nan, math.nan, math.nan
        return sum(values) / len(values), min(values), max(values)


def group_by_settings(results: Sequence[Result]) -> list[Group]:
    """Return the finished cells, grouped over seeds, in their order."""
    groups: dict[str, Group] = {}
    for result in results:
        settings = {key: value for key, value in result.settings.items() if key != "seed"}
        group = groups.setdefault(repr(settings), Group(settings, []))
        if result.status == "done":
            group.results.append(result)
    return list(groups.values())


def results_csv(results: Sequence[Result], axes: Sequence[str]) -> str:
    """Return a CSV table with a row for each cell and every measure of its last measurement.

    Example:
        >>> cell = Result("scl-seed=0", {"objective": "scl", "seed": 0}, "done", "", 2.0)
        >>> print(results_csv([cell], ["objective"]), end="")
        objective,seed,status,seconds,epochs,error
        scl,0,done,2.0,,
    """
    keys = sorted({key for result in results for key in result.values if "/" in key}, key=_order)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*axes, "seed", "status", "seconds", "epochs", *keys, "error"])
    for result in results:
        settings = [result.settings.get(axis, "") for axis in (*axes, "seed")]
        numbers = [_number(result.values.get(key)) for key in ("epoch", *keys)]
        writer.writerow([*settings, result.status, _number(result.seconds), *numbers, result.error])
    return out.getvalue()


def results_rows(results: Sequence[Result], axes: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return the header and rows of the table of headline measures: means over seeds, with the range in parentheses."""
    groups = group_by_settings(results)
    keys = [key for key in HEADLINES if any(not math.isnan(group.spread(key)[0]) for group in groups)]
    head = [*axes, "seeds", *(HEADLINES[key] for key in keys), "seconds"]
    rows = []
    for group in groups:
        settings = [str(group.settings.get(axis, "")) for axis in axes]
        seconds = [result.seconds for result in group.results]
        time = f"{sum(seconds) / len(seconds):.0f}" if seconds else "-"
        rows.append([*settings, str(len(group.results)), *(show_spread(*group.spread(key)) for key in keys), time])
    return head, rows


def results_markdown(results: Sequence[Result], axes: Sequence[str], title: str) -> str:
    """Return the table of headline measures in Markdown, followed by a list of unfinished cells."""
    head, rows = results_rows(results, axes)
    lines = [f"# {title}", "", f"{how_many(results)}. Means over seeds, the range in parentheses.", ""]
    lines += [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]
    left = [f"- `{result.name}`: {result.outcome}" for result in undone(results)]
    return "\n".join([*lines, *(["", "Not done:", "", *left] if left else [])]) + "\n"


def how_many(results: Sequence[Result]) -> str:
    """Return a line with the number of cells and how many have each status.

    Example:
        >>> how_many([Result("a", {}, "done"), Result("b", {}, "failed")])
        '2 cells: 1 done, 1 failed'
    """
    counts = {status: sum(result.status == status for result in results) for status in _STATUS}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"{len(results)} cell{'s' * (len(results) != 1)}: {summary}"


def undone(results: Sequence[Result]) -> list[Result]:
    """Return the cells that are not done."""
    return [result for result in results if result.status != "done"]


_STATUS = ("done", "failed", "stopped", "killed", "running", "waiting")


def read_result(folder: CellFolder) -> Result:
    """Return the result of a cell."""
    ending, cell = folder.ending(), folder.cell
    if ending is None:
        return Result(cell.name, cell.settings, _status_without_ending(folder))
    status = "done" if ending.exit_code == 0 else "stopped" if ending.exit_code in STOPPED else "failed"
    runs = folder.record(), folder.record_path()
    return Result(cell.name, cell.settings, status, ending.error, ending.seconds, *runs)


def _status_without_ending(folder: CellFolder) -> str:
    if not folder.path.is_dir():
        return "waiting"
    with folder.locked() as mine:
        return "running" if not mine else "killed" if folder.log.is_file() else "waiting"


def _order(key: str) -> tuple[int, str]:
    return (LOSS_KEYS.index(key) if key in LOSS_KEYS else len(LOSS_KEYS), key)


def _number(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def show_spread(mean: float, least: float, greatest: float) -> str:
    """Return a mean and its range as text.

    Example:
        >>> show_spread(4.0, 3.0, 5.0), show_spread(4.0, 4.0, 4.0)
        ('4 (3 to 5)', '4')
    """
    if math.isnan(mean):
        return "-"
    if least == greatest:
        return _short(mean)
    return f"{_short(mean)} ({_short(least)} to {_short(greatest)})"


def _short(value: float) -> str:
    return format_value(float(f"{value:.4g}"))
