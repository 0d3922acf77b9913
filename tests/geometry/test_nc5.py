"""NC5 against a loop over classes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import ClassStatistics, nc5, simplex_etf


@given(seed=st.integers(0, 2**31), num_classes=st.integers(1, 6), dim=st.integers(1, 6))
def test_it_is_the_mean_absolute_cosine(seed, num_classes, dim):
    generator = np.random.default_rng(seed)
    z, labels = generator.normal(size=(3 * num_classes, dim)), np.arange(num_classes).repeat(3)
    other = generator.normal(size=dim)
    cosines = []
    for c in range(num_classes):
        mean = z[labels == c].mean(0)
        cosines.append(abs(mean @ other) / np.linalg.norm(mean) / np.linalg.norm(other))
    # One more class is declared, and absent.
    stats = ClassStatistics(num_classes + 1, dim).update(torch.from_numpy(z), torch.from_numpy(labels))
    assert nc5(stats, torch.from_numpy(other)).item() == pytest.approx(np.mean(cosines), rel=1e-9)
    assert nc5(stats, torch.from_numpy(-9 * other)).item() == pytest.approx(np.mean(cosines), rel=1e-9)


def test_a_direction_outside_the_span_of_the_classes_is_orthogonal():
    stats = ClassStatistics(4, 5).update(simplex_etf(4, 5), torch.arange(4))
    span = simplex_etf(4, 5).double()
    outside = torch.linalg.svd(span).Vh[-1]
    assert nc5(stats, outside).item() == pytest.approx(0, abs=1e-7)
    assert nc5(stats, span[0]).item() == pytest.approx((1 + 3 / 3) / 4)
    assert math.isnan(nc5(stats, torch.zeros(5)))


def test_a_mean_that_does_not_fit_is_refused():
    stats = ClassStatistics(2, 3).update(torch.eye(3)[:2], torch.arange(2))
    with pytest.raises(ValueError, match=r"ood_mean: got shape \(2,\), expected \(3,\), as the features"):
        nc5(stats, torch.ones(2))
    with pytest.raises(ValueError, match="ood_mean: got inf in row 0"):
        nc5(stats, torch.full((3,), torch.inf))
