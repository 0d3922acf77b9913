"""Wasserstein uniformity against matrix square roots, at neural collapse, and under dimensional collapse."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import (
    ClassStatistics,
    ideal,
    simplex_etf,
    tight_frame_floor,
    uniformity,
    unit_sphere,
    wasserstein_uniformity,
)
from tests.geometry.loops_over_features import gaussian_distance


def measured(z):
    return wasserstein_uniformity(ClassStatistics(2, z.shape[1]).update(z, torch.arange(len(z)) % 2)).item()


def random(seed, n, dim, shift=0.0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@given(
    seed=st.integers(0, 2**31),
    n=st.integers(2, 30),
    dim=st.integers(1, 9),
    shift=st.sampled_from([0.0, 1.0, 10.0]),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
)
def test_it_is_the_distance_of_gaussians_by_matrix_square_roots(seed, n, dim, shift, scale):
    z = random(seed, n, dim, shift)
    unit = (z / z.square().sum(1).mean().sqrt()).numpy()
    covariance = np.atleast_2d(np.cov(unit.T, ddof=0))
    expected = gaussian_distance(unit.mean(0), covariance, np.zeros(dim), np.eye(dim) / dim)
    assert measured(scale * z) ** 2 == pytest.approx(expected, abs=1e-6)
    assert 0 <= measured(z) <= math.sqrt(2) + 1e-12


@given(seed=st.integers(0, 2**31), dim=st.integers(2, 9))
def test_on_the_sphere_it_has_the_form_of_the_paper(seed, dim):
    z = unit_sphere(random(seed, 40, dim, 0.5))
    mean, covariance = z.mean(0).numpy(), np.cov(z.numpy().T, ddof=0)
    roots = np.sqrt(np.linalg.eigvalsh(covariance).clip(0)).sum()
    paper = mean @ mean + 1 + np.trace(covariance) - 2 / math.sqrt(dim) * roots
    assert measured(z) ** 2 == pytest.approx(paper, abs=1e-12)


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (10, 9), (10, 10), (4, 64)])
def test_at_neural_collapse_it_is_its_ideal_however_many_samples(num_classes, dim):
    means = simplex_etf(num_classes, dim).double()
    expected = math.sqrt(2 - 2 * math.sqrt((num_classes - 1) / dim))
    assert measured(means) == pytest.approx(expected, abs=1e-7)
    assert measured(means.repeat(7, 1)) == pytest.approx(expected, abs=1e-7)
    assert ideal("wasserstein_uniformity", num_classes, dim).value == pytest.approx(expected)
    assert tight_frame_floor(num_classes, dim) == pytest.approx(expected)


def test_more_classes_than_a_simplex_has_reach_zero():
    angles = torch.arange(7).double() * (2 * math.pi / 7)
    assert measured(torch.stack([angles.cos(), angles.sin()], 1)) == pytest.approx(0, abs=1e-7)
    assert ideal("wasserstein_uniformity", 7, 2).value == 0


def test_it_sees_dimensional_collapse_and_no_replicas_unlike_uniformity():
    z = unit_sphere(random(0, 300, 64))
    half = z.clone()
    half[:, 32:] = 0
    half = unit_sphere(half)
    assert measured(half) > measured(z) + 0.3
    assert abs(uniformity(half) - uniformity(z)) < 0.2  # of a range of 8
    assert measured(z[:20].repeat(2, 1)) == pytest.approx(measured(z[:20]), abs=1e-12)
    assert uniformity(z[:20].repeat(2, 1)) > uniformity(z[:20]) + 0.1


def test_equal_and_zero_features():
    assert measured(torch.ones(6, 4)) == pytest.approx(math.sqrt(2))
    assert math.isnan(measured(torch.zeros(6, 4)))
