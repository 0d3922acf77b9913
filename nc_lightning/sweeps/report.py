"""The page of a sweep: the table of its cells, the figures, and links to the reports of the runs."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from nc_lightning.geometry import ideal
from nc_lightning.io.atomic import atomic_write
from nc_lightning.plots import to_png
from nc_lightning.reports.html import render
from nc_lightning.sweeps.figures import measure_figure, path_figure, spectra_figure
from nc_lightning.sweeps.results import HEADLINES, Result, group_by_settings, how_many, results_rows

_PATHS = ("effective_rank", "nc1", "equal_inner_product", "zero_sum", "unit_norm")
"""Measures drawn over training, as in the paper."""


def write_figures(results: Sequence[Result], axes: Sequence[str], folder: Path) -> list[Path]:
    """Draw the figures of the finished cells to PNG files in a folder, and return their paths."""
    groups = [group for group in group_by_settings(results) if group.results]
    records = [record for group in groups for record in group.records]
    if not records:
        return []
    figures = {}
    for key, name in HEADLINES.items():
        goal = ideal(re.sub(r"^geometry/\w+/", "", key), records[0].num_classes, records[0].feature_dim)
        figures[name] = measure_figure(groups, axes, key, name, goal.value if goal else None)
    for measure in _PATHS:
        name = HEADLINES[f"geometry/train/{measure}"]
        figures[f"{name} over training"] = path_figure(groups, axes, f"geometry/train/{measure}", name)
    figures["spectra"] = spectra_figure(groups, axes)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in figures.items():
        paths.append(folder / f"{'_'.join(re.findall(r'[a-z0-9]+', name))}.png")
        with atomic_write(paths[-1]) as half:
            half.write_bytes(to_png(figure))
    return paths


def sweep_html(results: Sequence[Result], axes: Sequence[str], root: Path, figures: Sequence[Path]) -> str:
    """Return the page of a sweep as an HTML document, with links relative to ``root`` to the reports of the runs."""
    heads, rows = results_rows(results, axes)
    return render(
        "sweep",
        f"Sweep {root.name}",
        name=root.name,
        progress=how_many(results),
        heads=heads,
        rows=rows,
        figures=[(path.read_bytes(), path.stem.replace("_", " ")) for path in figures],
        cells=[(f"{result.name}: {result.outcome}", _link(result, root)) for result in results],
    )


def _link(result: Result, root: Path) -> str:
    page = result.record_path.with_suffix(".html") if result.record_path is not None else None
    return quote(page.relative_to(root.resolve()).as_posix()) if page is not None and page.is_file() else ""
