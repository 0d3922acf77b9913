"""Figures of representation geometry, for dashboards, notebooks and papers."""

from nc_lightning.plots.figures import (
    cosines_figure,
    geometry_figure,
    plane_figure,
    similarities_figure,
    spectrum_figure,
    to_png,
    trajectory_figure,
)

__all__ = [
    "cosines_figure",
    "geometry_figure",
    "plane_figure",
    "similarities_figure",
    "spectrum_figure",
    "to_png",
    "trajectory_figure",
]
