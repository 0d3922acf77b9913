"""A table of measures and their ideals, for terminals."""

import math
import re
from collections.abc import Mapping
from typing import SupportsFloat

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from nc_lightning.geometry import MEASURES, Ideal, ideal, ideals_met, optimum_met
from nc_lightning.geometry.measures import LOSS_REFERENCES

LOSS_KEYS = ("loss/train", "loss/val", "loss/test", *LOSS_REFERENCES)
"""Losses in the order of tables."""

_ANY_WIDTH = 10_000
_PROTOCOLS = {
    "linear": "linear probe",
    "linear_weight_decay": "its weight decay",
    "ncm": "nearest class mean",
    "precision_at_1": "precision at 1",
    "r_precision": "R-precision",
    "map_at_r": "MAP@R",
}
_NUMBERED_PROTOCOLS = {"knn": "{} nearest neighbors", "few_shot": "nearest {}-shot mean"}


def losses_of(metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """Return the losses among logged metrics, in the order of tables; those of further loaders follow the first one.

    Example:
        >>> losses_of({"loss/val": 0.5, "epoch": 3.0, "loss/val_1": 0.25, "loss/train": 0.4})
        {'loss/train': 0.4, 'loss/val': 0.5, 'loss/val_1': 0.25}
    """
    return {
        key: float(metrics[key])
        for first in LOSS_KEYS
        for key in sorted(metrics, key=lambda key: (len(key), key))
        if re.fullmatch(rf"{first}(_\d+)?", key)
    }


def accuracies_of(metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """Return the accuracies of the online probe and of the k-NN classifier among logged metrics.

    Example:
        >>> accuracies_of({"probe/val_accuracy": 0.5, "probe/train_loss": 2.0, "knn/encoder/val": 0.75})
        {'knn/encoder/val': 0.75, 'probe/val_accuracy': 0.5}
    """
    return {key: float(metrics[key]) for key in sorted(metrics) if re.match(r"probe/.*_accuracy$|knn/", key)}


def set_of(key: str) -> str:
    """Return the set that a logged loss or accuracy belongs to; references of the loss are those of training.

    Example:
        >>> [set_of(key) for key in ("loss/val_1", "loss/bound", "probe/val_accuracy", "knn/encoder/val")]
        ['val_1', 'train', 'val', 'val']
    """
    found = re.fullmatch(r".*/((?:train|val|test)(?:_\d+)?)(?:_accuracy)?", key)
    return "train" if found is None else found[1]


def format_value(value: float) -> str:
    """Format a number with at most nine characters.

    Example:
        >>> [format_value(v) for v in (0.0, 8.99951, 3.2e-7, float("nan"))]
        ['0', '8.9995', '3.2e-07', '-']
    """
    if math.isnan(value):
        return "-"
    if value == 0 or math.isinf(value):
        return f"{value:.0f}"
    return f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.5g}"


def print_table(table: Table) -> None:
    """Print a table with whole values: wider than the terminal if that is too narrow, and the same in a pipe.

    Only columns of running text are wrapped; rich would crop the others.

    Example:
        >>> table = Table.grid()
        >>> table.add_row("nc1", " 0.25")
        >>> print_table(table)
        nc1 0.25
    """
    # With soft_wrap, a title stays on one line. In a notebook, rich would add an empty HTML output to the text.
    console = Console(soft_wrap=True, force_jupyter=False)
    console.width = max(console.width, _least_width(table, console))
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    # rich pads lines to the width of the table, which only a terminal with styles needs
    console.file.write(text if console.is_terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines()))
    console.file.flush()


def _least_width(table: Table, console: Console) -> int:
    """Return the width of a table that has each cell on one line, and a word in each line of the columns that wrap."""
    wide = console.options.update_width(_ANY_WIDTH)
    least = Measurement.get(console, wide, table).maximum
    for column in table.columns:
        if not column.no_wrap:
            cells = [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)]
            least -= max(cell.maximum for cell in cells) - max(cell.minimum for cell in cells)
    return least


