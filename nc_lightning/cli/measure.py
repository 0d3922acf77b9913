"""The command ``nc-measure``: measure the geometry of features from any model.

nc-measure predictions.npz --plot geometry.png
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from nc_lightning.cli.commands import measure_parser
from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.geometry import caveats, normalize
from nc_lightning.geometry.survey import survey
from nc_lightning.io.feature_files import FeatureFile
from nc_lightning.plots import geometry_figure
from nc_lightning.reports.tables import geometry_table


@errors_on_one_line("nc-measure")
def main(args: Sequence[str] | None = None) -> dict[str, float]:
    """Run ``nc-measure`` with a command line, by default ``sys.argv[1:]``, and return each measure by its key."""
    options = measure_parser().parse_args(args)
    if options.plot is not None and Path(options.plot).exists():
        raise ValueError(f"--plot: got {options.plot!r}, which exists, expected a new file")
    file = FeatureFile(options.file, options.labels)
    values, stats = survey(
        lambda: ((normalize(z, options.normalization), y) for z, y in file.batches()),
        len(file.classes),
        file.feature_dim,
    )
    if file.num_unknown:
        print(f"nc-measure: note: {file.num_unknown} samples without a label are skipped", file=sys.stderr)
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
