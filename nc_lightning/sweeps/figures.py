"""Figures of a sweep: measures against the swept axes, measures over training, and spectra, with their spread.

All functions take the cells grouped by settings (``groups``) and the names of the swept axes (``axes``). There is one
panel for each combination of the axes that are not on the x-axis, and one line for each objective. Where the x-axis has
names instead of numbers, each setting has a row with a dot.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from nc_lightning.geometry import MEASURES
from nc_lightning.plots.canvas import Figure, add_legend
from nc_lightning.plots.panels import colors_for
from nc_lightning.plots.texts import shortened, widest, wrapped
from nc_lightning.plots.ticks import on_log_axis, scale_axis, whole_numbers
from nc_lightning.sweeps.results import Group

_PANEL = (4.2, 3.2)
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (1, 3)), (0, (5, 5)))
_ROW, _NAME_SIZE = 0.3, 9
Panels = dict[str, list[Group]]
"""Groups of each panel by its title."""


@dataclass
class Layout:
    """Roles of the swept axes in the figures.

    Attributes:
        x: Name of the axis on the x-axis; empty if only the objective varies.
        panels: Names of the axes with one panel for each combination of values: those that every cell has.
        lines: Names of the other axes, which together with the objective name the lines.
    """

    x: str
    panels: list[str]
    lines: list[str]

    @classmethod
    def of(cls, groups: Sequence[Group], axes: Sequence[str]) -> "Layout":
        """Use the numeric axis with the most values as x; if there is none, the axis with the most values.

        Example:
            >>> cells = [{"objective": "hscl", "beta": beta, "batches": "random"} for beta in (2, 5)]
            >>> cells += [{"objective": "hscl", "batches": "random", "hardness": "adaptive"}]
            >>> Layout.of([Group(each, []) for each in cells], ["objective", "batches", "beta", "hardness"])
            Layout(x='beta', panels=['batches'], lines=['hardness'])
        """
        values = {axis: {group.settings[axis] for group in groups if axis in group.settings} for axis in axes}
        others = [axis for axis in axes if axis != "objective" and values[axis]]  # cells with the rest may be to come
        numeric = {axis: all(_is_number(v) for v in found) for axis, found in values.items()}
        x = max(others, key=lambda axis: (numeric[axis], len(values[axis])), default="")
        rest = [axis for axis in others if axis != x]
        panels = [axis for axis in rest if all(axis in group.settings for group in groups)]
        return cls(x, panels, [axis for axis in rest if axis not in panels])

    def by_panel(self, groups: Sequence[Group]) -> Panels:
        """Return the groups of each panel by its title."""
        panels: Panels = {}
        for group in groups:
            title = ", ".join(f"{axis} {group.settings[axis]}" for axis in self.panels)
            panels.setdefault(title, []).append(group)
        return panels

    def x_values(self, groups: Sequence[Group]) -> list[Any]:
        """Return the distinct values of x in order: numbers sorted, others as they occur."""
        found = list(dict.fromkeys(group.settings[self.x] for group in groups if self.x in group.settings))
        return sorted(found) if self.is_numeric(groups) else found

    def is_numeric(self, groups: Sequence[Group]) -> bool:
        """Return whether all values of x are numbers; true and false are names."""
        return all(_is_number(group.settings[self.x]) for group in groups if self.x in group.settings)

    def colors(self, groups: Sequence[Group]) -> dict[str, str]:
        """Return the color of each line by its name."""
        names = dict.fromkeys(self.line(group) for group in groups)
        return dict(zip(names, colors_for(names), strict=True))

    def line(self, group: Group) -> str:
        """Return the name of the line that a group belongs to."""
        parts = (group.settings.get(axis) for axis in ("objective", *self.lines))
        return " ".join(str(part) for part in parts if part is not None)


def measure_figure(groups: Sequence[Group], axes: Sequence[str], key: str, name: str, ideal: float | None) -> Figure:
    """Draw a measure against the x-axis: means over seeds, with bars from the minimum to the maximum.

    An objective without the x setting, such as SCL without a hardness, is a horizontal line. ``name`` is
    the title, and ``ideal`` the value at neural collapse, if all groups have the same.
    """
    layout = Layout.of(groups, axes)
    draw = _measure_lines if layout.x and layout.is_numeric(groups) else _measure_dots
    return draw(groups, layout, key, name, ideal)


def _measure_lines(groups: Sequence[Group], layout: Layout, key: str, title: str, ideal: float | None) -> Figure:
    x_values, colors, log = layout.x_values(groups), layout.colors(groups), not _is_linear(key)

    def draw(panel: Axes, shown: Sequence[Group]) -> list[float]:
        drawn: list[float] = []
        for line, color in colors.items():
            spreads = {group.settings.get(layout.x): group.spread(key) for group in shown if layout.line(group) == line}
            points = [x for x in x_values if x in spreads]
            if points:
                mean, least, greatest = _seen([spreads[x] for x in points], log).T
                bars = np.stack([mean - least, greatest - mean]).clip(min=0)
                panel.errorbar(points, mean, yerr=bars, color=color, marker="o", markersize=4, capsize=3, label=line)
                drawn += [*least, *greatest]
            elif None in spreads:
                mean, least, greatest = _seen([spreads[None]], log)[0]
                panel.axhline(mean, color=color, linewidth=1.2, label=line)
                panel.axhspan(least, greatest, color=color, alpha=0.15, linewidth=0)
                drawn += [least, greatest]
        if ideal is not None and not log:
            panel.axhline(ideal, color="black", linestyle="--", linewidth=1)
        panel.set_xlabel(layout.x)
        scale_axis(panel.xaxis, x_values, log=min(x_values) > 0 and max(x_values) > 20 * min(x_values))
        return drawn

    figure, grid, values = _panels(layout.by_panel(groups), draw, title, "y")
    scale_axis(grid[0].yaxis, values if ideal is None or log else [*values, ideal], log)
    return figure


def _measure_dots(groups: Sequence[Group], layout: Layout, key: str, title: str, ideal: float | None) -> Figure:
    x_values, colors, log = layout.x_values(groups), layout.colors(groups), not _is_linear(key)
    panels = {
        name: sorted(shown, key=lambda group: _place(group, layout, x_values))
        for name, shown in layout.by_panel(groups).items()
    }

    def draw(panel: Axes, shown: Sequence[Group]) -> list[float]:
        spreads = _seen([group.spread(key) for group in shown], log)
        mean, least, greatest = spreads.T
        bars = np.stack([mean - least, greatest - mean]).clip(min=0)
        panel.hlines(
            range(len(shown)), 0, 1, transform=panel.get_yaxis_transform(), color="0.9", linewidth=0.8, zorder=1
        )
        # Dots, as the length of a bar means nothing on a logarithmic axis.
        for row, group in enumerate(shown):
            color = colors[layout.line(group)]
            panel.errorbar(mean[row], row, xerr=bars[:, [row]], color=color, fmt="o", markersize=6, capsize=3)
        for row in np.flatnonzero(np.isnan(mean)).tolist():
            panel.text(0.02, row, "not measured", va="center", fontsize=8, transform=panel.get_yaxis_transform())
        panel.set_yticks(range(len(shown)), [names[id(group)] for group in shown], fontsize=_NAME_SIZE)
        panel.set_ylim(len(shown) - 0.5, -0.5)
        if ideal is not None and not log:
            panel.axvline(ideal, color="black", linestyle="--", linewidth=1)
        return [*least, *greatest]

    labels = shortened(_label(group, layout, several=len(colors) > 1) for group in groups)
    names = dict(zip(map(id, groups), labels, strict=True))
    size = (3.2 + widest(names.values(), _NAME_SIZE), _ROW * max(len(shown) for shown in panels.values()) + 0.7)
    figure, grid, values = _panels(panels, draw, title, "x", size)
    scale_axis(grid[0].xaxis, values if ideal is None or log else [*values, ideal], log)
    for panel in grid:
        panel.tick_params(labelbottom=True)
    return figure


def _label(group: Group, layout: Layout, several: bool) -> str:
    """Return the name of a row: the value of the x-axis, the line, or both if there are several lines."""
    parts = [layout.line(group) if several or layout.x not in group.settings else "", group.settings.get(layout.x, "")]
    return " ".join(str(part) for part in parts if part != "") or "all"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _place(group: Group, layout: Layout, x_values: Sequence[Any]) -> int:
    x = group.settings.get(layout.x)
    return x_values.index(x) if x in x_values else len(x_values)


def _seen(spreads: Sequence[tuple[float, float, float]], log: bool) -> Any:
    """Return means, minima and maxima (N, 3) as the axis shows them."""
    values = np.array(spreads, dtype=float).reshape(-1, 3)
    return on_log_axis(values) if log else values


def path_figure(groups: Sequence[Group], axes: Sequence[str], key: str, name: str) -> Figure:
    """Draw a measure over training: a line for the mean over seeds of each group of cells, and their range."""

    def series(group: Group) -> list[dict[float, float]]:
        return [{entry["epoch"]: entry[key] for entry in record.history if key in entry} for record in group.records]

    return _lines(groups, axes, series, f"{name} over training", "epoch", log=not _is_linear(key))


def spectra_figure(groups: Sequence[Group], axes: Sequence[str]) -> Figure:
    """Draw the eigenvalues of the covariance of the class means over the largest; at neural collapse all are 1."""

    def series(group: Group) -> list[dict[float, float]]:
        return [dict(enumerate(record.spectrum, start=1)) for record in group.records]

    title = "eigenvalues of the covariance of class means, over the largest"
    return _lines(groups, axes, series, title, "index", log=True)


def _lines(
    groups: Sequence[Group],
    axes: Sequence[str],
    series: Callable[[Group], list[dict[float, float]]],
    title: str,
    x_label: str,
    log: bool,
) -> Figure:
    """Draw the series of each group: the mean over seeds, and the range.

    A single line has a color for each value of x, from dark to light; several have a color each, and dashes for x.
    """
    layout = Layout.of(groups, axes)
    x_values, colors = layout.x_values(groups), layout.colors(groups)
    shades = colormaps["viridis"](np.linspace(0, 0.85, max(1, len(x_values))))
    found = {id(group): _over_seeds(series(group), log) for group in groups}

    def draw(panel: Axes, shown: Sequence[Group]) -> list[float]:
        drawn: list[float] = []
        for group in shown:
            at, values = found[id(group)]
            if len(at) == 0:
                continue
            line, x = layout.line(group), group.settings.get(layout.x)
            place = _place(group, layout, x_values)
            shaded = len(colors) == 1 and place < len(x_values)
            color, dash = (shades[place], "-") if shaded else (colors[line], _DASHES[place % len(_DASHES)])
            look: dict[str, Any] = {"color": color, "linestyle": dash if x is not None else "-", "linewidth": 1.2}
            label = line if x is None else f"{line} {x}"
            panel.plot(at, values.mean(0), marker="o", markersize=4 if len(at) <= 12 else 2, label=label, **look)
            panel.fill_between(at, values.min(0), values.max(0), color=color, alpha=0.12, linewidth=0)
            drawn += [*values.min(0), *values.max(0)]
        panel.set_xlabel(x_label)
        whole_numbers(panel.xaxis, [x for at, _ in found.values() for x in at])
        return drawn

    figure, grid, values = _panels(layout.by_panel(groups), draw, title, "y")
    scale_axis(grid[0].yaxis, values, log)
    return figure


def _over_seeds(series: Sequence[dict[float, float]], log: bool) -> tuple[list[float], Any]:
    """Return the places that every seed has, and the values there (seeds, places)."""
    found = [each for each in series if each]
    at = sorted(set.intersection(*(set(each) for each in found))) if found else []
    values = np.array([[each[x] for x in at] for each in found], dtype=float).reshape(len(found), len(at))
    return at, on_log_axis(values) if log else values


def _panels(
    panels: Panels,
    draw: Callable[[Axes, Sequence[Group]], list[float]],
    title: str,
    shared: Literal["x", "y"],
    size: tuple[float, float] = _PANEL,
) -> tuple[Figure, list[Axes], list[float]]:
    """Return a figure with a panel for each of some groups, its axes, and the values that ``draw`` has drawn."""
    # Up to three panels stand in a column, so that the figures of a page stand side by side.
    columns = 1 if len(panels) <= 3 else min(3, math.ceil(math.sqrt(len(panels))))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=shared == "x", sharey=shared == "y").flat
    values: list[float] = []
    for panel, (name, groups) in zip(grid, panels.items(), strict=False):
        drawn = draw(panel, groups)
        if not np.isfinite(drawn).any() and shared == "y":
            panel.text(0.5, 0.5, "not measured", ha="center", va="center", fontsize=9, transform=panel.transAxes)
        panel.set_title(wrapped(name, 10, 0.8 * _PANEL[0]), fontsize=10)
        values += drawn
    for panel in grid[len(panels) :]:
        panel.remove()
    handles: dict[str, Any] = {}
    for panel in figure.axes:
        found, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    if len(handles) > 1:
        add_legend(figure, list(handles.values()), list(handles), loc="outside lower center")
    figure.suptitle(wrapped(title, 12, 0.95 * figure.get_figwidth()), fontsize=12)
    return figure, figure.axes, values


def _is_linear(key: str) -> bool:
    measure = MEASURES.get(key.rpartition("/")[2])
    return measure is not None and measure.scale == "linear"
