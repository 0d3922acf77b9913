"""The figures of one measurement of the geometry monitor."""

from collections.abc import Mapping, Sequence

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.geometry import normalize, unit_sphere
from nc_lightning.losses import ContrastiveLoss, similarity_histograms
from nc_lightning.plots import (
    cosines_figure,
    plane_figure,
    similarities_figure,
    spectrum_figure,
    to_png,
    trajectory_figure,
)

ANCHORS_SHOWN = 500
"""Anchors whose similarities are counted: more of them hardly change a histogram."""


def geometry_figures(
    monitor: GeometryMonitor,
    loss: object = None,
    paths: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, bytes]:
    """Draw all that can be drawn of the latest measurement.

    Args:
        monitor: After a measurement, with a sample for the figures that show features.
        loss: Of the module: a `ContrastiveLoss` says how features are normalised and negatives hardened; without one
            similarities are cosines.
        paths: By set, (within-class variation, effective rank) at each measurement.
        class_names: Name of each class.

    Returns:
        PNG files by name; none for data without labels.
    """
    stats = {name: each for name, each in monitor.statistics.items() if int(each.present.sum()) > 1}
    if not stats:
        return {}
    first = next(iter(stats.values()))
    classes = int(first.present.sum())
    figures = {"cosines": cosines_figure(first, class_names), "spectrum": spectrum_figure(stats)}
    sample = monitor.sample
    if sample is None:
        figures["plane"] = plane_figure(first, class_names=class_names)
    else:
        figures["plane"] = plane_figure(first, sample.z, sample.labels, class_names)
        if isinstance(loss, ContrastiveLoss):
            z, hardening, negatives = normalize(sample.z, loss.normalization), loss.hardening, loss.negatives
            histograms = similarity_histograms(z, sample.labels, hardening, negatives, max_anchors=ANCHORS_SHOWN)
        else:
            histograms = similarity_histograms(unit_sphere(sample.z), sample.labels, max_anchors=ANCHORS_SHOWN)
        figures["similarities"] = similarities_figure(histograms, classes)
    if paths:
        figures["trajectory"] = trajectory_figure(paths, min(classes - 1, first.feature_dim))
    return {name: to_png(figure) for name, figure in figures.items()}
