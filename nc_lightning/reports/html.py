"""The report of one or several runs: a single self-contained HTML file."""

import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from nc_lightning.geometry import ideals_met, optimum_met
from nc_lightning.plots import to_png, trajectory_figure
from nc_lightning.plots.figures import matrices_figure
from nc_lightning.plots.panels import order_by_similarity
from nc_lightning.reports.curves import SETS, charts
from nc_lightning.reports.differences import options, settings_table, split_by_difference
from nc_lightning.reports.layers import by_layer
from nc_lightning.reports.page import Cell, Table, render
from nc_lightning.reports.record import RunRecord
from nc_lightning.reports.tables import (
    accuracies_of,
    evaluation_rows,
    format_value,
    goal_texts,
    losses_of,
    set_of,
    size_text,
)


def report_html(records: Sequence[RunRecord]) -> str:
    """Return the report page: settings, curves, the geometry with its ideals, figures, the configuration.

    For several runs, the settings that differ come first, and those that are the same in all are folded at the end.

    Args:
        records: Record of one run, or of several to compare.

    Returns:
        A complete HTML document without external resources.

    Raises:
        ValueError: If there is no record.

    Example:
        >>> page = report_html([RunRecord("mine", 10, 9, history=[{"geometry/train/nc1": 0.001}])])
        >>> page.startswith("<!doctype html>"), "src=" in page
        (True, False)
    """
    if not records:
        raise ValueError("records: got none, expected at least one run")
    sizes = dict.fromkeys((record.num_classes, record.feature_dim) for record in records)
    several = len(records) > 1
    differing, same = split_by_difference(settings_table(records)) if several else (settings_table(records), None)
    return render(
        "run",
        f"Geometry of {records[0].name}" if len(records) == 1 else f"Geometry of {len(records)} runs",
        records=records,
        sizes="; ".join(size_text(*size) for size in sizes),
        settings=differing,
        options=options(records) if several else None,
        same=same,
        charts=charts(records),
        geometry=_geometry(records),
        layers=_layers(records),
        own_ideals=any(record.own_ideals for record in records),
        evaluation=_evaluation(records),
        figures=_compared_figures(records),
    )


def _geometry(records: Sequence[RunRecord]) -> Table:
    """Return the measures of each set of each run, next to the ideals of its loss if those are its own."""
    columns = [column for record in records for column in _columns(record, several=len(records) > 1)]
    keys = dict.fromkeys(key for column in columns if not column.goals for key in column.cells)
    logged = [losses_of(r.latest("")) | accuracies_of(r.latest("")) for r in records]
    rows: list[list[Cell]] = []
    for key in keys:
        shown = [column.cells.get(key, "" if column.goals else "-") for column in columns]
        rows.append([key, *shown, _goals(key, records)])
    for key in dict.fromkeys(key for values in logged for key in values):
        rows.append([key, *(column.logged_value(key) for column in columns), _goals(key, records)])
    last = "NC" if any(record.own_ideals for record in records) else "ideal"
    return ["measure", *(column.head for column in columns), last], rows


def _layers(records: Sequence[RunRecord]) -> Table | None:
    """Return the measures of each layer and set of each run; None if no run has measured a layer."""
    columns = [
        column
        for record in records
        if len(record.layers) > 1
        for layer, dim in record.layers.items()
        for column in _columns_of_layer(record, layer, dim, f"{record.name}, " if len(records) > 1 else "")
    ]
    if not columns:
        return None
    goals = {key: _goals_of_layers(key, records) for key in dict.fromkeys(key for c in columns for key in c.cells)}
    rows: list[list[Cell]] = [
        [key, *(column.cells.get(key, "") for column in columns), goal] for key, goal in goals.items()
    ]
    return ["measure", *(column.head for column in columns), "NC"], rows


class _Column(NamedTuple):
    """A column of the table of measures: a set, or the ideals of the loss (``goals``)."""

    head: str
    cells: dict[str, Cell]
    logged: dict[str, float]
    goals: bool = False

    def logged_value(self, key: str) -> Cell:
        """Return the cell of a loss or an accuracy: empty in the columns of other sets."""
        if self.goals:
            return self.cells.get(key, "")
        return format_value(self.logged[key]) if key in self.logged else ""


