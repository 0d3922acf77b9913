"""The command ``nc-measure``: measure the geometry of features from any model.

nc-measure predictions.npz --plot geometry.png
nc-measure predictions.npz --features-key encoder,z
nc-measure scl.npy hscl.npy --labels labels.npy
"""

import argparse
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.backend_bases import FigureCanvasBase
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from nc_lightning.checks import separated_names
from nc_lightning.cli.beyond_statistics import SAMPLE_SIZE, beyond_statistics
from nc_lightning.cli.commands import measure_parser, nc_measure
from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.geometry import MEASURES, ClassStatistics, Normalization, caveats, normalize
from nc_lightning.geometry.survey import survey
from nc_lightning.io.atomic import atomic_write
from nc_lightning.io.feature_columns import WholeColumns, shortened
from nc_lightning.io.feature_files import FeatureFile, is_of_labels
from nc_lightning.io.feature_names import Keys
from nc_lightning.plots import depth_figure, geometry_figure
from nc_lightning.reports.layers import compared_table, largest_rank
from nc_lightning.reports.tables import geometry_table, print_table

NORM_TOLERANCE = 1e-3
"""Distance of a norm above 1 up to which features count as normalized."""
OF_NORMS = ("zero_sum", "unit_norm", "within_class_variation")
"""Measures that depend on the scale of the features."""


class Measured(NamedTuple):
    """Measures of features by key, their class statistics, and their number of classes, 0 without labels."""

    values: dict[str, float]
    stats: ClassStatistics
    num_classes: int


@errors_on_one_line("nc-measure")
def main(args: Sequence[str] | None = None) -> dict[str, Any]:
    """Run ``nc-measure`` with a command line, by default ``sys.argv[1:]``.

    Returns:
        Each measure by its key; for several files or arrays, these by the name of the column.
    """
    options = measure_parser().parse_args(args)
    if options.plot is not None:
        _check_plot(Path(options.plot))
    if options.tensorboard is not None:
        _check_writable("--tensorboard", Path(options.tensorboard))
    files = _named_files(options)
    several = len(files) > 1
    # All files are checked before the first one is measured.
    measured = {
        name: _measure(file, options.normalization, options.ood, f"{name}: " * several) for name, file in files.items()
    }
    values = {name: one.values for name, one in measured.items()}
    sizes = {name: (one.num_classes, one.stats.feature_dim) for name, one in measured.items()}
    if options.json:
        shown = {name: {key: v if math.isfinite(v) else None for key, v in own.items()} for name, own in values.items()}
        print(json.dumps(shown if several else next(iter(shown.values())), indent=2))
    elif several or not next(iter(sizes.values()))[0]:
        print_table(compared_table({name: (own, *sizes[name]) for name, own in values.items()}))
    else:
        print_table(geometry_table(values, *next(iter(sizes.values()))))
    if options.plot is not None or options.tensorboard is not None:
        figure = None
        if not several and next(iter(sizes.values()))[0]:
            figure = geometry_figure(next(iter(measured.values())).stats)
        elif several and all(classes for classes, _ in sizes.values()):
            ranks = {name: largest_rank(*size) for name, size in sizes.items()}
            figure = depth_figure({name: {"features": own} for name, own in values.items()}, ranks)
        if options.plot is not None and figure is not None:
            with atomic_write(Path(options.plot)) as half:
                figure.savefig(half, dpi=150, format=_ending(Path(options.plot)))
        if options.tensorboard is not None:
            with SummaryWriter(options.tensorboard) as writer:
                for name, own in values.items():
                    for key, value in own.items():
                        writer.add_scalar(f"geometry/{name}/{key}", value)
                if figure is not None:
                    writer.add_figure("geometry/features", figure)
    return dict(values) if several else next(iter(values.values()))


