"""The report of a run, or of several side by side: one HTML file that needs nothing but itself."""

import base64
import math
from collections.abc import Sequence
from html import escape
from itertools import groupby

from nc_lightning import __version__
from nc_lightning.geometry import ideal, ideals_met
from nc_lightning.plots import to_png, trajectory_figure
from nc_lightning.reports.record import RunRecord
from nc_lightning.reports.tables import LOSS_KEYS, format_value

SETS = ("train", "val")
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Liberation Sans", "DejaVu Sans", sans-serif; color: #1b1f24; background: #fff;
       max-width: 1240px; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p.note { color: #57606a; margin: .25rem 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #d8dee4; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; font-weight: 500; }
thead th { border-bottom: 2px solid #57606a; vertical-align: bottom; }
td.met { background: #ddf4e8; } td.met::after { content: " \\2713"; color: #116329; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); gap: 1rem; }
.beside { display: flex; gap: 1rem; overflow-x: auto; }
.beside figure { flex: 0 0 auto; width: min(100%, 580px); }
figure { margin: 0; border: 1px solid #d8dee4; border-radius: 6px; padding: .5rem; }
figure img { display: block; width: 100%; height: auto; } figcaption { color: #57606a; text-align: center; }
pre { background: #f6f8fa; padding: 1rem; overflow-x: auto; border-radius: 6px; font-size: .85rem; }
"""


def report_html(records: Sequence[RunRecord]) -> str:
    """Return the page: settings, the geometry beside its ideal, the figures, the way of the runs, the configuration.

    Args:
        records: Of one run, or of several to be set side by side.

    Returns:
        A whole HTML document, without scripts and without anything to be fetched.

    Raises:
        ValueError: If there is no record.

    Example:
        >>> page = report_html([RunRecord("mine", 10, 9, history=[{"geometry/train/nc1": 0.001}])])
        >>> page.startswith("<!doctype html>"), "http" in page
        (True, False)
    """
    if not records:
        raise ValueError("records: got none, expected at least one run")
    title = f"Geometry of {records[0].name}" if len(records) == 1 else f"Geometry of {len(records)} runs"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(_at_a_glance(records))}</p>',
        "<h2>Settings</h2>",
        _settings(records),
        "<h2>Geometry</h2>",
        '<p class="note">Of the last measurement; a tick where the ideal of neural collapse is met.</p>',
        _geometry(records),
        "<h2>Figures</h2>",
        _figures(records),
        "<h2>Configuration</h2>",
        *(_config(record) for record in records),
    ]
    return html_page(title, parts)


def html_page(title: str, parts: Sequence[str]) -> str:
    r"""Return a whole HTML document that needs nothing but itself.

    Args:
        title: Of the page, as text.
        parts: Of its body, as HTML.

    Example:
        >>> html_page("Mine", ["<p>some</p>"]).endswith("</html>\n")
        True
    """
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    body = "\n".join([*parts, f'<p class="note">nc_lightning {escape(__version__)}</p>'])
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _at_a_glance(records: Sequence[RunRecord]) -> str:
    sizes = sorted({(record.num_classes, record.feature_dim) for record in records})
    return "; ".join(f"{classes} classes in {dim} dimensions" for classes, dim in sizes)


def _settings(records: Sequence[RunRecord]) -> str:
    names = list(dict.fromkeys(name for record in records for name in record.settings))
    rows = [[name, *(_text(record.settings.get(name)) for record in records)] for name in names]
    ends = [f"{record.history[-1].get('epoch', math.nan):.0f}" if record.history else "-" for record in records]
    return html_table(["", *(record.name for record in records)], [*rows, ["epochs", *ends]])


def _geometry(records: Sequence[RunRecord]) -> str:
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
        goals = {goal.text for record in records if (goal := ideal(key, record.num_classes, record.feature_dim))}
        rows.append([*row, " or ".join(sorted(goals))])
    for key in LOSS_KEYS:
        values = [record.latest("").get(key, math.nan) for record, _ in columns]
        if not all(math.isnan(value) for value in values):
            first = [name == next(s for r, s in columns if r is record) for record, name in columns]
            shown = [format_value(value) if own else "" for value, own in zip(values, first, strict=True)]
            rows.append([key, *shown, "0" if key == "loss/optimality_gap" else ""])
    return html_table(["measure", *heads, "ideal"], rows)


def _figures(records: Sequence[RunRecord]) -> str:
    if len(records) == 1:
        figures = (html_image(png, name) for name, png in records[0].figures.items())
        return f'<div class="figures">{"".join(figures)}</div>'
    names = list(dict.fromkeys(name for record in records for name in record.figures))
    rows = []
    for name in names:
        beside = (html_image(r.figures[name], f"{name} of {r.name}", r.name) for r in records if name in r.figures)
        rows.append(f'<div class="beside">{"".join(beside)}</div><br>')
    for rank, group in groupby(sorted(records, key=_ideal_rank), key=_ideal_rank):
        paths = {record.name: record.path("train") for record in group}
        png = to_png(trajectory_figure(paths, rank))
        rows.append(
            f'<div class="beside">{html_image(png, "trajectories of the runs", "all, training sets")}</div><br>'
        )
    return "".join(rows)


def _ideal_rank(record: RunRecord) -> int:
    return min(record.num_classes - 1, record.feature_dim)


def html_image(png: bytes, name: str, caption: str = "") -> str:
    """Return a figure that holds its picture itself.

    Example:
        >>> html_image(b"", "spectrum").startswith('<figure><img alt="spectrum" src="data:image/png;base64,"')
        True
    """
    data = base64.b64encode(png).decode()
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{data}">{below}</figure>'


def _config(record: RunRecord) -> str:
    text = escape(record.config or "not known: the run was not started from a configuration")
    return f"<details><summary>{escape(record.name)}</summary><pre>{text}</pre></details>"


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str | tuple[str, bool]]]) -> str:
    """Return a table; a cell that meets an ideal is a pair of its text and True.

    Example:
        >>> "<td class=met>9</td>" in html_table(["rank"], [[("9", True)]])
        True
    """
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: str | tuple[str, bool]) -> str:
    text, met = (cell, False) if isinstance(cell, str) else cell
    return f"<td class=met>{escape(text)}</td>" if met else f"<td>{escape(text)}</td>"


def _text(value: object) -> str:
    if value is None:
        return "-"
    return format_value(value) if isinstance(value, float) else str(value)