def _columns(record: RunRecord, several: bool) -> list[_Column]:
    prefix = f"{record.name}, " if several else ""
    own, columns = record.own_ideals, list[_Column]()
    logged = losses_of(record.latest("")) | accuracies_of(record.latest(""))
    for name in SETS:
        of_set = {key: value for key, value in logged.items() if set_of(key) == name and not math.isnan(value)}
        measured = record.latest(f"geometry/{name}/")
        if measured or of_set:
            met = optimum_met(measured, own) if own else ideals_met(measured, record.num_classes, record.feature_dim)
            cells = {key: (format_value(value), met.get(key, False)) for key, value in measured.items()}
            columns.append(_Column(prefix + name, {**cells}, of_set))
    if columns and own:
        columns.append(_Column(f"{prefix}this loss", {key: goal.text for key, goal in own.items()}, {}, goals=True))
    return columns


def _evaluation(records: Sequence[RunRecord]) -> Table | None:
    """Return the results of ``nc-train evaluate``, with a column for each layer of each run; None if there are none."""
    several = len(records) > 1
    columns = {
        f"{record.name}, {layer}" if several else layer: values
        for record in records
        for layer, values in record.evaluation.items()
    }
    rows: list[list[Cell]] = [[*row] for row in evaluation_rows(columns)]
    return (["", *columns], rows) if columns else None


def _columns_of_layer(record: RunRecord, layer: str, dim: int, prefix: str) -> list[_Column]:
    sets = by_layer(record.latest("")).get(layer, {})
    columns = []
    for name in SETS:
        if measured := sets.get(name):
            met = ideals_met(measured, record.num_classes, dim)
            cells = {key: (format_value(value), met.get(key, False)) for key, value in measured.items()}
            columns.append(_Column(f"{prefix}{layer} ({dim}), {name}", {**cells}, {}))
    return columns


def _goals_of_layers(key: str, records: Sequence[RunRecord]) -> str:
    sizes = dict.fromkeys((record.num_classes, dim) for record in records for dim in record.layers.values())
    return " or ".join(filter(None, dict.fromkeys(goal_texts(key, *size)[0] for size in sizes)))


def _goals(key: str, records: Sequence[RunRecord]) -> str:
    goals = dict.fromkeys(goal_texts(key, r.num_classes, r.feature_dim, r.own_ideals)[-1] for r in records)
    return " or ".join(filter(None, goals))


def _compared_figures(records: Sequence[RunRecord]) -> list[list[tuple[bytes, str, str]]]:
    """Return rows of (picture, name, caption): each figure of all runs, and the trajectories of runs per ideal rank."""
    if len(records) == 1:
        return []
    figures = [record.figures | in_one_order for record, in_one_order in zip(records, _cosines(records), strict=True)]
    names = list(dict.fromkeys(name for shown in figures for name in shown))
    rows = [
        [(own[name], f"{name} of {r.name}", r.name) for r, own in zip(records, figures, strict=True) if name in own]
        for name in names
    ]
    for rank, group in groupby(sorted(records, key=_ideal_rank), key=_ideal_rank):
        paths = {record.name: record.path("train") for record in group}
        png = to_png(trajectory_figure(paths, rank))
        rows.append([(png, "trajectories of the runs", "all, training sets")])
    return rows


def _cosines(records: Sequence[RunRecord]) -> list[dict[str, bytes]]:
    """Return the cosines of each run by their name, drawn in one order of the classes for all runs that have the same.

    Empty for a run whose classes are those of no other, or unknown.
    """
    redrawn: list[dict[str, bytes]] = [{} for _ in records]
    by_classes: dict[tuple[int, ...], list[int]] = {}
    for index, record in enumerate(records):
        if record.cosines:
            by_classes.setdefault(tuple(record.cosines["labels"]), []).append(index)
    for indices in by_classes.values():
        matrices = {index: _symmetric(records[index].cosines["rows"]) for index in indices}
        order = order_by_similarity(list(matrices.values()))
        for index, matrix in matrices.items():
            of = records[index].cosines
            figure = matrices_figure({"class means": matrix}, of["classes"], of["names"], order)
            redrawn[index] = {"cosines": to_png(figure)}
    return redrawn


def _symmetric(rows: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
    """Return the symmetric matrix with this lower triangle."""
    lower = np.zeros((len(rows), len(rows)))
    for k, row in enumerate(rows):
        lower[k, : k + 1] = row
    symmetric: np.ndarray[Any, Any] = lower + np.tril(lower, -1).T
    return symmetric


def _ideal_rank(record: RunRecord) -> int:
    return min(record.num_classes - 1, record.feature_dim)
