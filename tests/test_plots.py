import pytest
import torch

from nc_lightning.geometry import ClassStatistics, simplex_etf
from nc_lightning.plots import geometry_figure


def statistics(z, labels, num_classes):
    return ClassStatistics(num_classes, z.shape[1]).update(z, labels)


def test_the_figure_shows_the_spectrum_the_cosines_and_the_means():
    labels = torch.arange(5).repeat(3)
    figure = geometry_figure(statistics(simplex_etf(5, 4)[labels], labels, 5))
    spectrum, cosines, plane, _ = figure.axes
    values, ideal = (line.get_ydata() for line in spectrum.get_lines())
    assert values[:4] == pytest.approx([1.0] * 4)
    assert list(ideal) == [1.0] * 4
    image = cosines.get_images()[0].get_array()
    assert image[0, 1] == pytest.approx(-0.25)
    assert len(plane.texts) == 5
    assert "ideal" in spectrum.get_title()
    assert "ideal: -0.25" in cosines.get_title()


@pytest.mark.parametrize("case", ["all equal", "one class", "one dimension", "absent classes"])
def test_degenerate_features_are_drawn(case, tmp_path):
    z, labels = torch.randn(12, 3), torch.arange(12) % 4
    if case == "all equal":
        z = torch.ones(12, 3)
    elif case == "one class":
        labels = torch.zeros_like(labels)
    elif case == "one dimension":
        z = z[:, :1]
    geometry_figure(statistics(z, labels, 9 if case == "absent classes" else 4)).savefig(tmp_path / "figure.png")


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="stats: got statistics without a sample"):
        geometry_figure(ClassStatistics(3, 2))
