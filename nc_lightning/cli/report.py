"""The command ``nc-report``: rebuild the report of a run, or compare several runs.

nc-report lightning_logs/hscl-digits-beta10
nc-report lightning_logs/scl-digits lightning_logs/hscl-digits-beta10 --output comparison.html
"""

from collections.abc import Sequence
from pathlib import Path

from nc_lightning.cli.commands import nc_report, report_parser
from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.io.atomic import errors_of, replace_file, unused_path
from nc_lightning.reports.html import report_html
from nc_lightning.reports.record import RunRecord


@errors_on_one_line("nc-report")
def main(args: Sequence[str] | None = None) -> Path:
    """Run ``nc-report`` with a command line, by default ``sys.argv[1:]``, and return the path of the report."""
    options = report_parser().parse_args(args)
    runs, output = [Path(run) for run in options.runs], options.output
    records = [RunRecord.read(run) for run in runs]
    if len(records) > 1:
        for record, name in zip(records, _told_apart(runs, [record.name for record in records]), strict=True):
            record.name = name
    if output is not None:
        path = Path(output)
        if path.exists():
            raise ValueError(f"--output: got {output!r}, which exists, expected a new file")
    elif len(runs) > 1:
        path = unused_path(Path("comparison.html"))
    else:
        # The report is built from the record in its folder, so replacing it loses nothing.
        path = runs[0] / "report.html" if runs[0].is_dir() else runs[0].with_suffix(".html")
    with errors_of("--output", path):
        replace_file(path, report_html(records))
    print(f"report: {path}")
    return path


def _told_apart(runs: list[Path], names: list[str]) -> list[str]:
    """Return the names of runs, with their folders if two have the same name.

    Example:
        >>> _told_apart([Path("a/v0"), Path("a/v1"), Path("b/v0")], ["SCL", "HSCL", "SCL"])
        ['SCL (a/v0)', 'HSCL', 'SCL (b/v0)']
    """
    return [f"{name} ({run})" if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


if __name__ == "__main__":
    nc_report()
