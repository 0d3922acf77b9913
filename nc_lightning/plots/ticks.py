"""Axes with readable ticks at every range: tiny, huge, constant, less than a decade, or without any value."""

import math
from typing import Any

import numpy as np
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, NullLocator

SMALLEST_SHOWN = 1e-8
"""Smallest value of a logarithmic axis; smaller ones, zero and negative ones are drawn there."""
_LEAST_DECADES = 0.8
"""Least length of a logarithmic axis: any such interval has two of 1, 2, 5 and 10."""
_LEAST_SHARE = 1e-3
"""Least length of a linear axis, relative to its values, so that labels need no offset."""
_MARGIN = 0.06


class LogTicks(Locator):
    """Ticks at powers of ten, and between them where an axis has few; matplotlib's own may leave an axis bare.

    Example:
        >>> LogTicks().tick_values(0.15, 0.95).round(3).tolist(), LogTicks().tick_values(1e-8, 1.0).tolist()
        ([0.2, 0.5], [1e-08, 1e-06, 0.0001, 0.01, 1.0])
    """

    def __call__(self) -> Any:
        """Return the ticks of the part of the axis that is shown."""
        axis: Any = self.axis
        return self.tick_values(*axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return at most six ticks between two values, at least two for 0.8 decades or more."""
        low, high = (math.log10(max(v, 1e-300)) for v in sorted((vmin, vmax)))
        decades = np.arange(math.floor(low), math.ceil(high) + 1)
        for between in ((1, 2, 5), (1, 3), (1,)):
            ticks = np.array([d + math.log10(factor) for d in decades for factor in between])
            ticks = ticks[(ticks >= low - 1e-6) & (ticks <= high + 1e-6)]
            if len(ticks) <= 6:
                break
        # Powers of ten by their text: 10.0 ** -5 is not exactly 1e-5.
        return np.array([float(f"{10**tick:.12g}") for tick in ticks[:: math.ceil(len(ticks) / 6)]])


def scale_axis(axis: Axis, values: Any, log: bool = False) -> None:
    """Scale an axis to the finite values, with at least two labels at every range.

    Args:
        axis: ``axes.xaxis`` or ``axes.yaxis``.
        values: Values that the axis shows; without a finite one it runs from 0 to 1, or from 0.1 to 1.
        log: Whether to scale it logarithmically; then draw values through `on_log_axis`.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> scale_axis(axes.yaxis, [0.31, 0.31], log=True)
        >>> [label.get_text() for label in axes.get_yticklabels()]
        ['0.2', '0.5']
    """
    found = np.asarray(values, dtype=float).ravel()
    found = found[np.isfinite(found)]
    if len(found) == 0:
        found = np.array([0.1, 1.0] if log else [0.0, 1.0])
    if log:
        found = np.log10(on_log_axis(found))
    low, high = float(found.min()), float(found.max())
    least = _LEAST_DECADES if log else _LEAST_SHARE * max(abs(low), abs(high)) or 1.0
    pad = max(_MARGIN * (high - low), (least - (high - low)) / 2)
    low, high = low - pad, high + pad
    if log and low < (floor := math.log10(SMALLEST_SHOWN) - 0.1):
        low, high = floor, high + floor - low
    if log:
        _set(axis, scale="log", lim=(10**low, 10**high))
    else:
        _set(axis, lim=(low, high))
    _label(axis, LogTicks() if log else MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]), log)


def whole_numbers(axis: Axis, values: Any) -> None:
    """Scale an axis to counts, such as indices or epochs, with ticks at whole numbers only.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().subplots()
        >>> whole_numbers(axes.xaxis, [1, 2])
        >>> [label.get_text() for label in axes.get_xticklabels()]
        ['1', '2']
    """
    found = [value for value in values if math.isfinite(value)] or [1]
    low, high = min(found), max(found)
    _set(axis, lim=(low - 0.5, high + max(0.5, 0.02 * (high - low))))
    _label(axis, _WholeNumbers(6, integer=True, min_n_ticks=1), log=False)  # two ticks at least may be fractions


def on_log_axis(values: Any) -> Any:
    """Return values as a logarithmic axis shows them: those below its smallest one, at that one; NaN stays."""
    return np.maximum(np.asarray(values, dtype=float), SMALLEST_SHOWN)


class _WholeNumbers(MaxNLocator):
    """Whole numbers within the axis; `MaxNLocator` adds one on each side."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        ticks: Any = super().tick_values(vmin, vmax)
        return ticks[(ticks >= vmin) & (ticks <= vmax)]


def _set(axis: Any, **of_axis: Any) -> None:
    """Set the scale or the limits of the x-axis or y-axis."""
    axis.axes.set(**{f"{axis.axis_name}{name}": value for name, value in of_axis.items()})


def _label(axis: Axis, locator: Locator, log: bool) -> None:
    def text(value: float, position: object = None) -> str:
        # TeX powers of ten take several times as long as everything else.
        return f"≤{value:g}" if log and value <= SMALLEST_SHOWN else f"{value:g}"

    axis.set_major_locator(locator)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(text))
