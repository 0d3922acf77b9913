"""The command ``nc-sweep``: train every cell of a grid, and collect the results.

nc-sweep paper/sweeps/digit_pairs.yaml --jobs 2
nc-sweep mine.yaml --output runs/mine --trainer.max_epochs 5
"""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from nc_lightning.cli.command_error import CommandError
from nc_lightning.cli.commands import nc_sweep, sweep_parser
from nc_lightning.cli.configs import find_config
from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.did_you_mean import did_you_mean
from nc_lightning.io.atomic import replace_file
from nc_lightning.reports.tables import format_value
from nc_lightning.sweeps.cell import STOPPED, CellFolder
from nc_lightning.sweeps.local import run_locally
from nc_lightning.sweeps.plan import Plan, read_plan
from nc_lightning.sweeps.ranking import check_rank_by
from nc_lightning.sweeps.report import sweep_html, write_figures
from nc_lightning.sweeps.results import HEADLINES, how_many, read_result, results_csv, results_markdown, undone
from nc_lightning.sweeps.slurm import run_on_slurm

SHOWN = ("geometry/train/effective_rank", "geometry/train/nc1")
"""Measures printed for a finished cell."""


@errors_on_one_line("nc-sweep")
def main(args: Sequence[str] | None = None) -> Path:
    """Run ``nc-sweep`` with a command line, by default ``sys.argv[1:]``, and return the folder of the sweep.

    Raises:
        CommandError: On bad input, or with exit code 1 if a cell is not done at the end.
        SystemExit: With 130 or 143 if the sweep was stopped by a signal.
    """
    options, extra = sweep_parser().parse_known_args(args)
    settings = _settings(extra)
    if options.jobs < 1:
        raise ValueError(f"--jobs: got {options.jobs}, expected at least 1")
    rank_by = None if options.rank_by is None else check_rank_by(options.rank_by)
    path = Path(find_config(options.sweep, "SWEEP", "paper/sweeps"))
    plan = read_plan(path, settings)
    root = Path(options.output or Path("sweeps") / path.stem)
    folders = [CellFolder(root, cell) for cell in plan.cells]
    if options.list:
        for result in map(read_result, folders):
            print(f"{result.status:8}{result.name}")
        return root
    for folder in folders:
        folder.claim()
    waiting = [folder for folder in folders if not folder.done]
    print(f"{len(folders)} cells in {root}, {len(folders) - len(waiting)} already done")
    progress = _Progress(len(waiting))
    if options.submit:
        stopped_by = run_on_slurm(waiting, root, plan.cluster, progress)
    else:
        stopped_by = run_locally(waiting, options.jobs, progress)
    not_done = _gather(folders, plan, root, rank_by)
    if stopped_by:
        print("stopped; resume with the same command")
        raise SystemExit(128 + stopped_by)
    if not_done:
        raise CommandError(f"{not_done} of {len(folders)} cells not done, see above", "nc-sweep", code=1)
    return root


def _settings(extra: Sequence[str]) -> list[str]:
    """Join each setting of nc-train to one argument, and refuse other arguments."""
    settings: list[str] = []
    for argument in extra:
        if re.match(r"--(data(=|$)|\w+\.\w)", argument):
            settings.append(argument)
        elif settings and "=" not in settings[-1] and not argument.startswith("--"):
            settings[-1] += f"={argument}"
        else:
            near = did_you_mean(argument.partition("=")[0], sweep_parser().options)
            raise ValueError(
                f"got {argument!r}, expected an option of nc-sweep, or a setting such as --model.beta 5{near}"
            )
    return settings


class _Progress:
    """Print a line for each cell that has ended."""

    def __init__(self, count: int) -> None:
        self.count, self.ended, self.start = count, 0, time.monotonic()

    def __call__(self, folder: CellFolder, code: int) -> None:
        self.ended += 1
        result = read_result(folder)
        if code == 0 and result.status != "done":
            outcome = "running in another process"
        elif code == 0:
            values = result.values
            measured = (f"{HEADLINES[key]} {format_value(values[key])}" for key in SHOWN if key in values)
            outcome = ", ".join(["done", *measured])
        elif code in STOPPED:
            outcome = "stopped"
        elif code < 0:
            outcome = f"killed by signal {-code}, see {folder.log}"
        else:
            outcome = f"failed: {result.error} (see {folder.log})"
        left = (time.monotonic() - self.start) / self.ended * (self.count - self.ended) / 60
        soon = f", {left:.0f} min left" if self.ended < self.count else ""
        print(f"[{self.ended}/{self.count}{soon}] {folder.cell.name}: {outcome}", flush=True)


def _gather(folders: Sequence[CellFolder], plan: Plan, root: Path, rank_by: str | None) -> int:
    """Write tables, figures and report of the results so far; return the number of cells that are not done."""
    results = [read_result(folder) for folder in folders]
    replace_file(root / "results.csv", results_csv(results, plan.axes))
    replace_file(root / "results.md", results_markdown(results, plan.axes, root.name))
    figures = write_figures(results, plan.axes, root / "figures")
    replace_file(root / "report.html", sweep_html(results, plan.axes, root, figures, rank_by))
    print(how_many(results))
    for result in undone(results):
        print(f"{result.status}: {result.name}{result.error and ': '}{result.error}")
    for name in ("results.csv", "results.md", "report.html"):
        print(f"{name.partition('.')[0]}: {root / name}")
    return len(undone(results))


if __name__ == "__main__":
    nc_sweep()
