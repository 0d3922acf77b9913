"""Measures of pairs of class means: blocks have the values of whole matrices, and their memory is bounded."""

import pytest
import torch

from nc_lightning import geometry
from nc_lightning.geometry import CenterDistances, ClassStatistics, nc3_etf, nc4_mismatches, simplex_etf
from nc_lightning.geometry.class_pairs import centered_pairs, distance_to_etf, off_simplex
from nc_lightning.geometry.measures import STATISTICS_MEASURES
from tests.largest_tensor import LargestTensor

C, D = 60, 7


def statistics(seed=0, offset=0.0, classes=C):
    z = torch.randn(3 * classes, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + offset
    return ClassStatistics(classes, D).update(z, torch.arange(3 * classes) % classes)


def of_whole_matrices(stats):
    """Return the five measures from C x C matrices, as their definitions read."""
    means = stats.class_means - stats.class_means.mean(0)
    gram, different = means @ means.T, ~torch.eye(len(means), dtype=torch.bool)
    directions = means / means.norm(dim=1, keepdim=True)
    cosines = (directions @ directions.T)[different]
    etf = torch.eye(len(means), dtype=torch.float64) - 1 / len(means)
    first, second = torch.combinations(torch.arange(len(means))).T
    variances = stats.traces / stats.counts
    distances = (means[first] - means[second]).square().sum(1)
    return [
        cosines.std(correction=0),
        (cosines + 1 / (len(means) - 1)).abs().mean(),
        cosines.max(),
        (gram / gram.norm() - etf / etf.norm()).norm(),
        ((variances[first] + variances[second]) / (2 * distances)).mean(),
    ]


@pytest.mark.parametrize("numbers", [1, 7 * C, 2**22])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_blocks_have_the_values_of_whole_matrices(monkeypatch, numbers, offset):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", numbers)
    stats = statistics(offset=offset)
    found = torch.stack(list(centered_pairs(stats)))
    assert torch.allclose(found, torch.stack(of_whole_matrices(stats)), rtol=1e-9 if offset else 1e-12, atol=0)


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9])
def test_close_class_means_keep_their_digits(monkeypatch, gap):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 7 * C)
    stats = statistics()
    stats.means[9] = stats.means[40]
    stats.means[9, 0] += gap
    assert geometry.cdnv(stats).item() == pytest.approx(of_whole_matrices(stats)[4].item(), rel=1e-6)


def test_equal_class_means_are_at_no_distance(monkeypatch):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 7 * C)
    stats = statistics()
    stats.means[9] = stats.means[40]
    assert geometry.cdnv(stats).item() == torch.inf


def test_a_simplex_is_exact_in_blocks(monkeypatch):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 40)
    stats = ClassStatistics(12, 11).update(simplex_etf(12, 11), torch.arange(12))
    pairs = centered_pairs(stats)
    assert max(pairs.spread, pairs.off_simplex, pairs.to_etf, abs(pairs.largest + 1 / 11)) < 1e-14
    assert pairs.normalized_variance == 0


def test_products_of_two_matrices_are_compared_with_a_simplex(monkeypatch):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 100)
    left, right = statistics(1).class_means, statistics(2).class_means
    etf = torch.eye(C, dtype=torch.float64) - 1 / C
    products = left @ right.T
    expected = (products / products.norm() - etf / etf.norm()).norm().item()
    assert distance_to_etf(left, right).item() == pytest.approx(expected, rel=1e-12)
    cosines = (directions := left / left.norm(dim=1, keepdim=True)) @ directions.T
    different = ~torch.eye(C, dtype=torch.bool)
    assert off_simplex(directions).item() == pytest.approx((cosines[different] + 1 / (C - 1)).abs().mean().item())


def test_no_measure_makes_a_matrix_of_classes_or_of_samples_and_classes(monkeypatch):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 2000)
    classes = 400
    stats, weight = statistics(classes=classes), statistics(1, classes=classes).class_means
    z, labels = torch.randn(500, D), torch.arange(500) % classes
    with LargestTensor() as largest:
        for measure in STATISTICS_MEASURES.values():
            measure(stats)
        nc3_etf(stats, weight)
        nc4_mismatches(z, weight, None, CenterDistances(stats).update(z, labels))
    assert largest.numel <= 500 * D
    with LargestTensor() as largest:
        geometry.distance_to_optimum(stats, torch.eye(classes))
    assert largest.numel >= classes**2  # the matrix is given


def test_nearest_centers_in_blocks_are_those_of_all_distances(monkeypatch):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 3 * C)
    stats, z = statistics(), torch.randn(50, D, dtype=torch.float64)
    expected = torch.cdist(z, stats.means).argmin(1)
    assert torch.equal(CenterDistances(stats).nearest(z), expected)
    weight, bias = torch.randn(C, D).double(), torch.randn(C).double()
    decided = (z @ weight.T + bias).argmax(1)
    assert torch.equal(nc4_mismatches(z, weight, bias, CenterDistances(stats)), decided != expected)
