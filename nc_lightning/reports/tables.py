"""A table of measures and their ideals, for terminals."""

import math
import re
from collections.abc import Mapping
from typing import SupportsFloat

from rich.box import SIMPLE_HEAD
from rich.table import Table

from nc_lightning.geometry import MEASURES, ideal, ideals_met
from nc_lightning.geometry.measures import LOSS_REFERENCES

LOSS_KEYS = ("loss/train", "loss/val", "loss/test", *LOSS_REFERENCES)
"""Losses in the order of tables."""


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


def geometry_table(
    results: dict[str, dict[str, float]], num_classes: int, feature_dim: int, headline: bool = False
) -> Table:
    """Build a table of measures of one or several sets, with the ideal and whether the first set meets it.

    ``alone`` marks a measure that is at its ideal without neural collapse (see `nc_lightning.geometry.ideals_met`).

    Args:
        results: Measures by set and key, as in `GeometryMonitor.results`.
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        headline: Whether to show only the headline measures.

    Returns:
        A table for `rich.print`.
    """
    sets = list(results)
    table = Table(
        title=f"Geometry of {num_classes} classes in {feature_dim} dimensions",
        box=SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("measure", no_wrap=True)
    for name in sets:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("ideal", justify="right", no_wrap=True)
    table.add_column("met", no_wrap=True)
    table.add_column("what it is")
    met = ideals_met(results[sets[0]], num_classes, feature_dim) if sets else {}
    for key in results[sets[0]] if sets else ():
        if headline and not MEASURES[key].headline:
            continue
        goal = ideal(key, num_classes, feature_dim)
        if goal is None:
            verdict = ""
        elif met[key]:
            verdict = "[green]yes[/]"
        else:
            verdict = "[yellow]alone[/]" if goal.met(results[sets[0]][key]) else "[yellow]no[/]"
        values = [format_value(results[name][key]) for name in sets]
        table.add_row(key, *values, "" if goal is None else goal.text, verdict, MEASURES[key].headline)
    return table
