"""Ranking of the settings of a sweep by a measure."""

import math
import re
from collections.abc import Sequence

from nc_lightning.did_you_mean import nearest
from nc_lightning.geometry import MEASURES
from nc_lightning.reports.record import RunRecord
from nc_lightning.reports.tables import accuracies_of
from nc_lightning.sweeps.results import HEADLINES, Group

DEFAULT = "geometry/train/nc2_etf"
"""Logged key of the measure that settings are ranked by, where it was measured."""
_LOSS = re.compile(r"loss/(train|val(_\d+)?|optimality_gap)")


def check_rank_by(name: str) -> str:
    """Return the logged key of a measure: that of the training set for a name alone.

    Args:
        name: Name of a measure such as ``nc1``, or a logged key such as ``geometry/val/nc1``, ``loss/val`` or
            ``probe/val_accuracy``.

    Raises:
        ValueError: If it is not the key of a measure with an ideal, of a loss or of an accuracy.

    Example:
        >>> check_rank_by("nc1"), check_rank_by("probe/val_accuracy")
        ('geometry/train/nc1', 'probe/val_accuracy')
    """
    if _LOSS.fullmatch(name) or accuracies_of({name: 0.0}):
        return name
    *place, measure = name.split("/")
    if (
        place[:1] in ([], ["geometry"])
        and len(place) != 1
        and measure in MEASURES
        and MEASURES[measure].ideal is not None
    ):
        return name if place else f"geometry/train/{name}"
    known = [key for key, each in MEASURES.items() if each.ideal is not None]
    near = ", ".join(nearest(measure, known)) or "nc1"
    raise ValueError(
        f"--rank-by: got {name!r}, expected a measure with an ideal such as {near} or geometry/val/nc1, or loss/val, "
        "loss/optimality_gap, probe/val_accuracy, knn/val"
    )


def default_key(groups: Sequence[Group]) -> str | None:
    """Return the first measure of `DEFAULT` and the headlines that a group has; None if there is none."""
    return next((key for key in (DEFAULT, *HEADLINES) if any(_measured(group, key) for group in groups)), None)


def ranked(groups: Sequence[Group], key: str) -> list[Group]:
    """Return the groups from the best to the worst mean over seeds of a measure; groups without it come last.

    Geometry is ranked by its distance from the ideal of the loss, accuracies descending and losses ascending.

    Example:
        >>> from nc_lightning.sweeps.results import Result
        >>> losses = {"a": 0.5, "b": 0.25}
        >>> runs = {name: RunRecord(name, 10, 9, history=[{"loss/val": loss}]) for name, loss in losses.items()}
        >>> groups = [Group({"x": name}, [Result(name, {}, "done", record=run)]) for name, run in runs.items()]
        >>> [group.settings["x"] for group in ranked(groups, "loss/val")]
        ['b', 'a']
    """
    return sorted(groups, key=lambda group: _badness(group, key))


def order_of(key: str) -> str:
    """Return in words how `ranked` orders a measure.

    Example:
        >>> order_of("geometry/val/nc1"), order_of("loss/val")
        ('nearest to the ideal first', 'lowest first')
    """
    if key.startswith("loss/"):
        return "lowest first"
    return "highest first" if accuracies_of({key: 0.0}) else "nearest to the ideal first"


def title_of(key: str) -> str:
    """Return the name of a measure for headings, with its set if that is not the training set.

    Example:
        >>> title_of("geometry/train/nc2_etf"), title_of("geometry/val/nc1"), title_of("loss/val")
        ('nc2 etf', 'nc1 (val)', 'loss/val')
    """
    if key in HEADLINES or not key.startswith("geometry/"):
        return HEADLINES.get(key, key)
    *layer, name, measure = key.removeprefix("geometry/").split("/")
    where = ", ".join([*layer, *([] if name == "train" else [name])])
    return measure.replace("_", " ") + (f" ({where})" if where else "")


def _measured(group: Group, key: str) -> bool:
    return not math.isnan(group.spread(key)[0])


def _badness(group: Group, key: str) -> float:
    values = [
        (record, value) for record in group.records if not math.isnan(value := record.latest("").get(key, math.nan))
    ]
    if not values:
        return math.inf
    return sum(_distance(record, key, value) for record, value in values) / len(values)


def _distance(record: RunRecord, key: str, value: float) -> float:
    if not key.startswith("geometry/"):
        return -value if accuracies_of({key: 0.0}) else value
    goal = record.ideal(key)
    return math.inf if goal is None else abs(value - goal.value)
