import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from nc_lightning.geometry import (
    hucl_critical_beta,
    hucl_lower_bound,
    hucl_optimum,
    simplex_etf,
    ucl_lower_bound,
)
from nc_lightning.geometry.hucl_curve import Curve

# Solutions of beta q(a) (e^(a / tau) - 1) = 1 / tau, to the digits given.
CRITICAL = {
    1.0: {3: 0.542, 4: 0.752, 5: 0.914, 6: 1.046, 10: 1.411, 20: 1.906, 50: 2.570, 100: 3.085, 200: 3.615, 1000: 4.897},
    0.5: {3: 0.249, 4: 0.409, 5: 0.542, 6: 0.654, 10: 0.980, 20: 1.438, 50: 2.070, 100: 2.568, 200: 3.084, 1000: 4.344},
    0.1: {3: 9e-6, 4: 6.5e-5, 10: 0.0015, 100: 0.0395, 1000: 0.325},
}  # fmt: skip


def enumerated(own, other, num_classes, beta, tau, k, alpha=1.0):
    """The mean loss over all classes of k negatives, which are at similarity ``other``, or ``own`` in the own class."""
    weights = np.exp(beta * np.where(np.arange(num_classes) == 0, own, other))
    weights /= weights.sum()
    total = 0.0
    for classes in itertools.product(range(num_classes), repeat=k):
        t = [(own if c == 0 else other) - own for c in classes]
        total += weights[list(classes)].prod() * math.log(alpha + sum(math.exp(x / tau) for x in t) / k)
    return total


@pytest.mark.parametrize("tau", CRITICAL)
def test_the_critical_hardness(tau):
    for num_classes, beta in CRITICAL[tau].items():
        assert hucl_critical_beta(num_classes, tau) == pytest.approx(beta, abs=6e-4 if beta > 0.01 else 6e-5)


@pytest.mark.parametrize(("k", "beta"), [(1, 3.261), (2, 3.176), (3, 3.147), (16, 3.097), (256, 3.086), (None, 3.085)])
def test_the_critical_hardness_of_drawn_negatives(k, beta):
    assert hucl_critical_beta(100, num_negatives=k) == pytest.approx(beta, abs=6e-4)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize(("beta", "tau", "alpha"), [(0.3, 1.0, 1.0), (2.0, 1.0, 1.0), (5.0, 0.5, 0.3), (1.0, 0.2, 0.0)])
def test_the_minimum_over_distances_by_enumeration(k, beta, tau, alpha):
    def loss(distance):
        return enumerated(1.0, 1.0 - distance, 4, beta, tau, k, alpha)

    found = minimize_scalar(loss, bounds=(0, 4 / 3), method="bounded", options={"xatol": 1e-10})
    expected = min(found.fun, loss(4 / 3))
    assert hucl_lower_bound(4, beta, tau, k, alpha=alpha) == pytest.approx(expected, abs=1e-10)
    assert hucl_optimum(4, beta, tau, k, alpha=alpha).distance == pytest.approx(found.x, abs=1e-4)


def test_the_closed_form_of_the_exact_loss():
    for num_classes, beta, tau in [(10, 5.0, 1.0), (100, 30.0, 1.0), (3, 0.6, 0.7)]:
        optimum = hucl_optimum(num_classes, beta, tau)
        ratio = math.exp(-optimum.distance / tau) * (1 + 1 / (beta * tau))
        assert optimum.loss == pytest.approx(math.log1p(ratio), abs=1e-14)


def test_many_draws_tend_to_the_exact_loss():
    assert hucl_lower_bound(10, 3.0, num_negatives=20_000) == pytest.approx(hucl_lower_bound(10, 3.0), abs=1e-5)


@pytest.mark.parametrize("k", [None, 1, 7])
def test_without_hardness_it_is_the_bound_of_ucl(k):
    for num_classes, tau in [(3, 1.0), (10, 0.1), (100, 0.5)]:
        expected = ucl_lower_bound(num_classes, tau, k)
        assert hucl_lower_bound(num_classes, 0.0, tau, k) == pytest.approx(expected, abs=1e-14)
        counts = [4] * num_classes
        of_batch = ucl_lower_bound(num_classes, tau, k, collision=3 / (4 * num_classes - 1))
        assert hucl_lower_bound(num_classes, 0.0, tau, k, counts) == pytest.approx(of_batch, abs=1e-14)
    limit = (
        math.log(1.1)
        if k is None
        else sum(math.comb(k, m) * 0.1**m * 0.9 ** (k - m) * math.log1p(m / k) for m in range(k + 1))
    )  # approached, not attained
    assert hucl_lower_bound(10, 0.0, num_negatives=k, normalization="none") == pytest.approx(limit)


@given(num_classes=st.integers(2, 300), log_tau=st.floats(-3, 1), log_beta=st.floats(-4, 2))
def test_neural_collapse_is_the_minimum_up_to_the_critical_hardness(num_classes, log_tau, log_beta):
    beta, tau = 10**log_beta, 10**log_tau
    critical, optimum = hucl_critical_beta(num_classes, tau), hucl_optimum(num_classes, beta, tau)
    etf = num_classes / (num_classes - 1)
    curve = Curve(beta, tau, num_classes - 1.0, None, 1.0)
    at_collapse = curve.value_and_slope(np.array([etf]))[0].item()
    assert optimum.critical_beta == critical
    assert optimum.loss <= at_collapse + 1e-12
    if beta < 0.999 * critical:
        assert optimum.loss == pytest.approx(at_collapse, abs=1e-14)
        assert (optimum.distance, optimum.norm, optimum.zero_sum) == (etf, 1.0, 0.0)
    if beta > 1.001 * critical:
        assert optimum.distance < etf
        assert optimum.norm**2 + optimum.zero_sum**2 == pytest.approx(1)


