"""Ideals of a loss whose minimum is not neural collapse: from closed forms, and met at the minimum alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_lightning.geometry import (
    MEASURES,
    hucl_optimum,
    ideal,
    measure,
    optimal_ideals,
    optimal_values,
    optimum_met,
    scl_optimum,
    simplex_etf,
)

LABEL_FREE = {key for key, measure in MEASURES.items() if measure.label_free}
OF_VARIABILITY = {"nc1", "nc1_sample", "cdnv", "within_class_variation"}


def hucl_gram(num_classes, beta):
    optimum = hucl_optimum(num_classes, beta)
    eye = torch.eye(num_classes, dtype=torch.float64)
    return optimum, optimum.distance * (eye - 1 / num_classes) + optimum.zero_sum**2


def features_with(gram, feature_dim, per_class=5, noise=1e-5):
    values, vectors = torch.linalg.eigh(gram)
    means = torch.zeros(len(gram), feature_dim, dtype=torch.float64)
    means[:, : len(gram)] = vectors * values.clamp(min=0).sqrt()
    labels = torch.arange(len(gram)).repeat(per_class)
    z = means[labels]
    return z + noise * torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), labels


@pytest.mark.parametrize(("num_classes", "beta"), [(3, 1.0), (10, 5.0), (40, 30.0)])
@pytest.mark.parametrize("room", [-1, 0, 7])
def test_hucl_has_the_values_of_its_shifted_simplex(num_classes, beta, room):
    optimum, gram = hucl_gram(num_classes, beta)
    rank = num_classes - 1
    expected = dict.fromkeys(("nc1", "nc1_sample", "nc1_pinv", "cdnv", "within_class_variation"), 0.0)
    expected |= dict.fromkeys(("nc2_etf", "nc2_equinorm", "nc2_equiangular", "nc2_maxangle", "unit_norm"), 0.0)
    expected |= dict.fromkeys(("nc1_rank", "effective_rank", "participation_ratio", "nesum", "lidar"), float(rank))
    expected |= {"zero_sum": optimum.zero_sum, "ncc_accuracy": 1.0, "nc2_max_cosine": -1 / rank}
    expected |= {"equal_inner_product": 1 - optimum.distance + 1 / rank}
    if room >= 0:  # in C - 1 dimensions the shift does not fit
        expected |= {"nc2_tight_frame": math.sqrt(2 - 2 * math.sqrt(rank / (num_classes + room)))}
    assert optimum.zero_sum > 0.2
    assert optimal_values(gram, num_classes + room) == pytest.approx(expected, abs=2e-6)


def test_a_shrunk_simplex_keeps_its_rank():
    values = optimal_values(0.49 * (simplex_etf(5, 4) @ simplex_etf(5, 4).T), 4)
    assert (values["unit_norm"], values["zero_sum"]) == pytest.approx((0.3, 0.0), abs=1e-6)
    assert (values["effective_rank"], values["nc2_etf"]) == pytest.approx((4.0, 0.0), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(classes=st.integers(2, 9), rank=st.integers(1, 9), seed=st.integers(0, 999))
def test_values_equal_those_computed_from_the_gram_matrix(classes, rank, seed):
    factor = np.random.default_rng(seed).normal(size=(classes, rank))
    gram = factor @ factor.T
    values = optimal_values(torch.from_numpy(gram), feature_dim=12)
    norms = np.sqrt(np.diag(gram))
    cosines = [gram[a, b] / norms[a] / norms[b] for a in range(classes) for b in range(classes) if a != b]
    center = np.eye(classes) - 1 / classes
    spectrum = np.sqrt(np.linalg.eigvalsh(center @ gram @ center).clip(0))
    shares = spectrum[spectrum > 1e-7] / spectrum.sum()
    assert values["zero_sum"] == pytest.approx(math.sqrt(gram.sum().clip(0)) / classes, abs=1e-5)
    assert values["unit_norm"] == pytest.approx(np.abs(norms - 1).mean(), abs=1e-5)
    assert values["equal_inner_product"] == pytest.approx(
        np.abs(np.array(cosines) + 1 / (classes - 1)).mean(), abs=1e-5
    )
    assert values["effective_rank"] == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), abs=1e-4)


def test_every_measure_of_class_means_has_a_value():
    gram = scl_optimum(counts=[6, 4, 3, 2]).gram
    computed = {key for key, measure in MEASURES.items() if measure.compute is not None}
    assert set(optimal_values(gram, 5)) == computed - LABEL_FREE - {"nc1_outside_span"}
    assert set(optimal_ideals(gram, 5)) == set(optimal_values(gram, 5)) | {"distance_to_optimum", "loss/optimality_gap"}


@pytest.mark.parametrize("feature_dim", [4, 5, 40])
def test_at_neural_collapse_they_are_its_ideals(feature_dim):
    gram = simplex_etf(5, 4) @ simplex_etf(5, 4).T
    goals = optimal_ideals(gram, feature_dim)
    for key in set(goals) - {"distance_to_optimum", "loss/optimality_gap"}:
        expected = ideal(key, 5, feature_dim)
        assert goals[key].value == pytest.approx(expected.value, abs=1e-6), key
        assert goals[key].tolerance == expected.tolerance


def test_coinciding_classes_have_a_low_rank_and_no_nearest_center():
    optimum = scl_optimum(priors=[50 / 59] + 9 * [1 / 59])
    assert optimum.minority_collapsed
    goals = optimal_ideals(optimum.gram, 9)
    assert goals["effective_rank"].value == pytest.approx(1, abs=1e-2)
    assert not {"cdnv", "ncc_accuracy"} & set(goals)


def test_class_means_in_too_few_dimensions_have_no_ideals():
    assert optimal_ideals(hucl_gram(10, 5.0)[1], 8) == {}


@pytest.mark.parametrize(
    ("minimum", "feature_dim"),
    [
        (lambda: hucl_gram(10, 5.0)[1], 16),
        (lambda: hucl_gram(10, 1.6)[1], 400),
        (lambda: scl_optimum(counts=[9, 6, 3, 3]).gram, 8),
    ],
)
def test_everything_is_met_at_the_minimum_and_not_at_neural_collapse(minimum, feature_dim):
    gram = minimum()
    goals = optimal_ideals(gram, feature_dim)
    at_minimum, labels = features_with(gram, feature_dim)
    measured = measure(at_minimum, labels)
    distance = (gram / gram.norm() - _products(at_minimum, labels)).norm().item()
    met = optimum_met(measured | {"distance_to_optimum": distance}, goals)
    assert set(met) == set(goals) - {"loss/optimality_gap"}
    assert all(met.values()), [key for key in met if not met[key]]

    simplex = simplex_etf(len(gram), feature_dim)[labels]
    distance = (gram / gram.norm() - _products(simplex, labels)).norm().item()
    met = optimum_met(measure(simplex, labels) | {"distance_to_optimum": distance}, goals)
    assert (distance > goals["distance_to_optimum"].tolerance) == (not met["zero_sum"])
    assert not met["zero_sum"]


def _products(z, labels):
    means = torch.stack([z[labels == c].mean(0) for c in range(int(labels.max()) + 1)]).double()
    return means @ means.T / (means @ means.T).norm()


@settings(max_examples=30, deadline=None)
@given(classes=st.integers(5, 20), room=st.sampled_from([0, 5, 100, 600]), over=st.floats(1.01, 20.0))
def test_random_class_means_are_not_at_a_minimum(classes, room, over):
    _, gram = hucl_gram(classes, over * hucl_optimum(classes, 1.0).critical_beta)
    dim = classes - 1 + room
    means = torch.randn(classes, dim, generator=torch.Generator().manual_seed(classes), dtype=torch.float64)
    labels = torch.arange(classes)
    means = means / means.norm(dim=1, keepdim=True)
    distance = (gram / gram.norm() - _products(means, labels)).norm().item()
    assert distance > 2 * optimal_ideals(gram, dim)["distance_to_optimum"].tolerance


def test_only_variability_is_met_away_from_the_minimum():
    _, gram = hucl_gram(10, 5.0)
    z, labels = features_with(gram, 16)
    met = optimum_met(measure(z, labels) | {"distance_to_optimum": 0.3}, optimal_ideals(gram, 16))
    assert {key for key in met if met[key]} == OF_VARIABILITY
    assert not optimum_met({"zero_sum": 0.81}, optimal_ideals(gram, 16))["zero_sum"]  # unknown nc1


@pytest.mark.parametrize("gram", [torch.ones(3), torch.ones(2, 3), torch.full((2, 2), math.nan)])
def test_a_matrix_that_is_no_gram_matrix_is_refused(gram):
    with pytest.raises(ValueError, match=r"gram: got shape \(.*\), expected a square matrix of finite numbers"):
        optimal_values(gram, 3)