def geometry_table(
    results: dict[str, dict[str, float]],
    num_classes: int,
    feature_dim: int,
    headline: bool = False,
    own: Mapping[str, Ideal] | None = None,
) -> Table:
    """Build a table of measures of one or several sets, with the ideal and whether the first set meets it.

    ``alone`` marks a measure that is at its ideal without neural collapse (see `nc_lightning.geometry.ideals_met`). If
    the minimum of the loss is elsewhere, its ideals and those of neural collapse are shown, and the first set is judged
    by its own.

    Args:
        results: Measures by set and key, as in `GeometryMonitor.results`.
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        headline: Whether to show only the headline measures.
        own: Ideals of the loss, from `nc_lightning.geometry.optimal_ideals`; empty or None for neural collapse's.

    Returns:
        A table for `print_table`.
    """
    sets = list(results)
    table = Table(
        title=f"Geometry of {size_text(num_classes, feature_dim)}",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("measure", no_wrap=True)
    for name in sets:
        table.add_column(escape(name), justify="right", no_wrap=True)
    for name in ("this loss", "NC") if own else ("ideal",):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("met", no_wrap=True)
    table.add_column("what it is")
    first = results[sets[0]] if sets else {}
    met = optimum_met(first, own) if own else ideals_met(first, num_classes, feature_dim)
    for key, value in first.items():
        if headline and not MEASURES[key].headline:
            continue
        goal = own.get(key) if own else ideal(key, num_classes, feature_dim)
        if goal is None:
            verdict = ""
        elif met[key]:
            verdict = "[green]yes[/]"
        else:
            verdict = "[yellow]alone[/]" if goal.met(value) else "[yellow]no[/]"
        values = [format_value(results[name].get(key, math.nan)) for name in sets]
        goals = goal_texts(key, num_classes, feature_dim, own)
        table.add_row(key, *values, *goals, verdict, MEASURES[key].headline)
    return table


def size_text(num_classes: int, feature_dim: int) -> str:
    """Return the number of classes and dimensions as the title of a table has it.

    Example:
        >>> size_text(10, 3), size_text(1, 1), size_text(0, 2)
        ('10 classes in 3 dimensions', '1 class in 1 dimension', 'no classes in 2 dimensions')
    """
    classes = f"{num_classes or 'no'} class{'es' * (num_classes != 1)}"
    return f"{classes} in {feature_dim} dimension{'s' * (feature_dim != 1)}"


def evaluation_table(layers: Mapping[str, Mapping[str, float]], title: str) -> Table:
    """Build a table of the results of ``nc-train evaluate``, with a column for each layer.

    Args:
        layers: Values by layer and key.
        title: Title of the table.
    """
    table = Table(title=escape(title), box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("frozen features", no_wrap=True)
    for name in layers:
        table.add_column(escape(name), justify="right", no_wrap=True)
    for row in evaluation_rows(layers):
        table.add_row(*row)
    return table


def evaluation_rows(layers: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return the title of each protocol and its values for the layers, with intervals where they have one.

    Example:
        >>> evaluation_rows({"z": {"ncm": 0.98765, "few_shot_5": 0.9, "few_shot_5_interval": 0.01}})
        [['nearest class mean', '0.9877'], ['nearest 5-shot mean', '0.9000 +- 0.0100']]
    """
    keys = dict.fromkeys(key for values in layers.values() for key in values if not key.endswith("_interval"))
    return [[_protocol_title(key), *(_with_interval(values, key) for values in layers.values())] for key in keys]


def _protocol_title(key: str) -> str:
    name, _, number = key.rpartition("_")
    if name in _NUMBERED_PROTOCOLS:
        return _NUMBERED_PROTOCOLS[name].format(number)
    return _PROTOCOLS.get(key, key)


def _with_interval(values: Mapping[str, float], key: str) -> str:
    value, interval = values.get(key, math.nan), values.get(f"{key}_interval")
    if math.isnan(value):
        return "-"
    text = format_value(value) if key.endswith("weight_decay") else f"{value:.4f}"
    return text if interval is None else f"{text} +- {interval:.4f}"


def goal_texts(key: str, num_classes: int, feature_dim: int, own: Mapping[str, Ideal] | None = None) -> list[str]:
    """Return the ideal of a measure as text, empty without one; with ideals of the loss, its own and neural collapse's.

    Example:
        >>> goal_texts("zero_sum", 10, 9), goal_texts("zero_sum", 10, 9, own={"zero_sum": Ideal(0.5, 0.02, "0.5")})
        (['0'], ['0.5', '0'])
    """
    goal = ideal(key, num_classes, feature_dim)
    text = "" if goal is None else goal.text
    if not own:
        return [text]
    # The gap is 0 at the minimum of the loss, which is not neural collapse.
    return [own[key].text if key in own else "", "" if key == "loss/optimality_gap" else text]
