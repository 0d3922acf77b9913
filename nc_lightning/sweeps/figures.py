"""Figures of a sweep: measures against the swept axes, measures over training, and spectra, with their spread.

All functions take the cells grouped by settings (``groups``) and the names of the swept axes (``axes``). There is one
panel for each combination of the axes that are not on the x-axis, and one line for each objective.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nc_lightning.geometry import MEASURES
from nc_lightning.plots.panels import SMALLEST_SHOWN, colors_for
from nc_lightning.sweeps.results import Group

_PANEL = (4.2, 3.2)
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (1, 3)), (0, (5, 5)))
_SMALLEST = 1e-6


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
        others = [axis for axis in axes if axis != "objective"]
        values = {axis: {group.settings[axis] for group in groups if axis in group.settings} for axis in others}
        numeric = {axis: all(isinstance(v, int | float) for v in found) for axis, found in values.items()}
        x = max(others, key=lambda axis: (numeric[axis], len(values[axis])), default="")
        rest = [axis for axis in others if axis != x]
        panels = [axis for axis in rest if all(axis in group.settings for group in groups)]
        return cls(x, panels, [axis for axis in rest if axis not in panels])

    def by_panel(self, groups: Sequence[Group]) -> dict[str, list[Group]]:
        """Return the groups of each panel by its title."""
        panels: dict[str, list[Group]] = {}
        for group in groups:
            title = ", ".join(f"{axis} {group.settings[axis]}" for axis in self.panels)
            panels.setdefault(title, []).append(group)
        return panels

    def x_values(self, groups: Sequence[Group]) -> list[Any]:
        """Return the distinct values of x in order: numbers sorted, others as they occur."""
        found = list(dict.fromkeys(group.settings[self.x] for group in groups if self.x in group.settings))
        return sorted(found) if all(isinstance(value, int | float) for value in found) else found

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

    An objective without the x setting, such as SCL without a hardness, is a horizontal line. ``ideal`` is the value at
    neural collapse, if there is one.
    """
    layout = Layout.of(groups, axes)
    x_values, colors = layout.x_values(groups), layout.colors(groups)
    numeric = all(isinstance(x, int | float) for x in x_values)

    def draw(panel: Axes, shown: Sequence[Group]) -> None:
        for line, color in colors.items():
            own = [group for group in shown if layout.line(group) == line]
            spreads = {group.settings.get(layout.x): group.spread(key) for group in own}
            points = [x for x in x_values if x in spreads]
            if points:
                mean, least, greatest = np.array([spreads[x] for x in points], dtype=float).T
                at = points if numeric else [x_values.index(x) for x in points]
                bars = np.stack([mean - least, greatest - mean])
                panel.errorbar(at, mean, yerr=bars, color=color, marker="o", markersize=4, capsize=3, label=line)
            elif None in spreads:
                mean, least, greatest = spreads[None]
                panel.axhline(mean, color=color, linewidth=1.2, label=line)
                panel.axhspan(least, greatest, color=color, alpha=0.15, linewidth=0)
        if ideal is not None and _is_linear(key):
            panel.axhline(ideal, color="black", linestyle="--", linewidth=1)
        if not _is_linear(key):
            panel.set_yscale("symlog", linthresh=_SMALLEST)
        panel.set_xlabel(layout.x)
        if not numeric:
            panel.set_xticks(range(len(x_values)), [str(x) for x in x_values], fontsize=8)
        elif len(x_values) > 1 and min(x_values) > 0 and max(x_values) > 20 * min(x_values):
            panel.set_xscale("log")

    suffix = "" if ideal is None else f" (ideal: {ideal:g})"
    return _panels(layout.by_panel(groups), draw, f"{name}{suffix}")


def path_figure(groups: Sequence[Group], axes: Sequence[str], key: str, name: str) -> Figure:
    """Draw a measure over training: a line for the mean over seeds of each group of cells, and their range."""

    def series(group: Group) -> list[dict[float, float]]:
        return [{entry["epoch"]: entry[key] for entry in record.history if key in entry} for record in group.records]

    return _lines(groups, axes, series, f"{name} over training", "epoch", None if _is_linear(key) else _SMALLEST)


def spectra_figure(groups: Sequence[Group], axes: Sequence[str]) -> Figure:
    """Draw the eigenvalues of the covariance of the class means over the largest; at neural collapse all are 1."""

    def series(group: Group) -> list[dict[float, float]]:
        shown = [[max(value, SMALLEST_SHOWN) for value in record.spectrum] for record in group.records]
        return [dict(enumerate(values, start=1)) for values in shown]

    title = "eigenvalues of the covariance of class means, over the largest"
    return _lines(groups, axes, series, title, "index", SMALLEST_SHOWN)


def _lines(
    groups: Sequence[Group],
    axes: Sequence[str],
    series: Callable[[Group], list[dict[float, float]]],
    title: str,
    x_label: str,
    least: float | None,
) -> Figure:
    """Draw the series of each group, on a logarithmic scale down to ``least``; linear if that is None."""
    layout = Layout.of(groups, axes)
    x_values, colors = layout.x_values(groups), layout.colors(groups)

    def draw(panel: Axes, shown: Sequence[Group]) -> None:
        for group in shown:
            found = [each for each in series(group) if each]
            if not found:
                continue
            at = sorted(set.intersection(*(set(each) for each in found)))
            values = np.array([[each[x] for x in at] for each in found])
            line, x = layout.line(group), group.settings.get(layout.x)
            dash = _DASHES[x_values.index(x) % len(_DASHES)] if x in x_values else "-"
            label = line if x is None else f"{line} {x}"
            panel.plot(at, values.mean(0), color=colors[line], linestyle=dash, linewidth=1.2, label=label)
            panel.fill_between(at, values.min(0), values.max(0), color=colors[line], alpha=0.12, linewidth=0)
        if least is not None:
            panel.set_yscale("symlog", linthresh=least)
        panel.set_xlabel(x_label)

    return _panels(layout.by_panel(groups), draw, title)


def _panels(panels: dict[str, list[Group]], draw: Callable[[Axes, Sequence[Group]], None], title: str) -> Figure:
    columns = min(3, max(1, math.ceil(math.sqrt(len(panels)))))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows + 0.4), dpi=110, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for panel, (name, groups) in zip(grid.flat, panels.items(), strict=False):
        draw(panel, groups)
        panel.set_title(name, fontsize=10)
    for panel in grid.flat[len(panels) :]:
        panel.set_visible(False)
    handles: dict[str, Any] = {}
    for panel in grid.flat:
        found, labels = panel.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    if handles:
        figure.legend(list(handles.values()), list(handles), loc="outside right upper", fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=12)
    return figure


def _is_linear(key: str) -> bool:
    measure = MEASURES.get(key.rpartition("/")[2])
    return measure is not None and measure.scale == "linear"
