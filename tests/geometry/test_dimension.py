"""Intrinsic dimension against a loop, on manifolds of known dimension, and with features that coincide."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_lightning.geometry import intrinsic_dimension, simplex_etf, unit_sphere
from tests.geometry.loops_over_features import intrinsic_dimension as by_loops


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), n=st.integers(8, 20), dim=st.integers(1, 5), k=st.integers(2, 7))
def test_it_is_one_over_the_mean_of_inverses(seed, n, dim, k):
    z = random(seed, n, dim)
    assert intrinsic_dimension(z, k).item() == pytest.approx(by_loops(z.numpy(), k), rel=1e-9)
    assert intrinsic_dimension(3 * z - 7, k).item() == pytest.approx(by_loops(z.numpy(), k), rel=1e-7)


def embedded(z, dim):
    """Curve a manifold into more dimensions."""
    return torch.cat([z, z.square()], 1) @ random(1, 2 * z.shape[1], dim)


@pytest.mark.parametrize("dim", [1, 2, 4])
def test_manifolds_have_their_dimension_in_any_number_of_dimensions(dim):
    uniform = torch.rand(1500, dim, generator=torch.Generator().manual_seed(dim), dtype=torch.float64)
    assert intrinsic_dimension(embedded(uniform, 30)).item() == pytest.approx(dim, rel=0.15)
    sphere = unit_sphere(random(dim, 1500, dim + 1))
    assert intrinsic_dimension(torch.nn.functional.pad(sphere, (0, 20))).item() == pytest.approx(dim, rel=0.15)


def test_blocks_change_nothing(monkeypatch):
    z = random(0, 90, 4)
    whole = intrinsic_dimension(z, 5)
    monkeypatch.setattr("nc_lightning.geometry.dimension.DISTANCES_AT_ONCE", 7 * 90)
    assert intrinsic_dimension(z, 5).item() == pytest.approx(whole.item(), rel=1e-14)


@pytest.mark.parametrize("num_classes", [3, 40])
def test_collapsed_classes_are_points(num_classes):
    labels = torch.arange(num_classes).repeat(25)
    means = simplex_etf(num_classes, num_classes).double()
    assert intrinsic_dimension(means[labels], k=20) == 0
    noise = random(0, len(labels), 2) @ random(1, 2, num_classes)
    assert intrinsic_dimension(means[labels] + 1e-6 * noise, k=10).item() == pytest.approx(2, rel=0.35)


def test_a_few_duplicates_are_left_out():
    z = embedded(torch.rand(600, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 10)
    clean, repeated = intrinsic_dimension(z).item(), intrinsic_dimension(torch.cat([z, z[:60]])).item()
    assert repeated == pytest.approx(clean, rel=0.1)
    assert by_loops(torch.cat([z, z[:60]]).numpy()[:50], 5) > 0  # the loop has no duplicates among its rows
    with np.errstate(divide="ignore"):
        assert by_loops(torch.cat([z[:30], z[:30]]).numpy(), 5) == 0  # one over infinity


def test_equal_distances_have_no_dimension():
    assert math.isinf(intrinsic_dimension(torch.eye(9), k=3))


@pytest.mark.parametrize(
    ("z", "k", "message"),
    [
        (torch.zeros(5, 2), 5, "z: got 5 samples, expected at least 6 for k = 5 neighbors"),
        (torch.zeros(5, 2), 1, "k: got 1, expected an integer >= 2"),
        (torch.tensor([[0.0], [math.nan], [1.0]]), 2, "z: got nan in row 1, expected finite features"),
    ],
)
def test_bad_input_is_refused(z, k, message):
    with pytest.raises(ValueError, match=message):
        intrinsic_dimension(z, k)
