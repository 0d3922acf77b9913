"""Parts of figures, drawn on given axes: the spectrum, the cosines and the plane of the simplex."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullLocator
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor
from torch.nn.functional import normalize

from nc_lightning.geometry import ClassStatistics, class_mean_spectrum, simplex_plane

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Colors of sets and runs: the palette of Okabe and Ito, which suits every kind of color vision."""
CLASS_COLORS = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#888888"),
)
"""Colors of classes, neighbors being distinct: Tol's muted palette, repeated for more than ten."""
SMALLEST_SHOWN = 1e-8
MOST_CLASSES = 256
"""Largest number of classes in a matrix of cosines, one pixel each; of more, this many evenly spread ones are shown."""
MOST_NAMES = 20
"""Largest number of classes that are named in a figure."""
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
    rank, least = 1, 1.0
    for (name, stats), color in zip(named.items(), colors_for(named), strict=True):
        possible = max(1, min(int(stats.present.sum()) - 1, stats.feature_dim))
        values = class_mean_spectrum(stats).sqrt()[:possible].clamp(min=SMALLEST_SHOWN).numpy()
        rank, least = max(rank, possible), min(least, float(values.min()))
        x = np.arange(1, len(values) + 1)
        axes.plot(x, values, marker=".", markersize=5, linewidth=1.2, color=color, label=name or "class means")
    axes.plot(range(1, rank + 1), [1.0] * rank, linestyle="--", linewidth=1.2, color="black", label="ideal")
    axes.set(
        yscale="log", ylim=(max(SMALLEST_SHOWN, min(0.01, least / 2)), 2), xlabel="index", ylabel="over the largest"
    )
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")  # TeX powers of ten take several times as long as everything else
    axes.set_title(f"spectrum (ideal: {rank} equal ones)")
    axes.legend(fontsize=9, loc="lower left", frameon=False)
    return rank


def draw_matrix(axes: Axes, cosines: np.ndarray[Any, Any]) -> AxesImage:
    """Draw a matrix of cosines with the shared color scale."""
    axes.set(xticks=(), yticks=())
    return axes.imshow(cosines, norm=_SIGNED_ROOT, cmap="RdBu_r", interpolation="nearest")


def draw_cosine_scale(axes: Axes) -> None:
    """Draw the color scale below a matrix; several times as fast as matplotlib's own color bar."""
    roots = np.linspace(-1, 1, 201)
    draw_matrix(axes, (np.sign(roots) * roots**2)[None])
    axes.set(aspect="auto", xlim=(0, 200))
    marks = np.array([-1, -0.5, -0.1, 0, 0.1, 0.5, 1])
    axes.set_xticks(100 + 100 * np.sign(marks) * np.abs(marks) ** 0.5, [f"{mark:g}" for mark in marks], fontsize=9)
    axes.tick_params(length=2)


def draw_cosines(axes: Axes, stats: ClassStatistics, class_names: Sequence[str] | None = None) -> int:
    """Draw the cosines with similar classes next to each other, and return the number of classes."""
    labels = torch.nonzero(stats.present).flatten()
    classes = len(labels)
    shown = torch.linspace(0, classes - 1, min(classes, MOST_CLASSES)).round().long()
    directions = normalize(stats.centered_class_means[shown], dim=1)
    cosines = (directions @ directions.T).clamp(-1, 1).numpy()
    order = _order_by_similarity(cosines)
    draw_matrix(axes, cosines[np.ix_(order, order)])
    if classes <= MOST_NAMES:
        names = [_name(int(label), class_names) for label in labels[shown[torch.from_numpy(order)]]]
        axes.set_yticks(range(classes), names, fontsize=8)
        axes.tick_params(length=0)
    return classes


def _order_by_similarity(cosines: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if len(cosines) < 3:
        return np.arange(len(cosines))
    distance = 1 - (cosines + cosines.T) / 2
    np.fill_diagonal(distance, 0)
    order: np.ndarray[Any, Any] = leaves_list(linkage(squareform(distance, checks=False), "average")).astype(np.int64)
    return order


def draw_plane(
    axes: Axes,
    stats: ClassStatistics,
    z: Tensor | None,
    labels: Tensor | None,
    class_names: Sequence[str] | None = None,
) -> bool:
    """Draw features, means and the simplex if there is one; return whether there is one."""
    present = torch.nonzero(stats.present).flatten()
    classes = len(present)
    basis, corners = simplex_plane(stats)
    radius = float(corners.norm(dim=1).max()) or 1.0
    colors = np.array(CLASS_COLORS)[np.arange(stats.num_classes) % len(CLASS_COLORS)]
    if z is not None and labels is not None:
        center = stats.class_means.mean(0)
        points = ((z.detach().cpu().double() - center) @ basis / radius).numpy()
        axes.scatter(points[:, 0], points[:, 1], s=5, c=colors[labels.cpu().numpy()], linewidths=0, alpha=0.5)
    means = (stats.centered_class_means @ basis / radius).numpy()
    simplex = stats.feature_dim >= classes - 1
    outline = corners.numpy() / radius
    if simplex:
        axes.plot(*np.vstack([outline, outline[:1]]).T, linestyle="--", linewidth=1, color="black")
    size = 40 if classes <= MOST_NAMES else 14
    axes.scatter(
        means[:, 0], means[:, 1], s=size, c=colors[present.numpy()], edgecolors="black", linewidths=0.7, zorder=3
    )
    if classes <= MOST_NAMES:
        for label, (x, y) in zip(present.tolist(), 1.18 * outline, strict=True):
            axes.text(x, y, _name(label, class_names), ha="center", va="center", fontsize=9)
    # Rounded up in steps, so that the axes do not rescale at every small move of the means.
    reach = 1.3 * 2 ** (0.25 * np.ceil(4 * np.log2(max(1.0, np.abs(means).max() / 1.2))))
    axes.set(xlim=(-1.25 * reach, 1.25 * reach), ylim=(-reach, reach), xticks=(), yticks=(), aspect="equal")
    axes.spines[:].set_visible(False)
    axes.set_title("class means and the simplex")
    return simplex


def _name(label: int, names: Sequence[str] | None) -> str:
    return str(label) if names is None else str(names[label])[:12]
