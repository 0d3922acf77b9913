import numpy as np
import pytest

from nc_lightning.plots import to_png
from nc_lightning.reports.record import RunRecord
from nc_lightning.sweeps.figures import Layout, measure_figure, path_figure, spectra_figure
from nc_lightning.sweeps.results import Group, Result

AXES = ["objective", "batches", "beta"]
RANK, NC1 = "geometry/train/effective_rank", "geometry/train/nc1"


def group(objective, batches, beta, *ranks):
    settings = {"objective": objective, "batches": batches} | ({} if beta is None else {"beta": beta})
    results = []
    for seed, rank in enumerate(ranks):
        history = [{"epoch": float(e), RANK: rank * e / 2, NC1: 0.1 / e} for e in (1, 2)]
        record = RunRecord("", 10, 9, history=history, spectrum=[1.0, rank / 10, 0.0])
        results.append(Result("", {**settings, "seed": seed}, "done", "", 1.0, record))
    return Group(settings, results)


@pytest.fixture
def groups():
    return [
        group(objective, batches, beta, rank, rank + 1)
        for batches in ("random", "balanced")
        for objective, beta, rank in (("scl", None, 3.0), ("hscl", 2, 4.0), ("hscl", 10, 8.0))
    ]


def labeled(figure):
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_a_measure_is_drawn_against_the_numeric_axis_with_panels_for_the_others(groups):
    figure = measure_figure(groups, AXES, RANK, "effective rank", 9.0)
    assert [panel.get_title() for panel in figure.axes] == ["batches random", "batches balanced"]
    assert labeled(figure) == {"scl", "hscl"}
    line = next(c for c in figure.axes[0].containers if c.get_label() == "hscl")
    x, mean = line.lines[0].get_data()
    assert list(x) == [2, 10]
    np.testing.assert_allclose(mean, [4.5, 8.5])
    (segments,) = (bars.get_segments() for bars in line.lines[2])
    np.testing.assert_allclose(segments[1][:, 1], [8.0, 9.0])
    levels = [line.get_ydata()[0] for line in figure.axes[0].get_lines() if line.get_label() == "scl"]
    assert levels == [3.5], "an objective without hardness is a horizontal line"


def test_the_curves_over_training_have_a_line_for_each_cell(groups):
    figure = path_figure(groups, AXES, RANK, "effective rank")
    assert labeled(figure) == {"scl", "hscl 2", "hscl 10"}
    line = next(line for line in figure.axes[1].get_lines() if line.get_label() == "hscl 10")
    np.testing.assert_allclose(line.get_xydata(), [[1, 4.25], [2, 8.5]])


def test_spectra_are_clipped_at_a_floor(groups):
    figure = spectra_figure(groups, AXES)
    line = next(line for line in figure.axes[0].get_lines() if line.get_label() == "scl")
    np.testing.assert_allclose(line.get_ydata(), [1.0, 0.35, 1e-8])


def test_settings_of_only_some_cells_distinguish_lines(groups):
    some = Group({**groups[0].settings, "objective": "hucl", "hardness": "adaptive"}, groups[0].results)
    figure = measure_figure([*groups, some], [*AXES, "hardness"], RANK, "effective rank", 9.0)
    assert [panel.get_title() for panel in figure.axes] == ["batches random", "batches balanced"]
    assert labeled(figure) == {"scl", "hscl", "hucl adaptive"}


@pytest.mark.parametrize("axes", [["objective"], ["objective", "psi"], ["objective", "beta"]])
def test_any_combination_of_axes_can_be_drawn(axes):
    values = {"psi": ["triplet", "logistic"], "beta": [5, 2]}
    settings = [{"objective": "hscl", axes[-1]: v} for v in values.get(axes[-1], ["hscl"])]
    groups = [Group(each, group("hscl", "", None, 2.0).results) for each in settings]
    for figure in (
        measure_figure(groups, axes, NC1, "nc1", 0.0),
        measure_figure(groups, axes, "geometry/train/absent", "absent", None),
        path_figure(groups, axes, NC1, "nc1"),
        spectra_figure(groups, axes),
    ):
        assert to_png(figure).startswith(b"\x89PNG")
    assert Layout.of(groups, axes).x == ("" if axes == ["objective"] else axes[-1])


def test_an_axis_that_no_finished_cell_has_is_left_out(groups):
    scl = [group for group in groups if group.settings["objective"] == "scl"]
    assert Layout.of(scl, AXES) == Layout(x="batches", panels=[], lines=[])
    (panel,) = measure_figure(scl, AXES, RANK, "effective rank", 9.0).axes
    assert [text.get_text() for text in panel.get_yticklabels()] == ["random", "balanced"]


def test_settings_with_names_have_dots_without_bars():
    groups = [
        group("hscl", batches, None, *ranks) for batches, ranks in {"random": (4.0, 8.0), "balanced": (9.0,)}.items()
    ]
    for key, expected in {RANK: [6.0, 9.0], NC1: [0.05, 0.05]}.items():
        (panel,) = measure_figure(groups, ["objective", "batches"], key, "a measure", None).axes
        assert not panel.patches, "the length of a bar means nothing on a logarithmic axis"
        assert [text.get_text() for text in panel.get_yticklabels()] == ["random", "balanced"]
        dots = [rows.lines[0].get_xydata()[0] for rows in panel.containers]
        np.testing.assert_allclose(dots, list(zip(expected, [0, 1], strict=True)))
