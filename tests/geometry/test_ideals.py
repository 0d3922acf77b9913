"""Ideals and their tolerances are met at neural collapse and nowhere else, in any number of dimensions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_lightning.geometry import (
    ClassStatistics,
    ideal,
    ideals_met,
    measure,
    simplex_etf,
    statistics_measures,
    unit_sphere,
)
from nc_lightning.geometry.ideals import random_class_means

OF_CLASS_MEANS = (
    *("nc2_equinorm", "nc2_equiangular", "nc2_maxangle", "nc2_etf", "nc2_tight_frame", "nc2_max_cosine"),
    *("equal_inner_product", "effective_rank", "participation_ratio", "nesum"),
)
OF_CLASSES = ("nc1", "nc1_sample", "nc1_pinv", "cdnv", "unit_norm")
SIZES = st.tuples(st.integers(5, 20), st.integers(0, 700)).map(lambda size: (size[0], size[0] - 1 + size[1]))


def met(z, labels, num_classes, keys):
    values = statistics_measures(ClassStatistics(num_classes, z.shape[1]).update(z, labels))
    found = {key: (values[key].item(), ideal(key, num_classes, z.shape[1])) for key in keys}
    return {key: pair for key, pair in found.items() if pair[1].met(pair[0])}


@settings(max_examples=25)
@given(size=SIZES, seed=st.integers(0, 999))
def test_random_features_meet_nothing(size, seed):
    num_classes, dim = size
    labels = torch.arange(num_classes).repeat(30)
    z = torch.randn(len(labels), dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert not met(unit_sphere(z), labels, num_classes, OF_CLASS_MEANS + OF_CLASSES)


@settings(max_examples=25)
@given(size=SIZES, share=st.floats(0.1, 0.6), seed=st.integers(0, 999))
def test_dimensional_collapse_meets_no_ideal_of_class_means(size, share, seed):
    num_classes, dim = size
    generator = torch.Generator().manual_seed(seed)
    used = max(1, round(share * (num_classes - 1)))
    means = torch.zeros(num_classes, dim, dtype=torch.float64)
    means[:, :used] = torch.randn(num_classes, used, generator=generator, dtype=torch.float64)
    means /= means.norm(dim=1, keepdim=True)
    if used == 1:
        means *= torch.linspace(0.5, 1, num_classes, dtype=torch.float64)[:, None]  # norms are equal in one dimension
    z = means.repeat(10, 1) + 1e-4 * torch.randn(10 * num_classes, dim, generator=generator, dtype=torch.float64)
    labels = torch.arange(num_classes).repeat(10)
    assert not met(z, labels, num_classes, set(OF_CLASS_MEANS) - {"nc2_equinorm"})


@settings(max_examples=25)
@given(size=SIZES)
def test_neural_collapse_meets_everything(size):
    num_classes, dim = size
    z, labels = simplex_etf(num_classes, dim).double(), torch.arange(num_classes)
    z, labels = z.repeat(3, 1), labels.repeat(3)
    z = z + 1e-4 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keys = OF_CLASS_MEANS + OF_CLASSES
    assert met(z, labels, num_classes, keys).keys() == set(keys)


ANY_SIZE = st.tuples(st.integers(2, 20), st.sampled_from([-5, -1, 0, 1, 10, 100, 700])).map(
    lambda size: (size[0], max(1, size[0] - 1 + size[1]))
)
OF_VARIABILITY = {"nc1", "nc1_sample", "cdnv", "within_class_variation"}


def met_by(z, labels, num_classes):
    return {key for key, met in ideals_met(measure(z, labels, num_classes), num_classes, z.shape[1]).items() if met}


@settings(max_examples=100)
@given(size=ANY_SIZE, per_class=st.sampled_from([10, 40]), on_sphere=st.booleans(), seed=st.integers(0, 999))
def test_no_measure_shows_neural_collapse_for_random_features(size, per_class, on_sphere, seed):
    num_classes, dim = size
    labels = torch.arange(num_classes).repeat(per_class)
    z = torch.randn(len(labels), dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert not met_by(unit_sphere(z) if on_sphere and dim > 1 else z, labels, num_classes)


@settings(max_examples=40)
@given(num_classes=st.integers(3, 100), room=st.integers(0, 100), share=st.floats(0.1, 0.6), seed=st.integers(0, 999))
def test_dimensional_collapse_meets_only_the_ideals_of_variability(num_classes, room, share, seed):
    dim, used = num_classes - 1 + room, max(1, round(share * (num_classes - 1)))
    generator = torch.Generator().manual_seed(seed)
    means = torch.zeros(num_classes, dim, dtype=torch.float64)
    means[:, :used] = torch.randn(num_classes, used, generator=generator, dtype=torch.float64)
    means = unit_sphere(means - means.mean(0))
    labels = torch.arange(num_classes).repeat(4)
    z = means[labels] + 1e-5 * torch.randn(len(labels), dim, generator=generator, dtype=torch.float64)
    assert met_by(z, labels, num_classes) <= OF_VARIABILITY


@settings(max_examples=25)
@given(size=ANY_SIZE.filter(lambda size: size[1] >= size[0] - 1))
def test_every_measure_with_an_ideal_shows_neural_collapse(size):
    num_classes, dim = size
    z, labels = simplex_etf(num_classes, dim).double().repeat(5, 1), torch.arange(num_classes).repeat(5)
    z = z + 1e-6 * torch.randn(z.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    measured = measure(z, labels, num_classes)
    met = ideals_met(measured, num_classes, dim)
    assert set(met) == {key for key in measured if ideal(key, num_classes, dim) is not None}
    assert all(met.values()), [key for key in met if not met[key]]


@pytest.mark.parametrize("key", OF_CLASS_MEANS)
def test_random_class_means_are_as_far_from_the_ideal_as_documented(key):
    num_classes, dim = 40, 400
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(num_classes, dim, generator=generator, dtype=torch.float64)
    stats = ClassStatistics(num_classes, dim).update(z, torch.arange(num_classes))
    goal = ideal(key, num_classes, dim)
    expected = random_class_means(key, num_classes, dim) - goal.value
    distance = statistics_measures(stats)[key].item() - goal.value
    assert distance == pytest.approx(expected, rel=0.25) or key == "nc2_max_cosine"
    assert abs(distance) > 0.75 * abs(expected)


def test_in_c_minus_1_dimensions_tolerances_equal_those_of_the_table():
    assert ideal("nc2_etf", 10, 9).tolerance == ideal("nc2_tight_frame", 10, 9).tolerance == 0.1
    assert ideal("equal_inner_product", 10, 9).tolerance == 0.02
    assert ideal("effective_rank", 10, 9).tolerance == pytest.approx(0.09)
