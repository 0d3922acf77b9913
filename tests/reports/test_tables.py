import math

import torch
from rich.console import Console

from nc_lightning.geometry import measure, simplex_etf
from nc_lightning.reports.tables import format_value, geometry_table


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


def test_numbers_fit_their_column():
    for value in (0.0, 1.0, -1e-300, 123456.789, 1e-4, 12345e10, math.inf, math.nan):
        assert len(format_value(value)) <= 10
