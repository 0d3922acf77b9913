import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import ClassStatistics, simplex_etf, simplex_plane


def statistics(z, labels, num_classes):
    return ClassStatistics(num_classes, z.shape[1]).update(z, labels)


def rotation(d):
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]


@given(classes=st.integers(2, 12), extra=st.integers(0, 4), scale=st.floats(0.01, 100))
def test_at_neural_collapse_every_mean_is_at_its_corner(classes, extra, scale):
    torch.manual_seed(classes)
    d = classes - 1 + extra
    z = scale * simplex_etf(classes, d) @ rotation(d) + torch.randn(d, dtype=torch.float64)
    stats = statistics(z, torch.arange(classes), classes)
    basis, corners = simplex_plane(stats)
    assert torch.allclose(stats.centered_class_means @ basis, corners, atol=1e-9 * scale)
    wrong = statistics(z, torch.arange(classes).roll(1), classes)
    assert torch.allclose(wrong.centered_class_means @ simplex_plane(wrong)[0], corners, atol=1e-9 * scale)
    if classes > 2:
        assert not torch.allclose(wrong.centered_class_means @ basis, corners, atol=1e-3 * scale)


def test_the_corners_are_a_regular_polygon_in_the_order_of_the_classes():
    _, corners = simplex_plane(statistics(simplex_etf(5, 4), torch.arange(5), 5))
    radius = math.sqrt(2 / 4)  # the projection of five unit vectors in four dimensions onto a plane
    angles = [2 * math.pi * k / 5 for k in range(5)]
    expected = [[radius * math.cos(a), radius * math.sin(a)] for a in angles]
    assert torch.allclose(corners, torch.tensor(expected, dtype=torch.float64))


def test_rotating_all_features_changes_nothing():
    z, labels, turned = torch.randn(60, 7, dtype=torch.float64), torch.arange(60) % 6, rotation(7)
    stats, rotated = statistics(z, labels, 6), statistics(z @ turned, labels, 6)
    (basis, corners), (rotated_basis, rotated_corners) = simplex_plane(stats), simplex_plane(rotated)
    assert torch.allclose(z @ basis, z @ turned @ rotated_basis)
    assert torch.allclose(corners, rotated_corners)


def test_the_plane_uses_the_rotation_nearest_to_the_simplex():
    z, labels = torch.randn(60, 5, dtype=torch.float64), torch.arange(60) % 6
    stats = statistics(z, labels, 6)
    means, basis = stats.centered_class_means, simplex_plane(stats)[0]
    u, _, v = torch.linalg.svd(means.T @ simplex_etf(6, 5), full_matrices=False)
    turned = means @ (u @ v)  # orthogonal Procrustes, by its textbook formula
    corners = simplex_etf(6, 5)
    around = simplex_plane(statistics(corners, torch.arange(6), 6))[0]
    assert torch.allclose(turned @ around, means @ basis)
    assert torch.allclose(basis.T @ basis, torch.eye(2, dtype=torch.float64))


@pytest.mark.parametrize("case", ["all equal", "one class", "two classes", "one dimension", "absent classes"])
def test_degenerate_statistics_have_a_plane(case):
    z, labels = torch.randn(12, 3), torch.arange(12) % 4
    if case == "all equal":
        z = torch.ones(12, 3)
    elif case == "one class":
        labels = torch.zeros_like(labels)
    elif case == "two classes":
        labels = labels % 2
    elif case == "one dimension":
        z = z[:, :1]
    stats = statistics(z, labels, 9)
    basis, corners = simplex_plane(stats)
    assert basis.shape == (z.shape[1], 2)
    assert corners.shape == (int(stats.present.sum()), 2)
    assert basis.isfinite().all()
    assert corners.isfinite().all()
    assert case not in ("all equal", "one class") or not (basis.any() or corners.any())


def test_a_plane_without_any_class_is_refused():
    with pytest.raises(ValueError, match="stats: got statistics without a sample"):
        simplex_plane(ClassStatistics(3, 2))
