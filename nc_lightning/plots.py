"""Figures of representation geometry, for notebooks and papers; each says in its title what is ideal.

All are made of class statistics and returned as `matplotlib.figure.Figure`, without pyplot and its state.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from nc_lightning.geometry import ClassStatistics, class_mean_spectrum

SMALLEST_SHOWN = 1e-16


def geometry_figure(stats: ClassStatistics) -> Figure:
    """Draw the spectrum of class means, their cosines, and the means in the plane of their largest variance.

    Args:
        stats: Statistics of the features.

    Returns:
        A figure with three panels.

    Raises:
        ValueError: If no class is present.

    Example:
        >>> from nc_lightning.geometry import simplex_etf
        >>> stats = ClassStatistics(4, 3).update(simplex_etf(4, 3), torch.arange(4))
        >>> len(geometry_figure(stats).axes)  # the colour bar has one of its own
        4
    """
    if not stats.present.any():
        raise ValueError("stats: got statistics without a sample, expected at least one class")
    stats = stats.to("cpu")
    figure = Figure(figsize=(13, 4), layout="constrained")
    spectrum, cosines, plane = figure.subplots(1, 3)
    draw_spectrum(spectrum, stats)
    draw_cosines(cosines, stats)
    draw_class_means(plane, stats)
    return figure


def draw_spectrum(axes: Axes, stats: ClassStatistics) -> None:
    """Draw the sorted eigenvalues of the class means' covariance over the largest; ideal is flat, then nothing."""
    values = class_mean_spectrum(stats).clamp(min=SMALLEST_SHOWN).tolist()
    rank = min(int(stats.present.sum()) - 1, stats.feature_dim)
    axes.semilogy(range(1, len(values) + 1), values, marker=".", color="C0", label="class means")
    axes.semilogy(range(1, rank + 1), [1.0] * rank, linestyle="--", color="C1", label="ideal")
    axes.set_ylim(SMALLEST_SHOWN, 10)
    axes.set_xlabel("index")
    axes.set_title(f"spectrum of class means (ideal: {rank} ones)")
    axes.legend(loc="lower left")


def draw_cosines(axes: Axes, stats: ClassStatistics) -> None:
    """Draw the cosines between centred class means, on a scale from -1 to 1; ideal are equal ones off the diagonal."""
    means = stats.centred_class_means
    directions = torch.nn.functional.normalize(means, dim=1)
    image = axes.imshow((directions @ directions.T).numpy(), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest")
    axes.figure.colorbar(image, ax=axes, shrink=0.8)
    classes = len(means)
    axes.set_title(f"cosines of class means (ideal: {-1 / (classes - 1):.3g})" if classes > 1 else "one class")


def draw_class_means(axes: Axes, stats: ClassStatistics) -> None:
    """Draw the centred class means in the plane of their largest variance."""
    x, y = _plane(stats.centred_class_means).T.tolist()
    axes.scatter(x, y, s=16, color="C0")
    for label, a, b in zip(torch.nonzero(stats.present).flatten().tolist(), x, y, strict=True):
        axes.annotate(str(label), (a, b), fontsize=7, xytext=(2, 2), textcoords="offset points")
    axes.set_aspect("equal")
    axes.set_title("class means, two of the dimensions")


def _plane(means: Tensor) -> Tensor:
    directions = torch.linalg.svd(means, full_matrices=False)[2][:2]
    return torch.nn.functional.pad(means @ directions.T, (0, 2 - len(directions)))
