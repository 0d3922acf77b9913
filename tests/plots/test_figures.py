from io import BytesIO

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from nc_lightning.geometry import ClassStatistics, simplex_etf, simplex_plane, unit_ball
from nc_lightning.losses import Exponential, similarity_histograms
from nc_lightning.plots import (
    cosines_figure,
    geometry_figure,
    plane_figure,
    similarities_figure,
    spectrum_figure,
    to_png,
    trajectory_figure,
)
from nc_lightning.plots.panels import MOST_CLASSES
from tests.plots.legible import flaws


def statistics(z, labels, num_classes):
    return ClassStatistics(num_classes, z.shape[1]).update(z, labels)


def texts(figure):
    return " ".join(text.get_text() for text in figure.texts)


@pytest.fixture
def collapsed():
    return statistics(simplex_etf(5, 4), torch.arange(5), 5)


@pytest.fixture
def scattered():
    labels = torch.arange(60) % 5
    return statistics(unit_ball(torch.randn(60, 4)), labels, 5)


def test_the_figure_shows_the_spectrum_the_cosines_and_the_means():
    labels = torch.arange(5).repeat(3)
    figure = geometry_figure(statistics(simplex_etf(5, 4)[labels], labels, 5))
    spectrum, cosines, plane = figure.axes
    values, ideal = (line.get_ydata() for line in spectrum.get_lines())
    assert values[:4] == pytest.approx([1.0] * 4)
    assert list(ideal) == [1.0] * 4
    image = cosines.get_images()[0].get_array()
    assert image[0, 1] == pytest.approx(-0.25)
    assert len(plane.texts) == 5
    assert "ideal" in spectrum.get_title()
    assert "ideal: -0.25" in cosines.get_title()


def test_titles_say_what_a_figure_of_many_classes_leaves_out():
    classes = MOST_CLASSES + 50
    labels = torch.arange(classes)
    _, cosines, plane = geometry_figure(statistics(torch.randn(classes, 8), labels, classes)).axes
    assert f"{MOST_CLASSES} of {classes} classes shown" in cosines.get_title()
    assert plane.get_title() == "class means (too many for a simplex)"
    assert flaws(geometry_figure(statistics(torch.randn(classes, 8), labels, classes))) == []


def test_cosines_and_their_ideal_share_one_scale(collapsed, scattered):
    figure = cosines_figure({"SCL": scattered, "HSCL": collapsed})
    scl, hscl, ideal, _ = figure.axes
    assert [axes.get_title() for axes in (scl, hscl, ideal)] == ["SCL", "HSCL", "ideal"]
    matrices = [axes.get_images()[0] for axes in (scl, hscl, ideal)]
    assert len({(image.norm.vmin, image.norm.vmax, image.cmap.name) for image in matrices}) == 1
    assert np.allclose(matrices[1].get_array(), matrices[2].get_array())
    assert not np.allclose(matrices[0].get_array(), matrices[2].get_array(), atol=0.05)
    assert "ideal: -0.25 off the diagonal" in texts(figure)


def test_similar_classes_are_neighbors():
    axes = torch.eye(3)
    means = torch.cat([axes, axes + 0.01 * torch.randn(3, 3)])  # 0 and 3, 1 and 4, 2 and 5 are similar
    figure = cosines_figure(statistics(means, torch.arange(6), 6))
    order = [int(text.get_text()) for text in figure.axes[0].get_yticklabels()]
    assert sorted(order) == list(range(6))
    assert all(abs(order.index(c) - order.index(c + 3)) == 1 for c in range(3))
    drawn = figure.axes[0].get_images()[0].get_array()
    centered = torch.nn.functional.normalize(means - means.mean(0), dim=1)[order]
    assert np.allclose(drawn, (centered @ centered.T).numpy(), atol=1e-6)


def test_class_names_are_shown_whole_where_they_fit(collapsed):
    names = ["ant", "bee", "cat", "dog", "a name that is long"]
    shown = {text.get_text() for text in cosines_figure(collapsed, names).axes[0].get_yticklabels()}
    assert shown == set(names)
    plane, key = plane_figure(collapsed, class_names=names).axes
    assert [text.get_text() for text in plane.texts] == ["0", "1", "2", "3", "4"]
    listed = [text.get_text() for text in key.texts]
    assert dict(zip(listed[::2], listed[1::2], strict=True)) == dict(zip("01234", names, strict=True))
    many = statistics(simplex_etf(30, 29), torch.arange(30), 30)
    assert not cosines_figure(many).axes[0].get_yticklabels()
    assert not plane_figure(many, class_names=names * 6).axes[0].texts


def test_all_sets_have_one_order_of_the_classes():
    z, labels = torch.randn(60, 8), torch.arange(60) % 12
    first, second = statistics(z, labels, 12), statistics(z[torch.randperm(60)], labels, 12)
    some = statistics(z[labels != 3], labels[labels != 3], 12)  # a class without samples stays in its place
    figure = cosines_figure({"first": first, "second": second, "some": some})
    order = [int(text.get_text()) for text in figure.axes[0].get_yticklabels()]
    for axes, stats in zip(figure.axes, (first, second, some), strict=False):
        expected = np.full((12, 12), np.nan)
        present = torch.nonzero(stats.present).flatten().numpy()
        means = torch.nn.functional.normalize(stats.centered_class_means, dim=1)
        expected[np.ix_(present, present)] = (means @ means.T).numpy()
        drawn = np.ma.filled(axes.get_images()[0].get_array().astype(float), np.nan)
        np.testing.assert_allclose(drawn, expected[np.ix_(order, order)], atol=1e-6)


