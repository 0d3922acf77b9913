import math

import pytest

from nc_lightning.geometry import Ideal
from nc_lightning.reports.record import RunRecord
from nc_lightning.sweeps.ranking import DEFAULT, check_rank_by, default_key, order_of, ranked, title_of
from nc_lightning.sweeps.results import Group, Result

COSINE, RANK = "geometry/train/nc2_max_cosine", "geometry/train/effective_rank"


def group(name, *values, key=RANK, own=None):
    records = [RunRecord(name, 5, 4, history=[{key: value}], own_ideals=own or {}) for value in values]
    return Group({"objective": name}, [Result(name, {}, "done", record=record) for record in records])


def names(groups, key):
    return [group.settings["objective"] for group in ranked(groups, key)]


def test_geometry_is_ranked_by_the_mean_distance_from_its_ideal():
    assert names([group("a", 2.0), group("b", 4.0), group("c", 4.0, 3.0)], RANK) == ["b", "c", "a"]
    # The ideal of five classes is -1/4: values on both sides of it do not cancel out.
    groups = [group("a", -0.5, 0.0, key=COSINE), group("b", -0.1, key=COSINE), group("c", -0.3, key=COSINE)]
    assert names(groups, COSINE) == ["c", "b", "a"]


def test_losses_ascend_and_accuracies_descend():
    for key, best in (("loss/val", "a"), ("probe/val_accuracy", "b"), ("knn/val", "b"), ("loss/optimality_gap", "a")):
        assert names([group("b", 0.75, key=key), group("a", 0.5, key=key)], key)[0] == best, key


def test_a_loss_with_another_minimum_is_ranked_by_its_own_ideal():
    own = {"effective_rank": Ideal(3.0, 0.1, "3")}
    assert names([group("nc", 3.5), group("own", 3.1, own=own)], RANK) == ["own", "nc"]
    assert names([group("own", 4.0, own={"nc1": Ideal(0.0, 0.1, "0")}), group("nc", 1.0)], RANK) == ["nc", "own"]


def test_settings_without_the_measure_come_last_in_their_order():
    assert names([group("a", math.nan), Group({"objective": "b"}, []), group("c", 1.0)], RANK) == ["c", "a", "b"]


def test_the_default_is_a_measure_that_exists():
    assert default_key([group("a", 1.0), group("b", 1.0, key=DEFAULT)]) == DEFAULT
    assert default_key([group("a", 1.0)]) == RANK
    assert default_key([group("a", math.nan)]) is None


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("nc1", "geometry/train/nc1"),
        ("geometry/val/nc1", "geometry/val/nc1"),
        ("geometry/encoder/val_1/nc1", "geometry/encoder/val_1/nc1"),
        ("loss/val", "loss/val"),
        ("loss/optimality_gap", "loss/optimality_gap"),
        ("knn/encoder/val", "knn/encoder/val"),
    ],
)
def test_measures_are_named_alone_or_by_their_logged_key(name, key):
    assert check_rank_by(name) == key
    assert title_of(key)
    assert order_of(key).endswith("first")


@pytest.mark.parametrize(
    "name", ["", "nc9", "loss/bound", "val/nc1", "geometry/nc1", "nc1_outside_span", "probe/val_loss"]
)
def test_other_names_are_refused_with_a_near_one(name):
    with pytest.raises(ValueError, match="--rank-by: got '.*', expected a measure with an ideal such as nc"):
        check_rank_by(name)
