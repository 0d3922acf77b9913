"""Parts of figures, drawn on given axes: the spectrum, the cosines and the plane of the simplex."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn.functional import normalize

from nc_lightning.geometry import ClassStatistics, class_mean_spectrum, simplex_plane
from nc_lightning.plots.texts import shortened
from nc_lightning.plots.ticks import on_log_axis, scale_axis, whole_numbers

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colors of sets and runs: the palette of Okabe and Ito, which suits every kind of color vision."""
CLASS_COLORS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#888888"),
)
"""Colors of classes, neighbors being distinct: Tol's muted palette, repeated for more than ten."""
MOST_CLASSES = 256
"""Largest number of classes in a matrix of cosines, one pixel each; of more, this many evenly spread ones are shown."""
MOST_NAMES = 20
"""Largest number of classes that are named in a figure."""
NAME_SIZE = 8
"""Size of the names of classes in points."""
_SIGNED_ROOT = FuncNorm((lambda x: np.sign(x) * np.abs(x) ** 0.5, lambda x: np.sign(x) * x**2), vmin=-1, vmax=1)
"""One color scale for all matrices of cosines, on which 0.01 differs visibly from 0."""


def colors_for(named: Mapping[str, object]) -> tuple[str, ...]:
    """Return a color for each name; the palette repeats."""
    return (COLORS * (len(named) // len(COLORS) + 1))[: len(named)]


def ideal_cosine(classes: int) -> float:
    """Return the cosine between any two of C class means at neural collapse."""
    return -1 / (classes - 1) if classes > 1 else 0.0


def draw_spectrum(axes: Axes, named: Mapping[str, ClassStatistics]) -> int:
    """Draw a line for each set, and return the ideal rank."""
    rank, drawn = 1, [1.0, 0.01]  # two decades at least: on a shorter axis, random class means look collapsed
    for (name, stats), color in zip(named.items(), colors_for(named), strict=True):
        possible = max(1, min(int(stats.present.sum()) - 1, stats.feature_dim))
        values = on_log_axis(class_mean_spectrum(stats).sqrt()[:possible].numpy())
        rank, drawn = max(rank, possible), [*drawn, *values]
        x = np.arange(1, len(values) + 1)
        axes.plot(x, values, marker=".", markersize=5, linewidth=1.2, color=color, label=name or "class means")
    marker = "_" if rank == 1 else None
    axes.plot(range(1, rank + 1), [1.0] * rank, "--", marker=marker, linewidth=1.2, color="black", label="ideal")
    axes.set(xlabel="index", ylabel="over the largest")
    scale_axis(axes.yaxis, drawn, log=True)
    whole_numbers(axes.xaxis, [1, rank])
    axes.set_title(f"spectrum (ideal: {rank} equal ones)")
    return rank


def draw_matrix(axes: Axes, cosines: np.ndarray[Any, Any]) -> AxesImage:
    """Draw a matrix of cosines with the shared color scale; NaN is gray."""
    axes.set(xticks=(), yticks=(), facecolor="0.8")
    return axes.imshow(cosines, norm=_SIGNED_ROOT, cmap="RdBu_r", interpolation="nearest")


def draw_cosine_scale(axes: Axes) -> None:
    """Draw the color scale below a matrix; several times as fast as matplotlib's own color bar."""
    roots = np.linspace(-1, 1, 201)
    draw_matrix(axes, (np.sign(roots) * roots**2)[None])
    axes.set(aspect="auto", xlim=(0, 200))
    marks = np.array([-1, -0.5, -0.1, 0, 0.1, 0.5, 1])
    axes.set_xticks(100 + 100 * np.sign(marks) * np.abs(marks) ** 0.5, [f"{mark:g}" for mark in marks], fontsize=9)
    axes.tick_params(length=2)


def shown_classes(named: Mapping[str, ClassStatistics]) -> Tensor:
    """Return the classes that figures show of those that any set has: all, or `MOST_CLASSES` evenly spread ones."""
    sizes = max(stats.num_classes for stats in named.values())
    present = torch.zeros(sizes, dtype=torch.bool)
    for stats in named.values():
        present[: stats.num_classes] |= stats.present
    labels = torch.nonzero(present).flatten()
    return labels[torch.linspace(0, len(labels) - 1, min(len(labels), MOST_CLASSES)).round().long()]


def cosines_of(stats: ClassStatistics, labels: Tensor) -> np.ndarray[Any, Any]:
    """Return the matrix of cosines of the centered means of these classes; NaN where a class has no sample."""
    means = torch.full((max(stats.num_classes, int(labels.max()) + 1), stats.feature_dim), torch.nan).double()
    means[torch.nonzero(stats.present).flatten()] = stats.centered_class_means
    directions = normalize(means[labels], dim=1)
    cosines: np.ndarray[Any, Any] = (directions @ directions.T).clamp(-1, 1).numpy()
    return cosines


def order_by_similarity(matrices: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return the order of classes in which similar ones are neighbors, one for several matrices of cosines."""
    cosines = np.mean([np.nan_to_num(matrix) for matrix in matrices], axis=0)
    if len(cosines) < 3:
        return np.arange(len(cosines))
    distance = 1 - (cosines + cosines.T) / 2
    np.fill_diagonal(distance, 0)
    order: np.ndarray[Any, Any] = leaves_list(linkage(squareform(distance, checks=False), "average")).astype(np.int64)
    return order


def draw_cosines(
    axes: Axes, cosines: np.ndarray[Any, Any], order: np.ndarray[Any, Any], names: Sequence[str] = ()
) -> None:
    """Draw a matrix of cosines in an order of the classes, with their names if there are any."""
    draw_matrix(axes, cosines[np.ix_(order, order)])
    if names:
        size = min(NAME_SIZE, 125 / len(names))  # rows of a matrix are as high as its names
        axes.set_yticks(range(len(order)), [names[k] for k in order], fontsize=size)
        axes.tick_params(length=0)


def shown_names(labels: Tensor, class_names: Sequence[str] | None) -> list[str]:
    """Return the names of classes as figures show them; none if they are more than `MOST_NAMES`."""
    if len(labels) > MOST_NAMES:
        return []
    return shortened(str(label if class_names is None else class_names[label]) for label in labels.tolist())


def draw_plane(axes: Axes, stats: ClassStatistics, z: Tensor | None, labels: Tensor | None) -> bool:
    """Draw features, means and the simplex if there is one, with the numbers of the classes on its corners.

    Returns:
        Whether there is a simplex.
    """
    present = torch.nonzero(stats.present).flatten()
    classes = len(present)
    basis, corners = simplex_plane(stats)
    apart = float(corners.norm(dim=1).max())
    radius = apart or 1.0
    colors = np.array(CLASS_COLORS)[np.arange(stats.num_classes) % len(CLASS_COLORS)]
    if z is not None and labels is not None:
        center = stats.class_means.mean(0)
        points = ((z.detach().cpu().double() - center) @ basis / radius).numpy()
        axes.scatter(points[:, 0], points[:, 1], s=5, c=colors[labels.cpu().numpy()], linewidths=0, alpha=0.5)
    means = (stats.centered_class_means @ basis / radius).numpy()
    simplex = stats.feature_dim >= classes - 1
    outline = corners.numpy() / radius
    if simplex:
        axes.plot(*np.vstack([outline, outline[:1]]).T, linestyle="--", linewidth=1, color="black", zorder=4)
    size = 40 if classes <= MOST_NAMES else 14 if classes <= MOST_CLASSES else 4
    edge, color = size**0.5 / 9, colors[present.numpy()]
    axes.scatter(means[:, 0], means[:, 1], s=size, c=color, edgecolors="black", linewidths=edge, zorder=3)
    if classes <= MOST_NAMES and apart > 0:
        halo = [withStroke(linewidth=2.5, foreground="white")]  # readable on top of a mean, which stays visible
        for label, (x, y) in zip(present.tolist(), 1.2 * outline, strict=True):
            axes.text(x, y, str(label), ha="center", va="center", fontsize=9, zorder=4, path_effects=halo)
    # Rounded up in steps, so that the axes do not rescale at every small move of the means.
    reach = 1.3 * 2 ** (0.25 * np.ceil(4 * np.log2(max(1.0, np.abs(means).max() / 1.2))))
    axes.set(xlim=(-1.25 * reach, 1.25 * reach), ylim=(-reach, reach), xticks=(), yticks=(), aspect="equal")
    axes.spines[:].set_visible(False)
    axes.set_title("class means and the simplex" if simplex else "class means (too many for a simplex)")
    return simplex


def draw_key(axes: Axes, stats: ClassStatistics, names: Sequence[str]) -> None:
    """List the numbers, colors and names of the classes, from top to bottom."""
    labels = torch.nonzero(stats.present).flatten().tolist()
    axes.set(xlim=(0, 1), ylim=(MOST_NAMES - 0.5, -0.5))
    axes.axis("off")
    first = (MOST_NAMES - len(labels)) / 2
    for row, (label, name) in enumerate(zip(labels, names, strict=True)):
        at, color = (0, first + row), CLASS_COLORS[label % len(CLASS_COLORS)]
        axes.plot(*at, "o", markersize=5, color=color, markeredgecolor="black", markeredgewidth=0.6, clip_on=False)
        for text, offset, align in ((str(label), -6, "right"), (name, 6, "left")):
            place: Any = {"xytext": (offset, 0), "textcoords": "offset points", "ha": align, "va": "center_baseline"}
            axes.annotate(text, at, fontsize=NAME_SIZE, annotation_clip=False, **place)
