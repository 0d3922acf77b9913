"""Figures that show themselves in a notebook, with room for their titles and legends."""

import math
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any

import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from nc_lightning.plots.texts import shortened, width

DPI = 120
PANEL = (4.8, 3.7)
"""Width and height of a figure with one panel in inches, without its legend."""
_LINE = 0.2
_LEGEND_SIZE = 9
_BESIDE_NAME = 0.55
"""Inches that a legend needs for the sample of a line and the gap to the next column."""


class Figure(matplotlib.figure.Figure):
    """Figure that a notebook shows as it is; those of matplotlib need pyplot or ``%matplotlib inline`` for that."""

    def _repr_png_(self) -> bytes:
        """Return the picture, for IPython and Jupyter."""
        return to_png(self)


def to_png(figure: matplotlib.figure.Figure) -> bytes:
    """Render a figure to a PNG file with 256 colors, a fraction of the size of a full-color one.

    Example:
        >>> from nc_lightning.plots import trajectory_figure
        >>> to_png(trajectory_figure({"train": [(1.0, 2.0)]}, rank=9))[1:4]
        b'PNG'
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(256, Image.Quantize.FASTOCTREE)
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def to_pdf(figure: matplotlib.figure.Figure) -> bytes:
    """Render a figure to a PDF file, for papers: a vector graphic, sharp in any size.

    Example:
        >>> to_pdf(Figure())[1:4]
        b'PDF'
    """
    file = BytesIO()
    figure.savefig(file, format="pdf")
    return file.getvalue()


def panel(names: Iterable[str] = ()) -> tuple[Figure, Axes]:
    """Return a figure with one pair of axes, and room below them for a legend with these names."""
    below = legend_height(names, PANEL[0])
    height = PANEL[1] + below
    figure = Figure(figsize=(PANEL[0], height), dpi=DPI)
    axes = figure.add_axes((0.19, (0.56 + below) / height, 0.77, 2.44 / height))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def add_title(figure: matplotlib.figure.Figure, title: str, ideal: str) -> None:
    """Write the title of a figure, and below it what is ideal, into the upper 0.7 inches."""
    height = figure.get_figheight()
    figure.text(0.5, 1 - 0.055 / height, title, ha="center", va="top", fontsize=12, fontweight="bold")
    figure.text(0.5, 1 - 0.35 / height, ideal, ha="center", va="top", fontsize=9.5)


def legend_height(names: Iterable[str], inches: float) -> float:
    """Return the height in inches of a legend in a figure of this width; 0 without names."""
    listed = shortened(names)
    return _LINE * math.ceil(len(listed) / _columns(listed, inches)) + 0.08 if listed else 0.0


def add_legend(figure: matplotlib.figure.Figure, handles: Sequence[Any], names: Sequence[str], **where: Any) -> None:
    """Draw a legend outside of all axes, where it covers no data: at the lower edge, or at ``where``.

    It has as many columns as fit.
    """
    if not names:
        return
    listed = shortened(names)
    columns = _columns(listed, figure.get_figwidth())
    figure.legend(
        handles,
        listed,
        fontsize=_LEGEND_SIZE,
        ncols=columns,
        frameon=False,
        borderaxespad=0.2,
        borderpad=0.1,
        **(where or {"loc": "lower center"}),
    )


def _columns(names: Sequence[str], inches: float) -> int:
    widths = [width(name, _LEGEND_SIZE) + _BESIDE_NAME for name in names]
    return max(1, min(len(names), int((inches - 0.1) / max(widths, default=inches))))
