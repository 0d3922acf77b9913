"""The command ``nc-measure``: the geometry of features that any model has made.

nc-measure predictions.npz --plot geometry.png
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from nc_lightning.cli.commands import measure_parser
from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.geometry import (
    ClassStatistics,
    Normalization,
    caveats,
    normalize,
)
from nc_lightning.geometry.survey import survey
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
    return survey(
        lambda: ((normalize(z, normalization), y) for z, y in file.batches()), len(file.classes), file.feature_dim
    )


def main(args: Sequence[str] | None = None) -> dict[str, float]:
    """Run ``nc-measure``.

    Args:
        args: Command line, ``sys.argv[1:]`` if not given.

    Returns:
        Measure by key.

    Raises:
        SystemExit: With code 2 and one line on stderr where the input is bad. Set ``NC_DEBUG=1`` for the traceback.
    """
    options = measure_parser().parse_args(args)
    with errors_on_one_line("nc-measure"):
        return _run(options)


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
    main()
