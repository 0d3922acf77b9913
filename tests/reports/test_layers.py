"""Layers and files side by side, in tables and in the report."""

import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from nc_lightning.geometry import measure, simplex_etf
from nc_lightning.reports.html import report_html
from nc_lightning.reports.layers import by_layer, compared_table, layers_table
from nc_lightning.reports.record import RunRecord

LABELS = torch.arange(4).repeat(6)


def render(table):
    console = Console(width=200, record=True)
    console.print(table)
    return [line.split() for line in console.export_text().splitlines()]


@pytest.fixture
def measured():
    """Return the measures of two layers: random features, and collapsed ones."""
    torch.manual_seed(0)
    return measure(torch.randn(24, 7), LABELS), measure(simplex_etf(4, 3)[LABELS], LABELS)


def test_logged_keys_are_taken_apart_by_layer():
    values = {"geometry/val_1/nc1": 1.0, "geometry/a/b/val_1/nc1": 2.0, "geometry/train/train/nc1": 3.0, "epoch": 4.0}
    assert by_layer(values) == {
        "z": {"val_1": {"nc1": 1.0}},
        "a/b": {"val_1": {"nc1": 2.0}},
        "train": {"train": {"nc1": 3.0}},
    }


def test_the_terminal_has_a_row_for_each_layer_and_set(measured):
    of_encoder, of_z = measured
    rows = render(layers_table({"encoder": {"train": of_encoder, "val": {}}, "z": {"train": of_z}}, 4, {"z": 3}))
    assert ["encoder", "-", "train", f"{of_encoder['nc1']:.5g}"] in [row[:4] for row in rows]
    assert ["val", "-", "-", "-", "-"] in rows
    assert next(row for row in rows if row[:1] == ["z"])[-4:] == ["3", "of", "3", "1"]


def test_columns_of_a_comparison_are_marked_where_they_are_ideal(measured):
    of_encoder, of_z = measured
    rows = {row[0]: row[1:] for row in render(compared_table({"a": (of_encoder, 4, 7), "b": (of_z, 4, 3)})) if row}
    assert rows["ncc_accuracy"] == [f"{of_encoder['ncc_accuracy']:.5g}", "1", "✓", "1"]
    assert rows["effective_rank"][1:] == ["3", "✓", "3"]


def test_sizes_and_ideals_are_in_the_order_of_the_columns(measured):
    columns = {"a": (measured[0], 12, 11), "b": (measured[0], 4, 7), "c": (measured[0], 12, 11)}
    lines = [" ".join(words) for words in render(compared_table(columns))]
    assert lines[0] == "Geometry of 12 classes in 11 dimensions, 4 classes in 7 dimensions"
    assert next(line for line in lines if line.startswith("effective_rank")).endswith(" 11 or 3")
    page = report_html([replace(record(measured), num_classes=12, feature_dim=11), record(measured, "other")])
    assert "12 classes in 11 dimensions; 4 classes in 3 dimensions" in page


def test_ideals_are_said_to_be_those_of_the_columns_with_labels(measured):
    def heads(**columns):
        return next(line for line in render(compared_table(columns)) if line[:1] == ["measure"])

    labeled, unlabeled = (measured[0], 4, 7), ({"effective_rank": 2.0}, 0, 1)
    assert heads(a=labeled, b=unlabeled) == ["measure", "a", "b", "ideal", "with", "labels"]
    assert heads(a=labeled, b=labeled) == ["measure", "a", "b", "ideal"]


def record(measured, name="mine", layers=True):
    of_encoder, of_z = measured
    history = {f"geometry/train/{key}": value for key, value in of_z.items()}
    history |= {f"geometry/encoder/train/{key}": value for key, value in of_encoder.items()}
    return RunRecord(name, 4, 3, history=[history], layers={"encoder": 7, "z": 3} if layers else {})


def test_the_report_has_the_layers_side_by_side(measured, tmp_path):
    given = record(measured)
    given.write(tmp_path / "report.json")
    page = report_html([RunRecord.read(tmp_path / "report.json")])
    table = page[page.index("<h2>Layers</h2>") : page.index("<h2>Figures</h2>")]
    assert "<th>measure</th><th>encoder (7), train</th><th>z (3), train</th><th>NC</th>" in table
    assert f'<tr><td>ncc_accuracy</td><td>{measured[0]["ncc_accuracy"]:.5g}</td><td class="met">1</td>' in table
    assert "<h2>Layers</h2>" not in report_html([record(measured, layers=False)])
    both = report_html([record(measured, "one"), record(measured, "two", layers=False)])
    assert "<th>one, encoder (7), train</th><th>one, z (3), train</th><th>NC</th>" in both


def test_missing_measures_are_no_number():
    rows = render(layers_table({"encoder": {"train": {"nc1": math.nan}}}, 4, {"encoder": 7}))
    assert ["encoder", "7", "train", "-", "-", "-", "-"] in rows
