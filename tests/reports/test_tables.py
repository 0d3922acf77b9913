import math

import pytest
import torch
from rich.console import Console

from nc_lightning.geometry import hucl_optimum, measure, optimal_ideals, simplex_etf
from nc_lightning.reports.layers import compared_table, layers_table
from nc_lightning.reports.tables import evaluation_rows, evaluation_table, format_value, geometry_table, print_table


def render(table):
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return console.export_text()


def test_the_table_marks_ideals_at_collapse_and_not_elsewhere():
    labels = torch.arange(5).repeat(6)
    good = measure(simplex_etf(5, 4)[labels], labels)
    bad = measure(torch.randn(30, 4), labels)
    text = render(geometry_table({"train": good, "val": bad}, 5, 4))
    assert " no " not in text
    assert text.count(" yes ") == len(good) - 1  # nc1_outside_span is only informative
    assert " no " in render(geometry_table({"train": bad}, 5, 4))


def test_a_measure_at_its_ideal_without_neural_collapse_is_marked():
    random = measure(torch.randn(400, 4, generator=torch.Generator().manual_seed(0)), torch.arange(5).repeat(80))
    lines = render(geometry_table({"train": random}, 5, 4)).splitlines()
    row = next(line for line in lines if "feature_rank" in line)
    assert "alone" in row
    assert not any(" yes " in line for line in lines)


def test_without_a_measurement_the_table_is_empty():
    assert "measure" in render(geometry_table({}, 5, 4))


def test_a_set_without_labels_has_no_measures_of_classes():
    labels = torch.arange(5).repeat(6)
    measured = measure(simplex_etf(5, 4)[labels], labels)
    text = render(geometry_table({"train": measured, "val": {"rankme": 2.0}}, 5, 4))
    row = next(line.split() for line in text.splitlines() if line.startswith(" nc1 "))
    assert row[2] == "-"


def test_frozen_features_are_shown_by_layer_and_a_missing_protocol_is_a_dash():
    layers = {
        "encoder": {"knn_20": 0.5, "few_shot_1": 0.25, "few_shot_1_interval": 0.0625, "linear_weight_decay": 1e-5},
        "z": {"knn_20": 1.0},
    }
    assert evaluation_rows(layers) == [
        ["20 nearest neighbors", "0.5000", "1.0000"],
        ["nearest 1-shot mean", "0.2500 +- 0.0625", "-"],
        ["its weight decay", "1e-05", "-"],
    ]
    text = render(evaluation_table(layers, "9 training and 3 test samples"))
    assert "9 training and 3 test samples" in text
    assert "encoder" in text


def test_numbers_fit_their_column():
    for value in (0.0, 1.0, -1e-300, 123456.789, 1e-4, 12345e10, math.inf, math.nan):
        assert len(format_value(value)) <= 10


VALUES = {"nc1": 0.25, "nc2_etf": 0.05, "zero_sum": 0.001, "feature_rank": 9.0, "effective_rank": 8.99, "nc3": 0.5}
OF_NEURAL_COLLAPSE = """\
              Geometry of 10 classes in 9 dimensions
 measure         train     val  ideal  met    what it is
 ─────────────────────────────────────────────────────────────────
 nc1              0.25   0.125      0  no     within/between var.
 nc2_etf          0.05   0.025      0  alone  distance to simplex
 zero_sum        0.001  0.0005      0  alone  norm of global mean
 feature_rank        9     4.5      9  alone
 effective_rank   8.99   4.495      9  alone  dimensions in use
 nc3               0.5    0.25      0  no     classifier vs. means
"""


def test_for_a_loss_whose_minimum_is_neural_collapse_the_table_has_one_ideal():
    results = {"train": VALUES, "val": {key: value / 2 for key, value in VALUES.items()}}
    for own in (None, {}):
        lines = render(geometry_table(results, 10, 9, own=own)).splitlines()
        assert [line.rstrip() for line in lines if line.strip()] == OF_NEURAL_COLLAPSE.splitlines()


def test_for_another_minimum_the_table_has_both_ideals_and_judges_by_that_of_the_loss():
    optimum = hucl_optimum(10, 5.0)
    gram = optimum.distance * (torch.eye(10, dtype=torch.float64) - 0.1) + optimum.zero_sum**2
    own = optimal_ideals(gram, 12)
    at_minimum = {"nc1": 0.0, "zero_sum": 0.81, "feature_rank": 9.0, "effective_rank": 9.0, "distance_to_optimum": 0.01}
    rows = {}
    for distance in (0.01, 0.5):
        text = render(geometry_table({"train": at_minimum | {"distance_to_optimum": distance}}, 10, 12, own=own))
        rows[distance] = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows[0.01]["measure"][:5] == ["train", "this", "loss", "NC", "met"]
    assert rows[0.01]["zero_sum"][:4] == ["0.81", "0.8098", "0", "yes"]
    assert rows[0.01]["effective_rank"][:4] == ["9", "9", "9", "yes"]
    assert rows[0.01]["distance_to_optimum"][:3] == ["0.01", "0", "yes"]
    assert rows[0.01]["feature_rank"] == ["9"]  # unknown at this minimum, and without an ideal in 12 dimensions
    assert rows[0.5]["zero_sum"][:4] == ["0.81", "0.8098", "0", "alone"]


MEASURED = dict.fromkeys(("nc1", "nc2_etf", "effective_rank", "ncc_accuracy", "feature_rank"), -0.12345)
SETS = [f"a_set[{name}]" for name in ("train", "val", "val_1", "test")]
PRINTED = {
    "geometry": geometry_table(dict.fromkeys(SETS, MEASURED), 10, 9),
    "evaluation": evaluation_table(
        {name: {"knn_20": 0.645, "few_shot_5": 0.9, "few_shot_5_interval": 0.01} for name in SETS}, "9 samples"
    ),
    "layers": layers_table({name: dict.fromkeys(SETS, MEASURED) for name in SETS}, 10, dict.fromkeys(SETS, 512)),
    "compared": compared_table({name: (MEASURED, 10, 9 - i) for i, name in enumerate(SETS)}),
}


@pytest.mark.parametrize("kind", PRINTED)
def test_a_narrow_terminal_loses_no_value(capsys, monkeypatch, kind):
    printed = {}
    for width in (20, 80, 500):
        monkeypatch.setenv("COLUMNS", str(width))
        print_table(PRINTED[kind])
        printed[width] = capsys.readouterr().out.replace("─", "")
    assert printed[500].count("-0.12345") + printed[500].count("0.9000 +- 0.0100") >= len(SETS)
    assert all(name in printed[500] for name in SETS)
    assert sorted(printed[20].split()) == sorted(printed[80].split()) == sorted(printed[500].split())
    assert len(printed[80].splitlines()) == len(printed[500].splitlines()) or kind == "geometry"


def test_in_a_notebook_a_table_is_text_alone(monkeypatch, capsys):
    displayed = []
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *shown: displayed.append(shown))
    print_table(evaluation_table({"z": {"ncm": 0.5}}, "title"))
    printed = capsys.readouterr().out
    assert "nearest class mean" in printed
    assert "\x1b" not in printed
    assert displayed == []
