"""The page of a sweep: the settings ranked by a measure, the figures, and links to the runs."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from nc_lightning.geometry import ideals_met, optimum_met
from nc_lightning.io.atomic import replace_file
from nc_lightning.plots import to_pdf, to_png
from nc_lightning.reports.page import data_url, is_broad, render
from nc_lightning.reports.record import RunRecord
from nc_lightning.sweeps.figures import measure_figure, path_figure, spectra_figure
from nc_lightning.sweeps.ranking import default_key, order_of, ranked, title_of
from nc_lightning.sweeps.results import (
    HEADLINES,
    Group,
    Result,
    group_by_settings,
    how_many,
    show_spread,
    undone,
)

MOST_ROWS = 10
"""Largest number of rows in the table at the top of the page."""
MOST_BYTES = 4_000_000
"""Largest size of all figures together that are part of the page; larger ones stay in their files."""
_PATHS = ("effective_rank", "nc1", "equal_inner_product", "zero_sum", "unit_norm")
"""Measures drawn over training, as in the paper."""
_MOST_IDEALS = 3


class Link(NamedTuple):
    """A link of a page, relative to the folder of the sweep."""

    text: str
    target: str


class Entry(NamedTuple):
    """A cell of a table that can be sorted: text, what it is sorted by, whether the ideal is met, links, and range."""

    text: str
    value: float | str = ""
    met: bool = False
    links: tuple[Link, ...] = ()
    spread: str = ""


def write_figures(results: Sequence[Result], axes: Sequence[str], folder: Path) -> list[Path]:
    """Draw the figures of the finished cells to PNG and PDF files in a folder, and return the paths of the PNG files.

    A measure that no run has is left out.
    """
    groups = [group for group in group_by_settings(results) if group.results]
    logged = {key for group in groups for record in group.records for entry in record.history for key in entry}
    if not any(group.records for group in groups):
        return []
    figures = {}
    for key, name in HEADLINES.items():
        if key not in logged:
            continue
        ideals = _ideals(groups, key)
        single = next(iter(ideals.values()), None) if len(ideals) == 1 else None
        figures[name] = measure_figure(groups, axes, key, name + _stated(ideals), single and single[0])
    for measure in (measure for measure in _PATHS if f"geometry/train/{measure}" in logged):
        name = HEADLINES[f"geometry/train/{measure}"]
        figures[f"{name} over training"] = path_figure(groups, axes, f"geometry/train/{measure}", name)
    figures["spectra"] = spectra_figure(groups, axes)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{'_'.join(re.findall(r'[a-z0-9]+', name))}.png")
        replace_file(paths[-1], to_png(figure))
        replace_file(paths[-1].with_suffix(".pdf"), to_pdf(figure))
    return paths


def _ideals(groups: Sequence[Group], key: str) -> dict[str, tuple[float, list[str]]]:
    """Return each ideal of a measure and the settings whose loss has it, by its text."""
    found: dict[str, tuple[float, list[str]]] = {}
    for group in groups:
        goal = group.records[0].ideal(key) if group.records else None
        if goal is not None:
            found.setdefault(goal.text, (goal.value, []))[1].append(" ".join(map(str, group.settings.values())))
    return found


def _stated(ideals: dict[str, tuple[float, list[str]]]) -> str:
    """Return the ideals as part of a title, as tables show them, the most common one first.

    Example:
        >>> _stated({"0": (0.0, ["scl", "hucl 2"]), "0.56": (0.56, ["hucl 40"])})
        ' (ideal: 0; 0.56 for hucl 40)'
    """
    if not ideals:
        return ""
    first, *others = sorted(ideals, key=lambda text: -len(ideals[text][1]))
    shown = [f"{text} for {_names(ideals[text][1])}" for text in others[: _MOST_IDEALS - 1]]
    return f" (ideal: {'; '.join([first, *shown, *(['others'] if len(others) >= _MOST_IDEALS else [])])})"


def _names(settings: Sequence[str]) -> str:
    return ", ".join(settings) if len(settings) < _MOST_IDEALS else f"{len(settings)} settings"


def sweep_html(
    results: Sequence[Result], axes: Sequence[str], root: Path, figures: Sequence[Path], rank_by: str | None = None
) -> str:
    """Return the page of a sweep as an HTML document, with links relative to ``root`` to the runs.

    Args:
        results: Results of all cells.
        axes: Names of the varied settings.
        root: Folder of the sweep.
        figures: Paths of the figures.
        rank_by: Logged key of the measure to rank by, see `nc_lightning.sweeps.ranking.check_rank_by`; None for the
            distance of the class means from a simplex.
    """
    groups = [group for group in group_by_settings(results) if group.results]
    key = rank_by or default_key(groups)
    order = ranked(groups, key) if key else groups
    keys = [key for key in HEADLINES if any(not math.isnan(group.spread(key)[0]) for group in groups)]
    keys = [*([key] if key else []), *(other for other in keys if other != key)]
    heads = ["rank", *map(title_of, keys[:1]), "seeds", *axes, *map(title_of, keys[1:]), "seconds"]
    return render(
        "sweep",
        f"Sweep {root.name}",
        name=root.name,
        progress=how_many(results),
        measure=title_of(key) if key else "",
        order=order_of(key) if key else "",
        heads=heads,
        rows=[_row(place, group, axes, keys, root) for place, group in enumerate(order, start=1)],
        most=MOST_ROWS,
        figures=[
            (source, path.stem.replace("_", " "), is_broad(path.read_bytes()))
            for path, source in _sources(figures, root).items()
        ],
        undone=[(f"{result.name}: {result.outcome}", _links(result, root)) for result in undone(results)],
        cells=[(f"{result.name}: {result.outcome}", _links(result, root)) for result in results],
    )


def _sources(figures: Sequence[Path], root: Path) -> dict[Path, str]:
    """Return the addresses of figures: part of the page if they are small enough together, else links to the files."""
    small = sum(path.stat().st_size for path in figures) <= MOST_BYTES
    return {path: data_url(path.read_bytes()) if small else _relative(path, root) for path in figures}


def _row(place: int, group: Group, axes: Sequence[str], keys: Sequence[str], root: Path) -> list[Entry]:
    settings = [group.settings.get(axis, "") for axis in axes]
    seconds = [result.seconds for result in group.results]
    mean = sum(seconds) / len(seconds)
    values = [_measured(group, key) for key in keys]
    seeds = tuple(Link(str(result.settings["seed"]), _page(result, root)) for result in group.results)
    return [
        Entry(str(place), place),
        *values[:1],
        Entry("", len(seeds), links=seeds),
        *(Entry(str(value), value if _is_number(value) else str(value)) for value in settings),
        *values[1:],
        Entry("-" if math.isnan(mean) else f"{mean:.0f}", _sortable(mean)),
    ]


def _measured(group: Group, key: str) -> Entry:
    spread = group.spread(key)
    mean, _, seeds = show_spread(*spread).partition(" ")
    met = bool(group.records) and all(_met(record, key) for record in group.records)
    return Entry(mean, _sortable(spread[0]), met, spread=seeds)


def _met(record: RunRecord, key: str) -> bool:
    """Return whether a run meets the ideal of its loss in a measure of its output."""
    found = re.fullmatch(r"(geometry/\w+/)(\w+)", key)
    if found is None:
        return False
    measured, own = record.latest(found[1]), record.own_ideals
    met = optimum_met(measured, own) if own else ideals_met(measured, record.num_classes, record.feature_dim)
    return met.get(found[2], False)


def _sortable(value: float) -> float | str:
    return value if math.isfinite(value) else ""


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _page(result: Result, root: Path) -> str:
    """Return the link to the report of a cell's run; empty if there is none."""
    page = result.record_path.with_suffix(".html") if result.record_path is not None else None
    return _relative(page, root) if page is not None and page.is_file() else ""


def _links(result: Result, root: Path) -> list[Link]:
    """Return links to the report, the folder of the run and the log of a cell, as far as they exist."""
    links = [Link("report", page)] if (page := _page(result, root)) else []
    if result.record_path is not None:
        links.append(Link("folder", f"{_relative(result.record_path.parent, root)}/"))
    log = root / "cells" / result.name / "log.txt"
    return [*links, *([Link("log", _relative(log, root))] if log.is_file() else [])]


def _relative(path: Path, root: Path) -> str:
    return quote(path.resolve().relative_to(root.resolve()).as_posix())
