"""Figures of representation geometry, for dashboards, notebooks and papers; every title states the ideal.

All functions return a `matplotlib.figure.Figure`, made without pyplot and its global state, which a notebook shows;
those of statistics raise a ValueError if no class is present. Pass a dict of several sets or runs by name to compare
them. The colors are distinguishable for color-blind readers, and text is readable in thumbnails.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from nc_lightning.geometry import ClassStatistics
from nc_lightning.plots.canvas import DPI, PANEL, Figure, add_legend, add_title, panel
from nc_lightning.plots.panels import (
    COLORS,
    NAME_SIZE,
    colors_for,
    cosines_of,
    draw_cosine_scale,
    draw_cosines,
    draw_key,
    draw_matrix,
    draw_plane,
    draw_spectrum,
    ideal_cosine,
    order_by_similarity,
    shown_classes,
    shown_names,
)
from nc_lightning.plots.texts import shortened, widest, wrapped
from nc_lightning.plots.ticks import on_log_axis, scale_axis

if TYPE_CHECKING:
    from nc_lightning.losses import SimilarityHistograms

Compared = ClassStatistics | Mapping[str, ClassStatistics]


def geometry_figure(stats: ClassStatistics) -> Figure:
    """Draw the spectrum of class means, their cosines, and the means against the simplex if there is one, in one row.

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
    figure = Figure(figsize=(3 * PANEL[0], PANEL[1]), dpi=DPI, layout="constrained")
    spectrum, cosines, plane = figure.subplots(1, 3)
    draw_spectrum(spectrum, named)
    spectrum.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    labels = shown_classes(named)
    matrix = cosines_of(named[""], labels)
    draw_cosines(cosines, matrix, order_by_similarity([matrix]), shown_names(labels, None))
    classes = int(named[""].present.sum())
    left_out = f"\n{len(labels)} of {classes} classes shown" if len(labels) < classes else ""
    cosines.set_title(f"cosines of class means (ideal: {ideal_cosine(classes):.3g}){left_out}")
    draw_cosine_scale(cosines.inset_axes((0, -0.12, 1, 0.05)))
    draw_plane(plane, named[""], None, None)
    return figure


def cosines_figure(stats: Compared, class_names: Sequence[str] | None = None) -> Figure:
    """Draw the cosines between centered class means next to those of the ideal simplex, with one color scale.

    Each set has a panel, and so has the ideal. Classes are ordered so that similar ones are neighbors, in one order for
    all sets; a class that a set lacks is gray there. The scale runs from -1 to 1 in every figure; it is that of the
    signed square root, so that a cosine of 0.01 differs visibly from 0.

    Args:
        stats: Statistics of the features, or a dict of several by name with a panel for each.
        class_names: Name of each declared class; None for numbers. Names are shown for up to twenty classes.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4))
        >>> [axes.get_title() for axes in cosines_figure({"SCL": stats, "HSCL": stats}).axes[:3]]
        ['SCL', 'HSCL', 'ideal']
    """
    named = _named(stats)
    labels = shown_classes(named)
    classes = int(max(each.present.sum() for each in named.values()))
    return matrices_figure(
        {name: cosines_of(each, labels) for name, each in named.items()}, classes, shown_names(labels, class_names)
    )