def _check_plot(path: Path) -> None:
    if path.exists():
        raise ValueError(f"--plot: got {str(path)!r}, which exists, expected a new file")
    endings = FigureCanvasBase.get_supported_filetypes()
    if _ending(path) not in endings:
        raise ValueError(f"--plot: got {str(path)!r}, expected a file that ends in .{', .'.join(sorted(endings))}")
    _check_writable("--plot", path.parent)


def _ending(path: Path) -> str:
    return path.suffix[1:].lower()


def _check_writable(option: str, folder: Path) -> None:
    """Refuse a folder in which no file can be made, or that cannot be made itself."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{option}: got the folder {str(folder)!r}, expected one to write to: {reason}") from error


def _measure(file: FeatureFile, normalization: Normalization, ood: str | None, prefix: str) -> Measured:
    largest = 0.0
    whole = WholeColumns(file.columns)

    def normalized() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal largest
        for given, labels in file.batches():
            whole.update(given)
            z = normalize(given, normalization)
            largest = max(largest, float(torch.linalg.vector_norm(z, dim=1).max())) if len(z) else largest
            yield z, labels

    values, stats = survey(normalized, max(1, len(file.classes)), file.feature_dim)
    values |= beyond_statistics(file, stats, normalization, ood)
    notes = []
    if file.num_unknown:
        samples = (
            "1 sample without a label is"
            if file.num_unknown == 1
            else f"{file.num_unknown} samples without a label are"
        )
        notes.append(f"{samples} skipped")
    if not file.classes:
        values = {key: value for key, value in values.items() if MEASURES[key].label_free}
        columns = f"; the features are the columns {shortened(file.columns)}" if file.columns else ""
        notes.append(
            "there are no labels, so only the measures that need none are shown; give labels by --labels FILE,"
            f" or their name by --labels-key{columns}"
        )
    elif caveats(stats):
        notes.append(caveats(stats))
    if whole.names:
        notes.append(
            f"columns of whole numbers ({shortened(whole.names)}) are measured as features; name labels by"
            " --labels-key, and features by --features-key, or leave out what is neither"
        )
    if file.classes and largest > 1 + NORM_TOLERANCE:
        notes.append(
            f"features are not normalized (norms up to {largest:.3g}), but {', '.join(OF_NORMS)} assume it; if the "
            "model was trained with normalized features, add --normalization unit_ball or unit_sphere"
        )
    if stats.num_samples > SAMPLE_SIZE:
        notes.append(f"intrinsic_dimension is that of {SAMPLE_SIZE} samples")
    for note in notes:
        print(f"nc-measure: note: {prefix}{note}", file=sys.stderr)
    return Measured(values, stats, len(file.classes))


def _named_files(options: argparse.Namespace) -> dict[str, FeatureFile]:
    """Return the features to measure by the name of their column: ``features``, the array, the file, or both."""
    pairs: list[tuple[str, str | None]] = []
    for path in options.files:
        if pairs and pairs[-1][1] is None and pairs[-1][0].endswith(".npy") and is_of_labels(path):
            pairs[-1] = pairs[-1][0], path
        else:
            pairs.append((path, None))
    counts = Counter(Path(path).name for path, _ in pairs)
    given = options.features_key
    names: Sequence[str | None] = [None] if given is None else separated_names("--features-key", given)
    files: dict[str, FeatureFile] = {}
    for path, labels in pairs:
        file = Path(path).name if counts[Path(path).name] == 1 else path
        for array in names:
            parts = [file] * (len(pairs) > 1) + [array] * (array is not None)
            name = ": ".join(part for part in parts if part) or "features"
            if name in files:
                raise ValueError(f"FILE: got {name!r} twice, expected each file and array once")
            files[name] = FeatureFile(path, labels or options.labels, Keys(array, options.labels_key))
    unlabeled = [name for name, one in files.items() if not one.classes]
    for option in ("ood", "plot"):
        if unlabeled and getattr(options, option) is not None:
            raise ValueError(f"--{option}: got {unlabeled[0]!r} without labels, expected labels: it uses class means")
    return files


if __name__ == "__main__":
    nc_measure()
