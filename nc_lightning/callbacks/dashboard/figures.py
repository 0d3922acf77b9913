"""Figures of one measurement of the geometry monitor."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from nc_lightning import plots
from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.geometry import normalize, unit_sphere
from nc_lightning.losses import ContrastiveLoss, similarity_histograms

ANCHORS_SHOWN = 256
"""Number of anchors in a histogram of similarities; more of them hardly change it."""


def geometry_figures(
    monitor: GeometryMonitor,
    loss: object = None,
    paths: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, bytes]:
    """Draw the figures of the latest measurement, as PNG files by name; none for data without labels.

    Args:
        monitor: Monitor with a measurement, and with a sample for the figures that show features.
        loss: `ContrastiveLoss` whose normalization and hardening the similarities use; without one they are cosines.
        paths: (within-class variation, effective rank) at each measurement, by set.
        class_names: Name of each class.
    """
    stats = {name: each for name, each in monitor.statistics.items() if int(each.present.sum()) > 1}
    if not stats:
        return {}
    first = next(iter(stats.values()))
    classes, sample = int(first.present.sum()), monitor.sample
    with _no_collection():
        figures = {"cosines": plots.cosines_figure(first, class_names), "spectrum": plots.spectrum_figure(stats)}
        if sample is None:
            figures["plane"] = plots.plane_figure(first, class_names=class_names)
        else:
            figures["plane"] = plots.plane_figure(first, sample.z, sample.labels, class_names)
            if isinstance(loss, ContrastiveLoss):
                z, hardening, negatives = normalize(sample.z, loss.normalization), loss.hardening, loss.negatives
                histograms = similarity_histograms(z, sample.labels, hardening, negatives, max_anchors=ANCHORS_SHOWN)
            else:
                histograms = similarity_histograms(unit_sphere(sample.z), sample.labels, max_anchors=ANCHORS_SHOWN)
            figures["similarities"] = plots.similarities_figure(histograms, classes)
        if paths:
            figures["trajectory"] = plots.trajectory_figure(paths, min(classes - 1, first.feature_dim))
        return {name: plots.to_png(figure) for name, figure in figures.items()}


@contextmanager
def _no_collection() -> Iterator[None]:
    """Pause the garbage collector: matplotlib makes it scan all objects of torch, which takes as long as drawing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
