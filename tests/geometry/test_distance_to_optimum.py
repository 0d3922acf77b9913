import math

import pytest
import torch

from nc_lightning.geometry import ClassStatistics, distance_to_optimum, nc2_etf, scl_optimum, simplex_etf

COUNTS = [9, 3, 3]


@pytest.fixture(scope="module")
def gram():
    return scl_optimum(counts=COUNTS).gram


def stats(means):
    labels = torch.arange(3).repeat_interleave(torch.tensor(COUNTS))
    return ClassStatistics(3, 3).update(means[labels], labels)


def test_it_is_0_at_the_optimum_and_at_any_scale(gram):
    values, vectors = torch.linalg.eigh(gram)
    means = vectors * values.clamp(min=0).sqrt()
    for scale in (1.0, 0.3):
        assert distance_to_optimum(stats(scale * means), gram).item() == pytest.approx(0, abs=1e-9)


def test_it_is_the_distance_entry_by_entry(gram):
    etf = simplex_etf(3, 3)
    products, goal = (g / g.square().sum().sqrt() for g in (etf @ etf.T, gram))
    slow = math.sqrt(sum((products[i, j] - goal[i, j]).item() ** 2 for i in range(3) for j in range(3)))
    assert distance_to_optimum(stats(etf), gram).item() == pytest.approx(slow, abs=1e-12)
    assert slow > 0.1


def test_for_equal_classes_and_centered_means_it_is_the_distance_to_the_simplex():
    means = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centered = stats(means - means.mean(0))
    gram = scl_optimum(counts=[4, 4, 4]).gram
    assert distance_to_optimum(centered, gram).item() == pytest.approx(nc2_etf(centered).item(), abs=1e-6)


def test_means_of_zero_and_another_number_of_classes(gram):
    assert distance_to_optimum(stats(torch.zeros(3, 3)), gram).isnan()
    with pytest.raises(ValueError, match=r"gram: got shape \(2, 2\), expected \(3, 3\) for the classes with samples"):
        distance_to_optimum(stats(simplex_etf(3, 3)), gram[:2, :2])
