"""Settings of runs side by side, and the options of their configurations that differ."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from nc_lightning.reports.page import Cell, Table
from nc_lightning.reports.record import RunRecord
from nc_lightning.reports.tables import format_value

MISSING = "-"


def settings_table(records: Sequence[RunRecord]) -> Table:
    """Return a table with a row for each setting and a column for each run.

    Example:
        >>> settings_table([RunRecord("mine", 10, 9, {"beta": 5.0}, history=[{"epoch": 3.0}])])
        (['', 'mine'], [['beta', '5'], ['epochs', '3']])
    """
    described = [record.described() for record in records]
    names = list(dict.fromkeys(name for settings in described for name in settings))
    rows: list[list[Cell]] = [[name, *(_text(settings.get(name)) for settings in described)] for name in names]
    return ["", *(record.name for record in records)], rows


def split_by_difference(table: Table) -> tuple[Table, Table]:
    """Split a table into the rows whose cells differ, and those with the same one in all columns, shown once.

    Example:
        >>> split_by_difference((["", "a", "b"], [["beta", "5", "2"], ["seed", "0", "0"]]))
        ((['', 'a', 'b'], [['beta', '5', '2']]), (['', 'all runs'], [['seed', '0']]))
    """
    heads, rows = table
    differ = [row for row in rows if len(set(row[1:])) > 1]
    return (heads, differ), (["", "all runs"], [row[:2] for row in rows if len(set(row[1:])) == 1])


def options(records: Sequence[RunRecord]) -> Table | None:
    """Return a table of the options in which the configurations differ; None if there are none or one is unknown.

    Example:
        >>> runs = [RunRecord(name, 10, 9, config=f"model: {{beta: {name}, tau: 1}}") for name in ("2", "5")]
        >>> options(runs)
        (['', '2', '5'], [['model.beta', '2', '5']])
    """
    configs = [_read(record.config) for record in records]
    if not all(configs):
        return None
    keys = dict.fromkeys(key for config in configs for key in config)
    rows: list[list[Cell]] = [[key, *(config.get(key, MISSING) for config in configs)] for key in keys]
    heads = ["", *(record.name for record in records)]
    differing, _ = split_by_difference((heads, rows))
    return differing if differing[1] else None


def _read(config: str) -> dict[str, str]:
    """Return the options of a configuration by their keys; none if it is not YAML."""
    try:
        return dict(_flat(yaml.safe_load(config)))
    except yaml.YAMLError:
        return {}


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        inner = list(enumerate(value))
    for name, entry in inner:
        yield from _flat(entry, f"{key}.{name}" if key else str(name))
    if key and not inner:
        yield key, "null" if value is None else str(value)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return format_value(value) if isinstance(value, float) else str(value)
