"""Measures of several layers, or of several files: read from logged keys, and set side by side in a table."""

import math
from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from nc_lightning.geometry import ideal, ideals_met
from nc_lightning.plots.depth import DEPTH_MEASURES
from nc_lightning.reports.tables import format_value, size_text

ByLayer = dict[str, dict[str, dict[str, float]]]
"""Measures by layer, set and key."""
OUTPUT = "z"
"""Name of the output of a module among its layers."""


def by_layer(values: Mapping[str, float]) -> ByLayer:
    """Return the measures among logged values by layer, set and key.

    Example:
        >>> by_layer({"geometry/train/nc1": 0.5, "geometry/encoder/val/nc1": 2.0, "loss/train": 1.0})
        {'z': {'train': {'nc1': 0.5}}, 'encoder': {'val': {'nc1': 2.0}}}
    """
    found: ByLayer = {}
    for key, value in values.items():
        if key.startswith("geometry/"):
            *layer, name, measure = key.removeprefix("geometry/").split("/")
            found.setdefault("/".join(layer) or OUTPUT, {}).setdefault(name, {})[measure] = value
    return found


def largest_rank(num_classes: int, feature_dim: int) -> int:
    """Return the largest possible effective rank of C class means in d dimensions, min(C - 1, d)."""
    return min(num_classes - 1, feature_dim)


def layers_table(results: ByLayer, num_classes: int, feature_dims: Mapping[str, int]) -> Table:
    """Build a table with a row for each layer and set, and the measures of the figure by depth.

    Args:
        results: Measures by layer in the order of execution, set and key, as in `GeometryMonitor.by_layer`.
        num_classes: Number of classes C.
        feature_dims: Dimension d of the layers, where it is known.

    Returns:
        A table for `nc_lightning.reports.tables.print_table`.
    """
    table = Table(title="Layers", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("layer", no_wrap=True)
    for head in ("d", "set", *DEPTH_MEASURES):
        table.add_column(head, justify="left" if head == "set" else "right", no_wrap=True)
    for layer, sets in results.items():
        for index, (name, values) in enumerate(sets.items()):
            cells = [format_value(values.get(key, math.nan)) for key in DEPTH_MEASURES]
            if layer in feature_dims and cells[2] != "-":
                cells[2] += f" of {largest_rank(num_classes, feature_dims[layer])}"
            first = (escape(layer), str(feature_dims.get(layer, "-"))) if index == 0 else ("", "")
            table.add_row(*first, name, *cells)
    return table


def compared_table(measured: Mapping[str, tuple[Mapping[str, float], int, int]]) -> Table:
    """Build a table of every measure of several files or arrays, side by side; a check mark means that it is ideal.

    Args:
        measured: Measures, number of classes C (0 without labels, and then without ideals) and dimension d, by the name
            of the column.

    Returns:
        A table for `nc_lightning.reports.tables.print_table`.
    """
    sizes = dict.fromkeys((classes, dim) for _, classes, dim in measured.values())
    title = "Geometry of " + ", ".join(size_text(*size) for size in sizes)
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("measure", no_wrap=True)
    for name in measured:
        table.add_column(escape(name), justify="right", no_wrap=True)
    mixed = len({classes > 0 for classes, _ in sizes}) > 1
    table.add_column("ideal with labels" if mixed else "ideal", justify="right", no_wrap=True)
    met = {name: ideals_met(dict(values), c, dim) if c else {} for name, (values, c, dim) in measured.items()}
    for key in dict.fromkeys(key for values, _, _ in measured.values() for key in values):
        cells = [
            f"{format_value(values.get(key, math.nan))} {'✓' if met[name].get(key) else ' '}"
            for name, (values, _, _) in measured.items()
        ]
        goals = dict.fromkeys(goal.text for size in sizes if size[0] and (goal := ideal(key, *size)))
        table.add_row(key, *cells, " or ".join(goals))
    return table
