"""The command ``nc-train evaluate``: accuracy and retrieval of the frozen features of a run.

nc-train evaluate lightning_logs/hscl-digits-beta10
nc-train evaluate lightning_logs/hscl-digits-beta10 --layers encoder --data CIFAR10DataModule
"""

import csv
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch import LightningDataModule

from nc_lightning.checks import separated_names
from nc_lightning.cli.commands import evaluate_parser
from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.cli.noise import without_noise
from nc_lightning.did_you_mean import nearest
from nc_lightning.io.atomic import atomic_write, replace_file, short_path
from nc_lightning.reports.html import report_html
from nc_lightning.reports.record import FILE_NAME, RunRecord
from nc_lightning.reports.tables import evaluation_table, print_table
from nc_lightning.runs import RunFiles, find_run, load_data, load_module
from nc_lightning.runs.evaluation import RunEvaluation, evaluate


@without_noise()
@errors_on_one_line("nc-train evaluate")
def main(args: Sequence[str] | None = None) -> RunEvaluation:
    """Run ``nc-train evaluate`` with its own arguments, and return the values by layer.

    Example:
        >>> main(["no"])
        Traceback (most recent call last):
        ...
        nc_lightning.cli.command_error.CommandError: run: got 'no', expected the folder of a run, or a checkpoint file
    """
    options, others = evaluate_parser().parse_known_args(args)
    layers = separated_names("--layers", options.layers)
    files = find_run(options.run)  # reads whole checkpoints, to find one that is
    folder = _folder(files, options.run)
    record = RunRecord.read(folder) if (folder / FILE_NAME).is_file() else None
    other_data = _data_of(others)
    data = other_data or load_data(options.run)
    if data is None:
        raise ValueError(f"--data: got none, and {options.run} has no config.yaml, expected the class of a data module")
    found = evaluate(load_module(files.checkpoint), data, layers)
    name = _name(other_data, others) if other_data else None
    print_evaluation(found, name)
    for path in _save(found, folder, files.checkpoint, Path(options.run).is_file(), name, record):
        print(f"evaluation: {short_path(path)}")
    return found


def print_evaluation(found: RunEvaluation, data: str | None = None) -> None:
    """Print the table of an evaluation, and its notes."""
    title = f"{found.train_size:,} training and {found.test_size:,} test samples" + (f" of {data}" if data else "")
    print_table(evaluation_table(found.layers, title))
    for note in found.notes:
        print(f"note: {note}")


def _data_of(args: Sequence[str]) -> LightningDataModule | None:
    """Return the data module that ``--data`` and its options describe; None without them."""
    if args and not any(arg.partition("=")[0] == "--data" for arg in args):
        own = [option.removeprefix("--") for option in evaluate_parser().options]
        if near := nearest(args[0].partition("=")[0].removeprefix("--"), own, count=1):
            raise ValueError(f"{args[0]}: there is no such option; did you mean --{near[0]}?")
        raise ValueError(f"{args[0]}: expected after --data CLASS, which evaluates on another data set")
    parser = ArgumentParser("nc-train evaluate", exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data", required=False)
    data: LightningDataModule | None = parser.instantiate(parser.parse_args(list(args))).get("data")
    return data


def _name(data: LightningDataModule, args: Sequence[str]) -> str:
    """Return the class of a data module and the options that were given for it.

    Example:
        >>> from nc_lightning.data import DigitsDataModule
        >>> _name(DigitsDataModule(), ["--data", "nc_lightning.data.DigitsDataModule", "--data.seed", "3"])
        'DigitsDataModule seed 3'
    """
    options = itertools.dropwhile(lambda arg: not arg.startswith("--data."), args)
    return " ".join([type(data).__name__, *(arg.removeprefix("--data.") for arg in options)])


def _folder(files: RunFiles, run: str) -> Path:
    """Return the folder of a run that was given as such or by a checkpoint.

    Raises:
        PermissionError: If the results could not be written to it.
    """
    folder = files.config.parent if files.config is not None else files.checkpoint.parent
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"run: got {run!r}, whose folder cannot be written to, expected one for the results")
    return folder


def _save(
    found: RunEvaluation, folder: Path, checkpoint: Path, named: bool, data: str | None, record: RunRecord | None
) -> Iterator[Path]:
    """Write JSON and CSV next to the report, which gets a table too, and yield the path of each when it is written."""
    stems = itertools.chain(["evaluation"], (f"evaluation-{n}" for n in itertools.count(1)))
    paths = ([folder / f"{stem}.json", folder / f"{stem}.csv"] for stem in stems)
    json_file, csv_file = next(pair for pair in paths if not any(path.exists() for path in pair))
    layers = {layer: {key: _number(value) for key, value in values.items()} for layer, values in found.layers.items()}
    content: dict[str, Any] = {"checkpoint": str(checkpoint), "data": data, **found._asdict(), "layers": layers}
    replace_file(json_file, json.dumps(content, indent=2, allow_nan=False) + "\n")
    yield json_file
    with atomic_write(csv_file) as half, half.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["protocol", *found.layers])
        keys = dict.fromkeys(key for values in found.layers.values() for key in values)
        writer.writerows([key, *(values.get(key, math.nan) for values in found.layers.values())] for key in keys)
    yield csv_file
    if record is not None:
        # A checkpoint that was named may be an earlier one than that of the report's geometry.
        source = f" of {checkpoint.name}" * named + (f" on {data}" if data else "")
        record.evaluation |= {f"{layer}{source}": values for layer, values in found.layers.items()}
        record.write(folder / FILE_NAME)
        replace_file(folder / "report.html", report_html([record]))
        yield folder / "report.html"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
