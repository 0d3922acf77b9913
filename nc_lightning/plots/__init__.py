"""Figures of representation geometry, for dashboards, notebooks and papers."""

from nc_lightning.plots.canvas import to_pdf, to_png
from nc_lightning.plots.depth import depth_figure
from nc_lightning.plots.figures import (
    cosines_figure,
    geometry_figure,
    plane_figure,
    similarities_figure,
    spectrum_figure,
    trajectory_figure,
)

__all__ = [
    "cosines_figure",
    "depth_figure",
    "geometry_figure",
    "plane_figure",
    "similarities_figure",
    "spectrum_figure",
    "to_pdf",
    "to_png",
    "trajectory_figure",
]
