"""The command ``nc-train export``: write the encoder of a run to files that load without this package.

nc-train export lightning_logs/hscl-digits-beta10 --format safetensors
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from nc_lightning.cli.commands import export_parser
from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.export import export
from nc_lightning.io.atomic import short_path


@errors_on_one_line("nc-train export")
def main(args: Sequence[str] | None = None) -> Path:
    """Run ``nc-train export`` with a command line, by default ``sys.argv[2:]``, and return the path of the folder."""
    options = export_parser().parse_args(sys.argv[2:] if args is None else args)
    folder = export(options.run, options.format, options.output)
    print(f"encoder: {short_path(folder)} ({', '.join(sorted(path.name for path in folder.iterdir()))})")
    return folder