def test_only_some_of_very_many_classes_are_labeled():
    classes = MOST_CLASSES + 50
    figure = cosines_figure(statistics(torch.randn(classes, 8), torch.arange(classes), classes))
    assert figure.axes[0].get_images()[0].get_array().shape == (MOST_CLASSES, MOST_CLASSES)
    assert f"{MOST_CLASSES} of {classes} shown" in texts(figure)


def test_the_spectrum_shows_singular_values(scattered):
    figure = spectrum_figure({"train": scattered, "val": scattered})
    train, val, ideal = figure.axes[0].get_lines()
    singular = np.linalg.svd(scattered.centered_class_means.numpy(), compute_uv=False)
    assert train.get_ydata() == pytest.approx(singular / singular[0])
    assert [train.get_label(), val.get_label(), ideal.get_label()] == ["train", "val", "ideal"]
    assert figure.axes[0].get_yscale() == "log"
    assert "ideal: 4 equal ones" in texts(figure)


def test_the_plane_shows_features_where_they_are(scattered):
    z, labels = unit_ball(torch.randn(20, 4)), torch.arange(20) % 5
    figure = plane_figure(scattered, z, labels)
    basis, corners = simplex_plane(scattered)
    radius = corners.norm(dim=1).max()
    features, means = (np.asarray(c.get_offsets()) for c in figure.axes[0].collections)
    expected = (z.double() - scattered.class_means.mean(0)) @ basis / radius
    assert np.allclose(features, expected.numpy())
    assert np.allclose(means, (scattered.centered_class_means @ basis / radius).numpy())
    (outline,) = figure.axes[0].get_lines()
    assert np.allclose(np.stack(outline.get_data(), 1)[:5], (corners / radius).numpy())
    assert "ideal" in texts(figure)


def test_a_simplex_that_does_not_fit_is_not_drawn():
    figure = plane_figure(statistics(torch.randn(12, 3), torch.arange(12), 12))
    assert not figure.axes[0].get_lines()
    assert "too many classes for a simplex" in texts(figure)


def test_similarities_are_drawn_with_their_ideals():
    labels = torch.arange(4).repeat(5)
    seen = similarity_histograms(simplex_etf(4, 3)[labels], labels, Exponential(5.0))
    figure = similarities_figure(seen, num_classes=4)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "negatives",
        "positives",
        "hardened negatives",
    ]
    assert [line.get_xdata()[0] for line in figure.axes[0].get_lines()] == pytest.approx([-1 / 3, 1.0])
    assert "negatives -0.333" in texts(figure)
    plain = similarities_figure(similarity_histograms(torch.eye(4), torch.arange(4) % 2), num_classes=2)
    assert len(plain.legends[0].get_texts()) == 2


def test_the_trajectory_leads_to_the_star():
    figure = trajectory_figure({"SCL": [(1.0, 2.0), (0.1, 5.0)], "HSCL": [(1.0, 2.0), (0.01, 9.0)]}, rank=9)
    lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
    assert list(lines["HSCL"].get_ydata()) == [2.0, 9.0]
    star = next(line for line in figure.axes[0].get_lines() if line.get_marker() == "*")
    assert star.get_ydata()[0] == 9
    assert figure.axes[0].transData.inverted().transform(star.get_transform().transform(star.get_xydata()))[0, 0] < 0.01
    assert "rank 9" in texts(figure)


@pytest.mark.parametrize("path", [[], [(float("nan"), 1.0)], [(0.0, 1.0)], [(float("inf"), 2.0), (0.5, 3.0)]])
def test_unusual_trajectories_are_drawn(path):
    to_png(trajectory_figure({"train": path}, rank=3))


def test_an_empty_trajectory_is_an_empty_figure():
    to_png(trajectory_figure({}, rank=3))


@pytest.mark.parametrize("case", ["all equal", "one class", "two classes", "one dimension", "absent classes", "huge"])
def test_degenerate_features_are_drawn(case):
    z, labels = torch.randn(12, 3), torch.arange(12) % 4
    if case == "all equal":
        z = torch.ones(12, 3)
    elif case == "one class":
        labels = torch.zeros_like(labels)
    elif case == "two classes":
        labels = labels % 2
    elif case == "one dimension":
        z = z[:, :1]
    elif case == "huge":
        z = z * 1e12
    stats = statistics(z, labels, 9 if case == "absent classes" else 4)
    for figure in (
        geometry_figure(stats),
        cosines_figure(stats),
        spectrum_figure(stats),
        plane_figure(stats, z, labels),
        similarities_figure(similarity_histograms(z, labels, Exponential(1.0)), 4),
    ):
        picture = Image.open(BytesIO(to_png(figure)))
        assert len(picture.convert("RGB").getcolors(2**24)) > 10


@pytest.mark.parametrize("draw", [geometry_figure, cosines_figure, spectrum_figure, plane_figure])
def test_a_figure_without_data_is_refused(draw):
    with pytest.raises(ValueError, match="stats: got statistics without a sample"):
        draw(ClassStatistics(3, 2))


def test_a_png_is_small_and_keeps_the_drawn_colors(collapsed, scattered):
    for stats in (collapsed, scattered):
        figure = cosines_figure(stats)
        png = to_png(figure)
        drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(int)
        seen = np.asarray(Image.open(BytesIO(png)).convert("RGB")).astype(int)
        assert np.abs(drawn - seen).max() <= 40
        assert len(png) < 20_000


def test_pyplot_keeps_no_figure(scattered):
    import matplotlib.pyplot

    before = matplotlib.pyplot.get_fignums()
    assert isinstance(cosines_figure(scattered), Figure)
    assert matplotlib.pyplot.get_fignums() == before
