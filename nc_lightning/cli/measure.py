"""The command ``nc-measure``: the geometry of features that any model has made.

nc-measure predictions.npz --plot geometry.png
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.geometry import (
    CenterDistances,
    ClassStatistics,
    Normalization,
    caveats,
    normalize,
)
from nc_lightning.geometry.survey import all_measures
from nc_lightning.io.feature_files import FeatureFile
from nc_lightning.plots import geometry_figure
from nc_lightning.reports.tables import geometry_table


def measure_file(
    path: str | Path, labels: str | Path | None = None, normalization: Normalization = "none"
) -> tuple[dict[str, float], ClassStatistics]:
    """Measure the features of a file, in two passes over it and without keeping them.

    Args:
        path: As of `FeatureFile`.
        labels: As of `FeatureFile`.
        normalization: Applied to the features before they are measured.

    Returns:
        What `nc_lightning.geometry.measure` returns for the same features, and their statistics.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If it cannot be read, or a feature is not finite.
    """
    file = FeatureFile(path, labels)
    stats = ClassStatistics(len(file.classes), file.feature_dim)
    for z, y in file.batches():
        stats.update(normalize(z, normalization), y)
    seen = CenterDistances(stats)
    for z, y in file.batches():
        seen.update(normalize(z, normalization), y)
    return all_measures(stats, seen), stats


def main(args: Sequence[str] | None = None) -> dict[str, float]:
    """Run ``nc-measure``.

    Args:
        args: Command line, ``sys.argv[1:]`` if not given.

    Returns:
        Measure by key.

    Raises:
        SystemExit: With code 2 and one line on stderr where the input is bad. Set ``NC_DEBUG=1`` for the traceback.
    """
    options = _parser().parse_args(args)
    with errors_on_one_line("nc-measure"):
        return _run(options)


def console_script() -> None:
    """Run ``nc-measure`` from a shell, whose exit code is not to be an object."""
    main()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("nc-measure", description="Measure the geometry of features in a file.")
    parser.add_argument("file", metavar="FILE", help=".npz or .pt or .parquet with features and labels, or .npy")
    parser.add_argument("labels", metavar="LABELS", nargs="?", help="second .npy, with the labels")
    parser.add_argument("--normalization", choices=get_args(Normalization), default="none", help="applied before")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table; NaN and infinity as null")
    parser.add_argument("--plot", metavar="OUT.png", help="draw spectrum, cosines of class means and class means")
    parser.add_argument("--tensorboard", metavar="DIR", help="write the measures and the figure for TensorBoard")
    return parser


def _run(options: argparse.Namespace) -> dict[str, float]:
    if options.plot is not None and Path(options.plot).exists():
        raise ValueError(f"--plot: got {options.plot!r}, which exists, expected a new file")
    values, stats = measure_file(options.file, options.labels, options.normalization)
    if unknown := FeatureFile(options.file, options.labels).num_unknown:
        print(f"nc-measure: note: {unknown} samples without a label are left out", file=sys.stderr)
    if caveats(stats):
        print(f"nc-measure: note: {caveats(stats)}", file=sys.stderr)
    if options.json:
        print(json.dumps({key: value if math.isfinite(value) else None for key, value in values.items()}, indent=2))
    else:
        Console().print(geometry_table({"features": values}, stats.num_classes, stats.feature_dim))
    if options.plot is not None:
        geometry_figure(stats).savefig(options.plot, dpi=150)
    if options.tensorboard is not None:
        with SummaryWriter(options.tensorboard) as writer:
            for key, value in values.items():
                writer.add_scalar(f"geometry/features/{key}", value)
            writer.add_figure("geometry/features", geometry_figure(stats))
    return values


if __name__ == "__main__":
    console_script()
