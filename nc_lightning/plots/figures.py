"""Figures of representation geometry, for dashboards, notebooks and papers; every title states the ideal.

All functions return a `matplotlib.figure.Figure`, made without pyplot and its global state; those of statistics raise a
ValueError if no class is present. Pass a dict of several sets or runs by name to compare them. The colors are
distinguishable for color-blind readers, and text is readable in thumbnails.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image
from torch import Tensor

from nc_lightning.geometry import ClassStatistics
from nc_lightning.losses import SimilarityHistograms
from nc_lightning.plots.panels import (
    COLORS,
    MOST_CLASSES,
    SMALLEST_SHOWN,
    colors_for,
    draw_cosine_scale,
    draw_cosines,
    draw_matrix,
    draw_plane,
    draw_spectrum,
    ideal_cosine,
)

_PANEL = (4.8, 3.7)
_DPI = 120
Compared = ClassStatistics | Mapping[str, ClassStatistics]


def geometry_figure(stats: ClassStatistics) -> Figure:
    """Draw the spectrum of class means, their cosines, and the means against the simplex, in one row.

    Args:
        stats: Statistics of the features.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4))
        >>> len(geometry_figure(stats).axes)
        3
    """
    named = _named(stats)
    figure = Figure(figsize=(3 * _PANEL[0], _PANEL[1]), dpi=_DPI, layout="constrained")
    spectrum, cosines, plane = figure.subplots(1, 3)
    draw_spectrum(spectrum, named)
    classes = draw_cosines(cosines, named[""])
    cosines.set_title(f"cosines of class means (ideal: {ideal_cosine(classes):.3g})")
    draw_cosine_scale(cosines.inset_axes((0, -0.12, 1, 0.05)))
    draw_plane(plane, named[""], None, None)
    return figure


def cosines_figure(stats: Compared, class_names: Sequence[str] | None = None) -> Figure:
    """Draw the cosines between centered class means next to those of the ideal simplex, with one color scale.

    Each set has a panel, and so has the ideal. Classes are ordered so that similar ones are neighbors. The scale runs
    from -1 to 1 in every figure; it is that of the signed square root, so that a cosine of 0.01 differs visibly from 0.

    Args:
        stats: Statistics of the features, or a dict of several by name with a panel for each.
        class_names: Name of each declared class; None for numbers. Up to twenty are shown.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4))
        >>> [axes.get_title() for axes in cosines_figure({"SCL": stats, "HSCL": stats}).axes[:3]]
        ['SCL', 'HSCL', 'ideal']
    """
    named = _named(stats)
    panels = len(named) + 1
    figure = Figure(figsize=(_PANEL[0] / 2 * panels, _PANEL[1]), dpi=_DPI)
    grid = figure.add_gridspec(
        1, panels, left=0.14 / panels, right=1 - 0.08 / panels, bottom=0.17, top=0.78, wspace=0.16
    )
    classes = 0
    for column, (name, each) in enumerate(named.items()):
        axes = figure.add_subplot(grid[column])
        classes = max(classes, draw_cosines(axes, each, class_names))
        axes.set_title(name or "class means")
    cosine = ideal_cosine(classes)
    shown = min(classes, MOST_CLASSES)
    ideal = figure.add_subplot(grid[panels - 1])
    draw_matrix(ideal, np.full((shown, shown), cosine) + (1 - cosine) * np.eye(shown))
    ideal.set_title("ideal")
    draw_cosine_scale(figure.add_axes((0.2, 0.1, 0.6, 0.035)))
    left_out = f", {shown} of {classes} shown" if shown < classes else ""
    _title(figure, "Cosines of the class means", f"ideal: {cosine:.3g} off the diagonal{left_out}")
    return figure


def spectrum_figure(stats: Compared) -> Figure:
    """Draw the sorted singular values of the centered class means over the largest, with the ideal.

    The scale is logarithmic; values below 1e-8 are drawn at its lower end.

    Args:
        stats: Statistics of the features, or a dict of several by name with a line for each.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4))
        >>> len(spectrum_figure({"train": stats}).axes[0].get_lines())
        2
    """
    figure, axes = _panel()
    rank = draw_spectrum(axes, _named(stats))
    axes.set_title("")
    _title(figure, "Singular values of the class means", f"ideal: {rank} equal ones; a fall is dimensional collapse")
    return figure


def plane_figure(
    stats: ClassStatistics,
    z: Tensor | None = None,
    labels: Tensor | None = None,
    class_names: Sequence[str] | None = None,
) -> Figure:
    """Draw class means and features in the plane in which the ideal simplex is a regular polygon.

    The polygon is in the same place in every figure (see `nc_lightning.geometry.simplex_plane`).

    Args:
        stats: Statistics of the features.
        z: Sample (S, d) of the features; None to draw only the means.
        labels: Classes (S,) of the sample.
        class_names: Name of each declared class; None for numbers. Up to twenty are shown.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> z, labels = simplex_etf(4, 3), torch.arange(4)
        >>> figure = plane_figure(ClassStatistics(4, 3).update(z, labels), z, labels)
    """
    figure = Figure(figsize=_PANEL, dpi=_DPI)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.8))
    simplex = draw_plane(axes, _named(stats)[""], z, labels, class_names)
    axes.set_title("")
    fits = "ideal: all points of a class on its corner" if simplex else "too many classes for a simplex"
    _title(figure, "Features and class means against the simplex", fits)
    return figure


def similarities_figure(histograms: SimilarityHistograms, num_classes: int) -> Figure:
    """Draw the distributions of similarities of positives, negatives and hardened negatives.

    Args:
        histograms: Histograms as returned by `nc_lightning.losses.similarity_histograms`.
        num_classes: Number of classes C, for the ideal.

    Example:
        >>> import torch
        >>> from nc_lightning.losses import similarity_histograms
        >>> figure = similarities_figure(similarity_histograms(torch.eye(4), torch.arange(4) % 2), num_classes=2)
        >>> figure.axes[0].get_xlabel()
        'inner product with the anchor'
    """
    figure, axes = _panel()
    edges = histograms.edges.numpy()
    ideal = ideal_cosine(num_classes)
    for share, name, color in (
        (histograms.negatives, "negatives", COLORS[0]),
        (histograms.positives, "positives", COLORS[2]),
    ):
        axes.stairs(share.numpy(), edges, fill=True, alpha=0.45, color=color, label=name)
    if histograms.hardened is not None:
        axes.stairs(histograms.hardened.numpy(), edges, linewidth=1.6, color=COLORS[1], label="hardened negatives")
    for x in (ideal, 1.0):
        axes.axvline(x, color="black", linestyle="--", linewidth=1)
    axes.set_xticks(np.linspace(edges[0], edges[-1], 5).round(2))
    axes.set(xlim=(edges[0], edges[-1] * 1.02), xlabel="inner product with the anchor", ylabel="share of pairs")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, loc="upper left" if ideal > -0.3 else "upper center", frameon=False)
    _title(figure, "Similarities", f"ideal (dashed): positives 1, negatives {ideal:.3g}")
    return figure


def trajectory_figure(paths: Mapping[str, Sequence[tuple[float, float]]], rank: int) -> Figure:
    """Plot the path of runs or sets towards neural collapse: left means tighter classes, up means more dimensions.

    Args:
        paths: Points (within-class variation, effective rank of the class means) of each measurement, by name.
        rank: Ideal effective rank, C - 1 or d.

    Example:
        >>> figure = trajectory_figure({"train": [(1.0, 2.0), (0.1, 8.5)]}, rank=9)
        >>> figure.axes[0].get_ylabel()
        'effective rank'
    """
    figure, axes = _panel()
    least = 1.0
    for (name, path), color in zip(paths.items(), colors_for(paths), strict=True):
        points = np.array([p for p in path if np.isfinite(p).all()]).reshape(-1, 2).clip(min=SMALLEST_SHOWN)
        if len(points) == 0:
            continue
        least = min(least, points[:, 0].min())
        axes.plot(*points.T, marker="o", markersize=3.5, linewidth=1.2, color=color, label=name)
        axes.plot(*points[0], marker="s", markersize=7, color=color, fillstyle="none")
    axes.axhline(rank, color="black", linestyle="--", linewidth=1)
    axes.plot(least / 3, rank, marker="*", markersize=15, color="black", clip_on=False, zorder=3)
    axes.set(xscale="log", xlim=(least / 4.5, None), ylim=(0, rank * 1.08))
    axes.set(xlabel="within-class variation", ylabel="effective rank")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9, loc="lower left", frameon=False)
    _title(figure, "The path to neural collapse", f"ideal (star): no variation, rank {rank}; a square is the start")
    return figure


def to_png(figure: Figure) -> bytes:
    """Render a figure to a PNG file with 256 colors, a fraction of the size of a full-color one.

    Example:
        >>> to_png(trajectory_figure({"train": [(1.0, 2.0)]}, rank=9))[1:4]
        b'PNG'
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]).quantize(256, Image.Quantize.FASTOCTREE)
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _named(stats: Compared) -> dict[str, ClassStatistics]:
    """Return statistics by name, on the CPU; a single one gets an empty name."""
    named = {"": stats} if isinstance(stats, ClassStatistics) else dict(stats)
    if not named or not all(each.present.any() for each in named.values()):
        raise ValueError("stats: got statistics without a sample, expected at least one class")
    return {name: each.to("cpu") for name, each in named.items()}


def _panel() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_PANEL, dpi=_DPI)
    axes = figure.add_axes((0.19, 0.15, 0.77, 0.66))
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _title(figure: Figure, title: str, ideal: str) -> None:
    figure.text(0.5, 0.985, title, ha="center", va="top", fontsize=12, fontweight="bold")
    figure.text(0.5, 0.905, ideal, ha="center", va="top", fontsize=9.5)
