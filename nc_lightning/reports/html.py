"""The report of one or several runs: a single self-contained HTML file."""

import base64
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import jinja2

from nc_lightning import __version__
from nc_lightning.geometry import ideal, ideals_met
from nc_lightning.plots import to_png, trajectory_figure
from nc_lightning.reports.record import RunRecord
from nc_lightning.reports.tables import LOSS_KEYS, format_value

SETS = ("train", "val")
Table = tuple[list[str], list[list[str | tuple[str, bool]]]]
"""Header, and rows of texts or of (text, whether it meets the ideal)."""


def render(template: str, title: str, **values: Any) -> str:
    """Render a template of ``nc_lightning/reports/templates``; all texts are escaped.

    Args:
        template: Name of the template, without its extension.
        title: Title of the page.
        **values: Values used in the template.

    Example:
        >>> page = render("sweep", "Mine", name="<b>", progress="1 done", heads=[], rows=[], figures=[], cells=[])
        >>> "<h1>&lt;b&gt;</h1>" in page
        True
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nc_lightning.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode()
    return environment.get_template(f"{template}.html.j2").render(title=title, version=__version__, **values)


def report_html(records: Sequence[RunRecord]) -> str:
    """Return the report page: settings, the geometry with its ideals, figures, trajectories, the configuration.

    Args:
        records: Record of one run, or of several to compare.

    Returns:
        A complete HTML document, without scripts and external resources.

    Raises:
        ValueError: If there is no record.

    Example:
        >>> page = report_html([RunRecord("mine", 10, 9, history=[{"geometry/train/nc1": 0.001}])])
        >>> page.startswith("<!doctype html>"), "http" in page
        (True, False)
    """
    if not records:
        raise ValueError("records: got none, expected at least one run")
    sizes = sorted({(record.num_classes, record.feature_dim) for record in records})
    return render(
        "run",
        f"Geometry of {records[0].name}" if len(records) == 1 else f"Geometry of {len(records)} runs",
        records=records,
        sizes="; ".join(f"{classes} classes in {dim} dimensions" for classes, dim in sizes),
        settings=_settings(records),
        geometry=_geometry(records),
        figures=_compared_figures(records),
    )


def _settings(records: Sequence[RunRecord]) -> Table:
    names = list(dict.fromkeys(name for record in records for name in record.settings))
    rows: list[list[str | tuple[str, bool]]] = [
        [name, *(_text(record.settings.get(name)) for record in records)] for name in names
    ]
    ends = [f"{record.history[-1].get('epoch', math.nan):.0f}" if record.history else "-" for record in records]
    return ["", *(record.name for record in records)], [*rows, ["epochs", *ends]]


def _geometry(records: Sequence[RunRecord]) -> Table:
    columns = [(record, name) for record in records for name in SETS if record.latest(f"geometry/{name}/")]
    keys = dict.fromkeys(key for record, name in columns for key in record.latest(f"geometry/{name}/"))
    heads = [name if len(records) == 1 else f"{record.name}, {name}" for record, name in columns]
    measured = [record.latest(f"geometry/{name}/") for record, name in columns]
    met = [ideals_met(found, r.num_classes, r.feature_dim) for found, (r, _) in zip(measured, columns, strict=True)]
    rows: list[list[str | tuple[str, bool]]] = []
    for key in keys:
        row: list[str | tuple[str, bool]] = [key]
        for geometry, reached in zip(measured, met, strict=True):
            row.append((format_value(geometry.get(key, math.nan)), reached.get(key, False)))
        rows.append([*row, _goals(key, records)])
    for key in LOSS_KEYS:
        values = [record.latest("").get(key, math.nan) for record, _ in columns]
        if not all(math.isnan(value) for value in values):
            first = [name == next(s for r, s in columns if r is record) for record, name in columns]
            shown = [format_value(value) if own else "" for value, own in zip(values, first, strict=True)]
            rows.append([key, *shown, _goals(key, records)])
    return ["measure", *heads, "ideal"], rows


def _goals(key: str, records: Sequence[RunRecord]) -> str:
    goals = {goal.text for record in records if (goal := ideal(key, record.num_classes, record.feature_dim))}
    return " or ".join(sorted(goals))


def _compared_figures(records: Sequence[RunRecord]) -> list[list[tuple[bytes, str, str]]]:
    """Return rows of (picture, name, caption): each figure of all runs, and the trajectories of runs per ideal rank."""
    if len(records) == 1:
        return []
    names = list(dict.fromkeys(name for record in records for name in record.figures))
    rows = [[(r.figures[name], f"{name} of {r.name}", r.name) for r in records if name in r.figures] for name in names]
    for rank, group in groupby(sorted(records, key=_ideal_rank), key=_ideal_rank):
        paths = {record.name: record.path("train") for record in group}
        png = to_png(trajectory_figure(paths, rank))
        rows.append([(png, "trajectories of the runs", "all, training sets")])
    return rows


def _ideal_rank(record: RunRecord) -> int:
    return min(record.num_classes - 1, record.feature_dim)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return format_value(value) if isinstance(value, float) else str(value)
