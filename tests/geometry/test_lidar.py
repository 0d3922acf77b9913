"""LiDAR of classes and of instances, against whitening by loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import ClassStatistics, lidar, lidar_of, simplex_etf
from tests.geometry.loops_over_features import lidar as by_loops

DELTAS = st.sampled_from([1e-6, 1e-4, 1.0])


def grouped(seed, groups, dim, per_group):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(groups).repeat(per_group)
    means = torch.randn(groups, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    return means[labels] + 0.3 * noise * torch.rand(dim, generator=generator), labels


def covariances(z, labels):
    z, labels = z.numpy(), labels.numpy()
    means = np.stack([z[labels == c].mean(0) for c in range(labels.max() + 1)])
    within = sum(np.outer(r, r) for r in z - means[labels]) / len(z)
    between = sum(np.outer(m, m) for m in means - means.mean(0)) / len(means)
    return within, between


@given(seed=st.integers(0, 2**31), groups=st.integers(2, 9), dim=st.integers(1, 9), n=st.integers(2, 5), delta=DELTAS)
def test_it_is_the_effective_rank_after_whitening(seed, groups, dim, n, delta):
    z, labels = grouped(seed, groups, dim, n)
    within, between = covariances(z, labels)
    value = lidar(ClassStatistics(groups, dim).update(z, labels), delta).item()
    assert value == pytest.approx(by_loops(within, between, delta), rel=1e-6)
    assert lidar_of(torch.from_numpy(within), torch.from_numpy(between), delta).item() == pytest.approx(value, rel=1e-6)
    assert 1 - 1e-9 <= value <= min(groups - 1, dim) + 1e-9


def test_directions_in_which_classes_overlap_count_less():
    labels = torch.arange(4).repeat(50)
    z = simplex_etf(4, 3).double()[labels]
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    even, uneven = 0.1 * noise, torch.tensor([0.1, 0.1, 5.0], dtype=torch.float64) * noise
    ranks = [lidar(ClassStatistics(4, 3).update(z + each, labels)).item() for each in (even, uneven)]
    assert ranks[0] > 2.9
    assert ranks[1] < 2.1


@pytest.mark.parametrize("noise", [0.0, 1e-9, 1e9])
def test_any_scale_of_noise_can_be_whitened(noise):
    labels = torch.arange(5).repeat(3)
    z = simplex_etf(5, 40).double()[labels]
    z[:, 7] += noise * torch.arange(15).double()
    value = lidar(ClassStatistics(5, 40).update(z, labels))
    assert 0.9 < value < 4 + 1e-9


def test_coinciding_means_have_rank_zero_and_a_wrong_delta_is_refused():
    stats = ClassStatistics(3, 2).update(torch.ones(6, 2), torch.arange(3).repeat(2))
    assert lidar(stats) == 0
    with pytest.raises(ValueError, match="delta: got 0, expected a finite number > 0"):
        lidar(stats, delta=0)
