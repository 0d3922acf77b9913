import pytest
from matplotlib.figure import Figure

from nc_lightning.plots.ticks import whole_numbers


@pytest.mark.parametrize("values", [[1], [2, 2], [0], [1, 2], [3, 5], [1, 999], []])
def test_counts_have_ticks_at_whole_numbers_only(values):
    axes = Figure().subplots()
    whole_numbers(axes.xaxis, values)
    ticks = list(axes.get_xticks())
    assert ticks
    assert all(tick == round(tick) for tick in ticks)
    if len(set(values)) == 1:
        assert ticks == values[:1]
