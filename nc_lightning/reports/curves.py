"""Curves of a report over epochs: the data of its interactive charts."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nc_lightning.geometry import MEASURES
from nc_lightning.reports.record import RunRecord

SETS = ("train", "val")
MOST_POINTS = 500
"""Largest number of points of a curve: as many as a chart has pixels."""
_DIGITS = 5


class Line(NamedTuple):
    """A curve: its name, the index of its color (None for a reference), whether it is dashed, and y by epoch."""

    name: str
    color: int | None
    dashed: bool
    points: dict[float, float]


def charts(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the charts of loss, optimality gap, NC1 and effective rank of the class means, for JSON.

    A chart has a title, whether y is logarithmic, whether it begins at 0, the epochs x, and the lines with their values
    at x (None where there is none). Training is a solid line and validation a dashed one if there are several runs,
    which then have a color each. Charts without a curve are omitted. At most `MOST_POINTS` points of a curve are kept,
    the last one among them.

    Args:
        records: Records of the runs to compare, or of a single one.

    Example:
        >>> history = [{"epoch": 1.0, "geometry/train/nc1": 0.5}, {"epoch": 2.0, "geometry/train/nc1": 0.25}]
        >>> (chart,) = charts([RunRecord("mine", 10, 9, history=history)])
        >>> chart["title"], chart["x"], chart["lines"][0]["y"]
        ('NC1, within over between classes (ideal 0)', [1.0, 2.0], [0.5, 0.25])
    """
    ranked = any(_points(record, "geometry/train/effective_rank") for record in records)
    made = [
        _chart("Loss, and its lower bound", _losses(records)),
        _chart("Loss minus its lower bound", _each_run(records, {"train": "loss/optimality_gap"}), log=True),
        _chart(f"{MEASURES['nc1'].title} (ideal 0)", _each_run(records, _of_sets("nc1")), log=True),
        _chart("Effective rank of the class means", _ranks(records), from_zero=True)
        if ranked
        else _chart(MEASURES["rankme"].title, _each_run(records, _of_sets("rankme")), from_zero=True),
    ]
    return [chart for chart in made if chart["lines"]]


def _chart(title: str, lines: Iterator[Line], log: bool = False, from_zero: bool = False) -> dict[str, Any]:
    drawn = [
        line._replace(points=_thinned({x: y for x, y in line.points.items() if y > 0 or not log})) for line in lines
    ]
    drawn = [line for line in drawn if line.points]
    if all(line.color is None for line in drawn):
        drawn = []
    x = sorted({epoch for line in drawn for epoch in line.points})
    if len(x) == 1 and x[0] > 0:
        # The axis starts at 0, from where references are drawn: a line needs two points.
        drawn = [
            line._replace(points={0.0: line.points[x[0]], **line.points}) if line.color is None else line
            for line in drawn
        ]
        x = [0.0, *x]
    listed = [
        {"name": line.name, "color": line.color, "dashed": line.dashed, "y": [line.points.get(epoch) for epoch in x]}
        for line in drawn
    ]
    return {"title": title, "log": log, "from_zero": from_zero, "x": x, "lines": listed}


def _of_sets(measure: str) -> dict[str, str]:
    return {name: f"geometry/{name}/{measure}" for name in SETS}


def _each_run(records: Sequence[RunRecord], keys: dict[str, str]) -> Iterator[Line]:
    """Yield a line for each run and set; ``keys`` are the logged keys by set."""
    several = len(records) > 1
    for number, record in enumerate(records):
        for index, (name, key) in enumerate(keys.items()):
            named = record.name if len(keys) == 1 else f"{record.name}, {name}"
            color, dashed = (number, index > 0) if several else (index, False)
            yield Line(named if several else name, color, dashed, _points(record, key))


def _losses(records: Sequence[RunRecord]) -> Iterator[Line]:
    yield from _each_run(records, {name: f"loss/{name}" for name in SETS})
    yield from _references(records, {record.name: ("bound", _points(record, "loss/bound")) for record in records})


def _ranks(records: Sequence[RunRecord]) -> Iterator[Line]:
    yield from _each_run(records, _of_sets("effective_rank"))
    ideals = {}
    for record in records:
        goal = record.ideal("geometry/train/effective_rank")
        epochs = _points(record, "geometry/train/effective_rank")
        if goal is not None:
            ideals[record.name] = "ideal", dict.fromkeys(epochs, float(goal.value))
    yield from _references(records, ideals)


def _references(records: Sequence[RunRecord], of_runs: dict[str, tuple[str, dict[float, float]]]) -> Iterator[Line]:
    """Yield the references of runs, once where they are the same in several."""
    found: list[tuple[str, dict[float, float], list[str]]] = []
    for run, (name, points) in of_runs.items():
        same = next((entry for entry in found if _agree(entry[1], points)), None)
        if same is None:
            found.append((name, dict(points), [run]))
        else:
            same[1].update(points)
            same[2].append(run)
    for name, points, runs in found:
        of = "" if len(runs) == len(records) else f" of {runs[0]}" if len(runs) == 1 else f" of {len(runs)} runs"
        yield Line(name + of, None, True, points)


def _agree(one: dict[float, float], other: dict[float, float]) -> bool:
    shared = one.keys() & other.keys()
    if not shared:
        return set(one.values()) == set(other.values())
    return all(math.isclose(one[epoch], other[epoch], rel_tol=1e-4) for epoch in shared)


def _points(record: RunRecord, key: str) -> dict[float, float]:
    """Return the finite values of a logged key by epoch, in ascending order."""
    entries = [entry for entry in (*record.losses, *record.history) if key in entry]
    found = {entry.get("epoch", math.nan): entry[key] for entry in entries}
    return {
        epoch: float(f"{value:.{_DIGITS}g}")
        for epoch, value in sorted(found.items())
        if math.isfinite(epoch) and math.isfinite(value)
    }


def _thinned(points: dict[float, float]) -> dict[float, float]:
    step = math.ceil(len(points) / MOST_POINTS)
    return dict(list(points.items())[::-1][:: step or 1][::-1])
