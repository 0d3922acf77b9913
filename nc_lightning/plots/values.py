"""Charts of the values of metrics: one value of each measure as a table with dots, or values over steps in panels."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from nc_lightning.geometry import MEASURES, Ideal
from nc_lightning.plots.canvas import DPI, Figure
from nc_lightning.plots.panels import COLORS
from nc_lightning.plots.ticks import on_log_axis, scale_axis, whole_numbers

Goals = Mapping[str, Ideal]
"""Ideals by the key of the measure, of those that have one."""
_ROW, _STEPS_PANEL, _MOST_COLUMNS = 0.21, (2.3, 1.55), 4
_GAP = 2.5
"""Rows between panels, for the tick labels of a panel."""


def new_axes(keys: Sequence[str], steps: int) -> tuple[Figure, Axes]:
    """Return a figure of pyplot with axes of the right size for some measures at some steps.

    A figure of pyplot is shown by ``plt.show()``, and by a notebook wherever in a cell it was made.
    """
    import matplotlib.pyplot as plt  # noqa: PLC0415 - pyplot chooses a backend when it is imported

    rows = len(keys) + _GAP * (len({_kind(key) for key in keys}) - 1)
    size = (6.4, 0.75 + rows * _ROW)
    if steps > 1 and len(keys) > 1:
        columns = min(_MOST_COLUMNS, len(keys))
        size = (columns * _STEPS_PANEL[0], math.ceil(len(keys) / columns) * _STEPS_PANEL[1])
    elif steps > 1:
        size = (4.8, 3.4)
    figure: Any = plt.figure(FigureClass=Figure, figsize=size, dpi=DPI, layout="constrained")
    return figure, figure.subplots()


def draw_values(axes: Axes, values: Mapping[str, float], goals: Goals) -> None:
    """Draw a dot for each value, with the value and its ideal as text: a panel for each kind of axis, a row for each.

    Measures whose ideal is a rank share an axis, those on a logarithmic scale another, and the others a third one.

    Args:
        axes: Axes to draw on; several panels are drawn inside of them.
        values: Values by the key of the measure.
        goals: Ideals by key.
    """
    kinds: dict[str, list[str]] = {}
    for key in values:
        kinds.setdefault(_kind(key), []).append(key)
    total, above = len(values) + _GAP * (len(kinds) - 1), 0.0
    for keys in kinds.values():
        place = (0, 1 - (above + len(keys)) / total, 1, len(keys) / total)
        own = axes if len(kinds) == 1 else axes.inset_axes(place)
        _draw_rows(own, {key: values[key] for key in keys}, goals, heads=above == 0)
        above += len(keys) + _GAP
    if len(kinds) > 1:
        axes.axis("off")


def draw_steps(axes: Axes, values: Mapping[str, Sequence[float]], goals: Goals) -> None:
    """Draw values over steps, with a panel and a dashed ideal for each measure.

    Args:
        axes: Axes to draw on; several panels are drawn inside of them.
        values: Values at each step, by the key of the measure.
        goals: Ideals by key.
    """
    columns = min(_MOST_COLUMNS, len(values))
    rows = math.ceil(len(values) / columns)
    for index, (key, series) in enumerate(values.items()):
        row, column = divmod(index, columns)
        place = ((column + 0.28) / columns, 1 - (row + 0.82) / rows, 0.68 / columns, 0.58 / rows)
        own = axes if len(values) == 1 else axes.inset_axes(place)
        log, goal = _kind(key) == "log", goals.get(key)
        shown = on_log_axis(series) if log else np.asarray(series, dtype=float)
        own.plot(range(len(shown)), shown, marker="o", markersize=3, linewidth=1.2, color=COLORS[0])
        drawn = list(shown)
        if goal is not None and not (log and goal.value <= 0):
            own.axhline(goal.value, linestyle="--", linewidth=1, color="black")
            drawn.append(goal.value)
        small = len(values) > 1
        own.set_title(key + ("" if goal is None else f" (ideal: {goal.text})"), fontsize=7 if small else 11)
        own.tick_params(labelsize=7 if small else 9)
        scale_axis(own.yaxis, drawn, log)
        whole_numbers(own.xaxis, range(len(shown)))
        if not small:
            own.set_xlabel("step")
    if len(values) > 1:
        axes.axis("off")


def draw_spectra(axes: Axes, spectra: Sequence[Any], rank: int) -> None:
    """Draw spectra over their index: one, or those of several steps from dark to light.

    Args:
        axes: Axes to draw on.
        spectra: Spectrum (K,) at each step.
        rank: Number of values that are 1 at the ideal.
    """
    shown = on_log_axis(np.stack([np.asarray(spectrum, dtype=float) for spectrum in spectra]))
    last = len(shown) - 1
    colors = colormaps["viridis"](np.linspace(0, 0.85, last + 1)) if last else [COLORS[0]]
    x = np.arange(1, shown.shape[1] + 1)
    for step, (values, color) in enumerate(zip(shown, colors, strict=True)):
        label = f"step {step}" if step in {0, last} and last else None
        axes.plot(x, values, marker=".", markersize=5, linewidth=1.2, color=color, label=label)
    marker = "_" if rank == 1 else None
    axes.plot(range(1, rank + 1), [1.0] * rank, "--", marker=marker, linewidth=1.2, color="black", label="ideal")
    axes.set(xlabel="index", ylabel="over the largest")
    scale_axis(axes.yaxis, [*shown.ravel(), 1.0, 0.01], log=True)
    whole_numbers(axes.xaxis, [1, shown.shape[1]])
    axes.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)


def _draw_rows(axes: Axes, values: Mapping[str, float], goals: Goals, heads: bool) -> None:
    log = _kind(next(iter(values))) == "log"
    found = np.array(list(values.values()), dtype=float)
    shown, rows = on_log_axis(found) if log else found, np.arange(len(values))
    ideals = np.array([goals[key].value if key in goals else math.nan for key in values], dtype=float)
    ideals[(ideals <= 0) & log] = math.nan  # a logarithmic axis has no 0; it is in the column of ideals
    axes.hlines(rows, 0, 1, transform=axes.get_yaxis_transform(), color="0.9", linewidth=0.8, zorder=1)
    axes.plot(shown, rows, "o", markersize=6, color=COLORS[0], zorder=3)
    axes.plot(ideals, rows, "|", markersize=12, markeredgewidth=1.8, color="black", zorder=2)
    column: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "fontsize": 8}
    for row, (key, value) in enumerate(values.items()):
        for x, text in ((58, "-" if math.isnan(value) else f"{value:.4g}"), (98, _goal(goals.get(key)))):
            axes.annotate(text, (1, row), (x, 0), ha="right", va="center", **column)
    if heads:
        for x, text in ((58, "value"), (98, "ideal")):
            axes.annotate(text, (1, -0.5), (x, 3), ha="right", va="bottom", fontweight="bold", **column)
    axes.set_yticks(rows, list(values), fontsize=8)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    scale_axis(axes.xaxis, [*shown, *ideals, *([] if log else [0.0])], log)


def _goal(goal: Ideal | None) -> str:
    return "" if goal is None else goal.text


def _kind(key: str) -> str:
    measure = MEASURES.get(key)
    return "linear" if measure is None else "rank" if measure.ideal == "rank" else measure.scale
