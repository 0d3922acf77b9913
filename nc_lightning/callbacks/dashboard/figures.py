"""Figures of one measurement of the geometry monitor."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from nc_lightning import plots
from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.geometry import normalize, unit_sphere
from nc_lightning.io.atomic import replace_file
from nc_lightning.losses import ContrastiveLoss, similarity_histograms
from nc_lightning.plots.panels import cosines_of, shown_classes, shown_names
from nc_lightning.reports.layers import largest_rank

ANCHORS_SHOWN = 256
"""Number of anchors in a histogram of similarities; more of them hardly change it."""


def geometry_figures(
    monitor: GeometryMonitor,
    loss: object = None,
    paths: Mapping[str, Sequence[tuple[float, float]]] | None = None,
    class_names: Sequence[str] | None = None,
) -> dict[str, Figure]:
    """Draw the figures of the latest measurement, by name; none for data without labels.

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
    with no_collection():
        figures: dict[str, Figure] = {
            "cosines": plots.cosines_figure(first, class_names),
            "spectrum": plots.spectrum_figure(stats),
        }
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
        if len(monitor.by_layer) > 1:
            ranks = {layer: largest_rank(classes, dim) for layer, dim in monitor.feature_dims.items()}
            figures["layers"] = plots.depth_figure(monitor.by_layer, ranks)
        if paths:
            figures["trajectory"] = plots.trajectory_figure(paths, largest_rank(classes, first.feature_dim))
        return figures


def measured_cosines(monitor: GeometryMonitor, class_names: Sequence[str] | None) -> dict[str, Any]:
    """Return the cosines of the class means for `RunRecord.cosines`; empty for data without labels."""
    stats = next((each.to("cpu") for each in monitor.statistics.values() if int(each.present.sum()) > 1), None)
    if stats is None:
        return {}
    labels = shown_classes({"": stats})
    matrix = cosines_of(stats, labels)
    rows = [[round(float(cosine), 3) for cosine in row[: k + 1]] for k, row in enumerate(matrix)]
    return {
        "classes": int(stats.present.sum()),
        "names": shown_names(labels, class_names),
        "labels": labels.tolist(),
        "rows": rows,
    }


def write_pdfs(figures: Mapping[str, Figure], folder: Path) -> None:
    """Write each figure to ``NAME.pdf`` in a folder, which is made if there is a figure."""
    for name, figure in figures.items():
        folder.mkdir(exist_ok=True)
        with no_collection():
            replace_file(folder / f"{name}.pdf", plots.to_pdf(figure))


@contextmanager
def no_collection() -> Iterator[None]:
    """Pause the garbage collector: matplotlib makes it scan all objects of torch, which takes as long as drawing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