def matrices_figure(
    matrices: Mapping[str, np.ndarray[Any, Any]],
    classes: int,
    names: Sequence[str] = (),
    order: np.ndarray[Any, Any] | None = None,
) -> Figure:
    """Draw `cosines_figure` of given matrices of cosines.

    Args:
        matrices: Matrices (K, K) of cosines of the same K classes, by the name of the set.
        classes: Number of classes C; K of them are shown.
        names: Names of the K classes; none to leave them out.
        order: Order of the classes, such as one for several figures; None for similar ones next to each other.
    """
    panels, side = len(matrices) + 1, 2.03
    left, right, gap = max(0.3, 0.2 + widest(names, NAME_SIZE)), 0.25, 0.3
    heads = shortened(name or "class means" for name in [*matrices, "ideal"])
    titles = [wrapped(head, 12, side + 0.8 * gap) for head in heads]
    above = 0.8 + 0.21 * max(title.count("\n") + 1 for title in titles)
    width, height = left + panels * side + (panels - 1) * gap + right, above + side + 0.63
    figure = Figure(figsize=(max(PANEL[0], width), height), dpi=DPI)
    left += max(0.0, PANEL[0] - width) / 2
    order = order_by_similarity(list(matrices.values())) if order is None else order
    shown, cosine = len(order), ideal_cosine(classes)
    ideal = np.full((shown, shown), cosine) + (1 - cosine) * np.eye(shown)
    for column, matrix in enumerate([*matrices.values(), ideal]):
        place = ((left + column * (side + gap)) / figure.get_figwidth(), 0.63 / height)
        axes = figure.add_axes((*place, side / figure.get_figwidth(), side / height))
        if column < len(matrices):
            draw_cosines(axes, matrix, order, names if column == 0 else ())
        else:
            draw_matrix(axes, matrix)
        axes.set_title(titles[column], fontsize=12)
    draw_cosine_scale(figure.add_axes((0.2, 0.37 / height, 0.6, 0.13 / height)))
    left_out = f", {shown} of {classes} shown" if shown < classes else ""
    add_title(figure, "Cosines of the class means", f"ideal: {cosine:.3g} off the diagonal{left_out}")
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
    named = _named(stats)
    figure, axes = panel([*(name or "class means" for name in named), "ideal"])
    rank = draw_spectrum(axes, named)
    axes.set_title("")
    add_legend(figure, *axes.get_legend_handles_labels())
    add_title(figure, "Singular values of the class means", f"ideal: {rank} equal ones; a fall is dimensional collapse")
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
        class_names: Name of each declared class; None for numbers. Up to twenty classes are numbered on the corners,
            and named in a list.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import simplex_etf
        >>> z, labels = simplex_etf(4, 3), torch.arange(4)
        >>> figure = plane_figure(ClassStatistics(4, 3).update(z, labels), z, labels)
    """
    named = _named(stats)
    present = torch.nonzero(named[""].present).flatten()
    names = [] if class_names is None else shown_names(present, class_names)
    key = 0.55 + widest(names, NAME_SIZE) if names else 0.0
    width = PANEL[0] + key
    figure = Figure(figsize=(width, PANEL[1]), dpi=DPI)
    axes = figure.add_axes((0.1 / width, 0.02, (PANEL[0] - 0.2) / width, 0.8))
    simplex = draw_plane(axes, named[""], z, labels)
    axes.set_title("")
    if names:
        draw_key(figure.add_axes(((PANEL[0] + 0.3) / width, 0.04, (key - 0.35) / width, 0.78)), named[""], names)
    fits = "ideal: all points of a class on its corner" if simplex else "too many classes for a simplex"
    add_title(figure, "Features and class means against the simplex", fits)
    return figure


def similarities_figure(histograms: "SimilarityHistograms", num_classes: int) -> Figure:
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
    shares = {"negatives": (histograms.negatives, COLORS[0]), "positives": (histograms.positives, COLORS[2])}
    hardened = histograms.hardened
    figure, axes = panel([*shares, *(["hardened negatives"] if hardened is not None else [])])
    edges = histograms.edges.numpy()
    ideal = ideal_cosine(num_classes)
    for name, (share, color) in shares.items():
        axes.stairs(share.numpy(), edges, fill=True, alpha=0.45, color=color, label=name)
    if hardened is not None:
        axes.stairs(hardened.numpy(), edges, linewidth=1.6, color=COLORS[1], label="hardened negatives")
    for x in (ideal, 1.0):
        axes.axvline(x, color="black", linestyle="--", linewidth=1)
    axes.set(xlabel="inner product with the anchor", ylabel="share of pairs")
    scale_axis(axes.xaxis, edges)
    scale_axis(axes.yaxis, [0.0, *(float(share.max()) for share, _ in shares.values()), *_most(hardened)])
    axes.set_ylim(bottom=0)
    add_legend(figure, *axes.get_legend_handles_labels())
    add_title(figure, "Similarities", f"ideal (dashed): positives 1, negatives {ideal:.3g}")
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
    kept = {name: np.array([p for p in path if np.isfinite(p).all()]).reshape(-1, 2) for name, path in paths.items()}
    kept = {name: points for name, points in kept.items() if len(points)}
    figure, axes = panel(kept)
    widths = on_log_axis([x for points in kept.values() for x in points[:, 0]])
    for (name, points), color in zip(kept.items(), colors_for(kept), strict=True):
        x, y = on_log_axis(points[:, 0]), points[:, 1]
        axes.plot(x, y, marker="o", markersize=3.5, linewidth=1.2, color=color, label=name)
        axes.plot(x[0], y[0], marker="s", markersize=7, color=color, fillstyle="none")
    axes.axhline(rank, color="black", linestyle="--", linewidth=1)
    scale_axis(axes.xaxis, widths, log=True)
    scale_axis(axes.yaxis, [0.0, rank, *(y for points in kept.values() for y in points[:, 1])])
    left, right = axes.get_xlim()
    axes.set_xlim(left * (left / right) ** 0.12, right)
    axes.plot(0.05, rank, marker="*", markersize=15, color="black", zorder=3, transform=axes.get_yaxis_transform())
    axes.set_ylim(bottom=0)
    axes.set(xlabel="within-class variation", ylabel="effective rank")
    add_legend(figure, *axes.get_legend_handles_labels())
    add_title(figure, "The path to neural collapse", f"ideal (star): no variation, rank {rank}; a square is the start")
    return figure


def _named(stats: Compared) -> dict[str, ClassStatistics]:
    """Return statistics by name, on the CPU; a single one gets an empty name."""
    named = {"": stats} if isinstance(stats, ClassStatistics) else dict(stats)
    if not named or not all(each.present.any() for each in named.values()):
        raise ValueError("stats: got statistics without a sample, expected at least one class")
    return {name: each.to("cpu") for name, each in named.items()}


def _most(share: Tensor | None) -> list[float]:
    return [] if share is None else [float(share.max())]
