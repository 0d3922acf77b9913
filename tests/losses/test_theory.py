import statistics

import pytest
import torch

from nc_lightning.geometry import simplex_etf
from nc_lightning.losses import HSCLLoss, HUCLLoss, SCLLoss, SupConLoss, UCLLoss


@pytest.mark.some(3)
@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("num_negatives", [None, 3])
def test_the_value_at_neural_collapse_equals_that_of_the_simplex(beta, include_self, num_negatives):
    labels = torch.arange(4).repeat(3)
    z = simplex_etf(4, 3)[labels]
    loss = HUCLLoss(beta, num_negatives=num_negatives, include_self=include_self)
    expected = loss.neural_collapse_value(4, batch_size=12)
    values = [loss(z, labels).item() for _ in range(1 if num_negatives is None else 2000)]
    assert statistics.mean(values) == pytest.approx(expected, rel=1e-12 if num_negatives is None else 0.01)
    critical = loss.hucl_optimum(4, 12).critical_beta
    assert 0 < critical < 1
    assert (expected > loss.lower_bound(4, 12) + 1e-9) == (beta > critical)
    assert HSCLLoss(beta).neural_collapse_value(4) == HSCLLoss(beta).lower_bound(4)
    assert HUCLLoss(beta, normalization="none").neural_collapse_value(4) is None


def test_the_minimum_in_as_few_dimensions_as_a_simplex_needs():
    loss = HUCLLoss(5.0)
    whole, optimum = loss.optimal_gram(10, 250), loss.hucl_optimum(10, 250)
    assert torch.equal(loss.optimal_gram(10, 250, feature_dim=10), whole)
    smaller = loss.optimal_gram(10, 250, feature_dim=9)
    assert torch.linalg.matrix_rank(smaller, atol=1e-9) == 9
    assert smaller[0, 0].sqrt().item() == pytest.approx(optimum.norm)
    assert smaller[0, 0] - smaller[0, 1] == pytest.approx(whole[0, 0] - whole[0, 1])
    assert loss.optimal_gram(10, 250, feature_dim=8) is None
    assert HUCLLoss(5.0, normalization="unit_sphere").optimal_gram(10, 250, feature_dim=9) is None
    assert HUCLLoss(0.5).optimal_gram(10, 250) is None


def test_supcon_has_no_bound_for_unbalanced_classes():
    assert SupConLoss(1.0).lower_bound(3, 12, counts=[8, 2, 2]) is None
    assert SupConLoss(1.0).lower_bound(3, 12, counts=[4, 4, 4]) == SupConLoss(1.0).lower_bound(3, 12)


def test_draws_without_replacement_meet_the_bound_at_neural_collapse():
    loss = UCLLoss(num_negatives=4, replacement=False)
    assert loss.neural_collapse_value(5, 20) == loss.lower_bound(5, 20)


@pytest.mark.parametrize(("beta", "value"), [(1, 0.3231), (2, 0.3430), (5, 0.5615), (10, 0.6919)])
def test_the_published_values_of_hucl_at_neural_collapse_are_reproduced(beta, value):
    assert HUCLLoss(float(beta)).neural_collapse_value(100) == pytest.approx(value, abs=5e-5)


def test_there_is_no_bound_where_the_simplex_does_not_fit():
    assert SCLLoss().lower_bound(10, feature_dim=8) is None
    assert SCLLoss().lower_bound(10, feature_dim=9) == SCLLoss().lower_bound(10)
