"""The figure by depth has a curve for each set, with the layers in their order."""

import math

import numpy as np
import pytest

from nc_lightning.plots import depth_figure, to_png


def values(nc1, rank):
    return {"nc1": nc1, "nc2_etf": 0.4, "effective_rank": rank, "ncc_accuracy": 0.5}


def test_curves_have_the_values_of_the_layers():
    by_layer = {
        "encoder": {"train": values(2.0, 4.0), "val": values(3.0, 2.0)},
        "z": {"train": values(0.5, 3.0), "val": values(math.inf, 1.5)},
    }
    figure = depth_figure(by_layer, {"encoder": 4, "z": 3})
    nc1, etf, rank, accuracy = figure.axes
    assert [line.get_label() for line in nc1.get_lines()] == ["train", "val"]
    assert [list(line.get_ydata()) for line in rank.get_lines()] == [[1.0, 1.0], [0.5, 0.5]]
    assert list(nc1.get_lines()[0].get_ydata()) == [2.0, 0.5]
    assert nc1.get_yscale() == "log"
    low, high = nc1.get_ylim()
    assert 0.1 < low < 0.5
    assert 2 < high < 10
    assert [list(line.get_ydata()) for line in etf.get_lines()] == [[0.4, 0.4]] * 2
    assert [list(line.get_ydata()) for line in accuracy.get_lines()] == [[0.5, 0.5]] * 2
    assert [label.get_text() for label in accuracy.get_xticklabels()] == ["encoder", "z"]
    assert to_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("nc1", [0.0, math.nan, math.inf])
def test_degenerate_values_are_drawn(nc1):
    figure = depth_figure({"z": {"train": values(nc1, math.nan), "val": {}}}, {"z": 3})
    assert np.isnan(figure.axes[2].get_lines()[0].get_ydata()).all()
    to_png(figure)


def test_no_layer_is_refused():
    with pytest.raises(ValueError, match="^by_layer: got no layer, expected at least one$"):
        depth_figure({}, {})
