import csv
import io
import math

import pytest

from nc_lightning.reports.record import RunRecord
from nc_lightning.sweeps.results import Result, group_by_settings, results_csv, results_markdown, results_rows

AXES = ["objective", "beta"]
RANK, GAP = "geometry/train/effective_rank", "loss/optimality_gap"


def result(objective, beta, seed, status="done", **values):
    settings = {"objective": objective, "seed": seed} | ({} if beta is None else {"beta": beta})
    found = {"epoch": 5.0, "step": 10.0, **values}
    record = RunRecord("", 10, 9, history=[found])
    error = "loss: got NaN" if status == "failed" else ""
    return Result(f"{objective}-{beta}-{seed}", settings, status, error, 2.0 + seed, record)


@pytest.fixture
def results():
    return [
        result("scl", None, 0, **{RANK: 3.0, GAP: math.nan}),
        result("scl", None, 1, **{RANK: 5.0, GAP: math.nan}),
        result("hscl", 10, 0, **{RANK: 9.0, GAP: 0.5}),
        result("hscl", 10, 1, "failed", **{RANK: 1.0, GAP: 0.1}),
        result("hscl", 5, 0, "waiting"),
    ]


def test_only_seeds_are_averaged(results):
    groups = group_by_settings(results)
    assert [group.settings for group in groups] == [
        {"objective": "scl"},
        {"objective": "hscl", "beta": 10},
        {"objective": "hscl", "beta": 5},
    ]
    assert groups[0].spread(RANK) == (4.0, 3.0, 5.0)
    assert groups[1].spread(RANK) == (9.0, 9.0, 9.0), "a failed cell is not a result"
    assert all(map(math.isnan, groups[0].spread(GAP) + groups[2].spread(RANK)))


def test_the_csv_holds_every_cell_and_every_measure(results):
    rows = list(csv.DictReader(io.StringIO(results_csv(results, AXES))))
    assert len(rows) == 5
    assert rows[0] == {
        **{"objective": "scl", "beta": "", "seed": "0", "status": "done", "seconds": "2.0", "epochs": "5.0"},
        **{GAP: "", RANK: "3.0", "error": ""},
    }
    assert rows[3]["status"] == "failed"
    assert rows[3]["error"] == "loss: got NaN"
    assert float(rows[2][RANK]) == 9.0


def test_a_comma_in_an_error_is_quoted():
    broken = Result("a", {"objective": "scl", "seed": 0}, "failed", 'got "a", expected b')
    (row,) = csv.DictReader(io.StringIO(results_csv([broken], ["objective"])))
    assert row["error"] == 'got "a", expected b'


def test_the_table_shows_means_and_ranges(results):
    head, rows = results_rows(results, AXES)
    assert head == ["objective", "beta", "seeds", "effective rank", "optimality gap", "seconds"]
    assert rows == [
        ["scl", "", "2", "4 (3 to 5)", "-", "2"],
        ["hscl", "10", "1", "9", "0.5", "2"],
        ["hscl", "5", "0", "-", "-", "-"],
    ]


def test_the_markdown_table_names_missing_cells(results):
    text = results_markdown(results, AXES, "mine")
    assert text.startswith("# mine\n\n5 cells: 3 done, 1 failed, 1 waiting. Means over seeds")
    assert "| objective | beta | seeds | effective rank | optimality gap | seconds |\n| --- | --- |" in text
    assert text.endswith("Not done:\n\n- `hscl-10-1`: failed, loss: got NaN\n- `hscl-5-0`: waiting\n")
    assert "Not done" not in results_markdown(results[:3], AXES, "mine")
