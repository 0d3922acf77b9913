import math

from nc_lightning.geometry import Ideal
from nc_lightning.reports.curves import MOST_POINTS, charts
from nc_lightning.reports.record import RunRecord

RANK, NC1 = "geometry/{}/effective_rank", "geometry/{}/nc1"


def record(name="A", epochs=(1, 2), bound=0.25, **values):
    history = [
        {
            "epoch": float(epoch),
            "loss/train": 1.0 / epoch,
            "loss/bound": bound,
            "loss/optimality_gap": 1.0 / epoch - bound,
            **{key.format(part): epoch / 4 for key in (RANK, NC1) for part in ("train", "val")},
            **values,
        }
        for epoch in epochs
    ]
    return RunRecord(name, 10, 9, history=history)


def lines(chart):
    return {line["name"]: line for line in chart["lines"]}


def test_a_run_has_its_sets_and_references_in_one_chart_each():
    loss, gap, nc1, rank = charts([record()])
    assert loss["x"] == [1.0, 2.0]
    assert lines(loss)["train"] == {"name": "train", "color": 0, "dashed": False, "y": [1.0, 0.5]}
    assert lines(loss)["bound"] == {"name": "bound", "color": None, "dashed": True, "y": [0.25, 0.25]}
    assert "val" not in lines(loss), "it was not logged"
    assert lines(gap)["train"]["y"] == [0.75, 0.25]
    assert lines(nc1).keys() == {"train", "val"}
    assert lines(rank)["ideal"]["y"] == [9.0, 9.0]
    assert [chart["log"] for chart in (loss, gap, nc1, rank)] == [False, True, True, False]


def test_runs_share_the_epochs_and_equal_references():
    loss, _, nc1, _ = charts([record("A"), record("B", epochs=(2, 4)), record("C", bound=0.125)])
    assert loss["x"] == [1.0, 2.0, 4.0]
    assert lines(loss)["A, train"]["y"] == [1.0, 0.5, None]
    assert lines(loss)["B, train"]["y"] == [None, 0.5, 0.25]
    assert lines(loss)["bound of 2 runs"]["y"] == [0.25, 0.25, 0.25]
    assert lines(loss)["bound of C"]["y"] == [0.125, 0.125, None]
    assert [(line["color"], line["dashed"]) for line in nc1["lines"]] == [(i, val) for i in range(3) for val in (0, 1)]


def test_losses_have_a_point_for_each_epoch_and_the_geometry_for_each_measurement():
    run = record(epochs=(10,), bound=0.05)
    run.losses = [{"epoch": float(epoch), "loss/train": 2.0 / epoch, "loss/bound": 0.05} for epoch in range(1, 13)]
    loss, _, nc1, _ = charts([run])
    assert loss["x"] == list(range(1, 13))
    assert lines(loss)["train"]["y"][8:11] == [0.22222, 0.1, 0.18182], "the measurement takes precedence"
    assert lines(loss)["bound"]["y"] == [0.05] * 12
    assert nc1["x"] == [0.0, 10.0]


def test_references_of_a_single_epoch_are_lines():
    loss, gap, _, rank = charts([record(epochs=(3,))])
    assert loss["x"] == gap["x"] == [0.0, 3.0]
    assert lines(loss)["bound"]["y"] == [0.25, 0.25]
    assert lines(loss)["train"]["y"] == [None, 0.33333]
    assert lines(rank)["ideal"]["y"] == [9.0, 9.0]


def test_the_ideal_is_that_of_the_loss():
    own = record()
    own.own_ideals = {"effective_rank": Ideal(7.5, 0.1, "7.5")}
    assert lines(charts([own])[-1])["ideal"]["y"] == [7.5, 7.5]
    own.own_ideals = {"nc1": Ideal(0.0, 0.1, "0")}
    assert "ideal" not in lines(charts([own])[-1]), "it is not known"


def test_values_that_cannot_be_drawn_are_left_out():
    (loss,) = charts([RunRecord("A", 10, 9, history=[{"epoch": 1.0, "loss/train": math.nan, "loss/val": 2.0}])])
    assert loss["lines"] == [{"name": "val", "color": 1, "dashed": False, "y": [None, 2.0]}]
    gaps = [{"epoch": float(e), "loss/optimality_gap": gap} for e, gap in enumerate((0.5, -0.125, 0.0, math.inf))]
    (gap,) = charts([RunRecord("A", 10, 9, history=gaps)])
    assert (gap["x"], gap["lines"][0]["y"]) == ([0.0], [0.5]), "a logarithm has no 0"
    assert charts([RunRecord("A", 10, 9, history=[{"epoch": 1.0, "loss/bound": 1.0}])]) == []
    assert charts([RunRecord("A", 10, 9)]) == []


def test_a_long_run_keeps_the_last_point_and_is_limited():
    for count in (MOST_POINTS, MOST_POINTS + 1, 10 * MOST_POINTS):
        loss = charts([record(epochs=range(1, count + 1))])[0]
        assert loss["x"][-1] == count
        assert MOST_POINTS / 2 <= len(loss["x"]) <= MOST_POINTS


def test_data_without_labels_have_a_chart_of_their_rank():
    (rank,) = charts([RunRecord("A", 10, 9, history=[{"epoch": 1.0, "geometry/train/rankme": 3.0}])])
    assert lines(rank)["train"]["y"] == [None, 3.0]