@pytest.mark.parametrize("tau", [1e-2, 1e-3, 1e-5])
def test_low_temperatures_do_not_overflow(tau):
    with np.errstate(over="raise", invalid="raise"):
        for k in (None, 16):
            bound = hucl_lower_bound(10, 5.0, tau, k)
            assert hucl_lower_bound(10, 0.0, tau, k) <= bound <= math.log(2)
    assert 0 <= hucl_critical_beta(10, tau) < 1e-40


def smallest(beta, kappa):
    def ratio(distance):
        return (1 + kappa * math.exp(-(beta + 1) * distance)) / (1 + kappa * math.exp(-beta * distance))

    return math.log1p(minimize_scalar(ratio, bounds=(0, 9), method="bounded", options={"xatol": 1e-9}).fun)


@pytest.mark.parametrize(("beta", "tau"), [(1e12, 1.0), (1e-12, 1.0), (5.0, 1e12), (5.0, 1e-12), (1e12, 1e-12)])
def test_extreme_arguments_have_a_bound(beta, tau):
    assert 0 < hucl_lower_bound(10, beta, tau) <= math.log(2) + 1e-12
    assert hucl_critical_beta(10, tau) >= 0


def test_unbalanced_counts_are_a_mean_over_pairs_without_normalization():
    counts, beta = [5, 4, 3, 2, 2, 1, 0], 1.7
    pairs = [n * (n - 1) for n in counts]
    each = [smallest(beta, (17 - n) / (n - 1)) if n > 1 else 0.0 for n in counts]
    expected = sum(p * g for p, g in zip(pairs, each, strict=True)) / sum(pairs)
    assert hucl_lower_bound(7, beta, counts=counts, normalization="none") == pytest.approx(expected, abs=1e-10)
    assert hucl_lower_bound(7, beta, counts=counts) >= expected - 1e-12
    assert hucl_lower_bound(7, beta, counts=counts) > hucl_lower_bound(7, 0.0, counts=counts)


def test_a_batch_of_one_class_has_only_negatives_of_its_own():
    assert hucl_lower_bound(3, 5.0, counts=[4, 0, 0]) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1, "beta": 1.0}, "num_classes: got 1"),
        ({"num_classes": 3, "beta": -1.0}, "beta: got -1.0"),
        ({"num_classes": 3, "beta": 1.0, "temperature": 0.0}, "temperature: got 0.0"),
        ({"num_classes": 3, "beta": 1.0, "temperature": 1e300}, r"temperature: got 1e\+300, expected 1e-12 to 1e\+12"),
        ({"num_classes": 3, "beta": 1e300}, r"beta: got 1e\+300, expected 1e-12 to 1e\+12"),
        ({"num_classes": 3, "beta": 1.0, "num_negatives": 0}, "num_negatives: got 0"),
        ({"num_classes": 3, "beta": 1.0, "alpha": -1.0}, "alpha: got -1.0"),
        ({"num_classes": 3, "beta": 1.0, "normalization": "ball"}, "normalization: got 'ball'"),
        ({"num_classes": 3, "beta": 1.0, "counts": [2, 2]}, r"counts: got \[2, 2\], expected 3 numbers"),
        ({"num_classes": 2, "beta": 1.0, "counts": [2, -1]}, "expected 2 numbers of samples >= 0"),
        ({"num_classes": 2, "beta": 1.0, "counts": [1, 1]}, "there is no pair"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        hucl_lower_bound(**options)


def test_the_critical_hardness_is_of_balanced_classes():
    with pytest.raises(ValueError, match="expected equal ones"):
        hucl_critical_beta(3, counts=[3, 2, 2])
    with pytest.raises(ValueError, match="expected equal ones"):
        hucl_optimum(3, 1.0, counts=[3, 3, 0])
    assert hucl_critical_beta(100, counts=[5] * 100) == pytest.approx(3.2452, abs=1e-4)
    assert hucl_critical_beta(100, counts=[5] * 100, include_self=True) == pytest.approx(hucl_critical_beta(100))


# ------------------------------------------------------------------- linear stability of neural collapse on the sphere


def hucl(z, of_weights, beta):
    """The loss of class means (C, d) of the population, with weights from other features."""
    s, t = z @ z.T, of_weights @ of_weights.T
    return torch.log1p(((beta * t).softmax(1) * (s - s.diagonal()[:, None]).exp()).sum(1)).mean()


@pytest.mark.parametrize("differentiate", [False, True])
@pytest.mark.parametrize(("share", "stable"), [(0.98, True), (1.02, False)])
def test_neural_collapse_loses_stability_at_the_critical_hardness_unless_weights_are_detached(
    share, stable, differentiate
):
    num_classes = 4
    beta = share * hucl_critical_beta(num_classes)
    raw = simplex_etf(num_classes, num_classes, dtype=torch.float64)

    def step(raw):
        def loss(free):
            z, fixed = (torch.nn.functional.normalize(x, dim=1) for x in (free, raw))
            return hucl(z, z if differentiate else fixed, beta)

        return torch.func.grad(loss)(raw).flatten()

    assert step(raw).abs().max() < 1e-15
    rates = torch.linalg.eigvals(torch.func.jacrev(step)(raw).reshape(raw.numel(), -1)).real
    assert (rates.min() > -1e-12) == (stable or not differentiate)
