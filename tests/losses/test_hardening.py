import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_lightning.losses import CustomHardening, Exponential, Polynomial, Threshold, ValueThreshold
from tests.losses.loops_over_triples import ETAS

OURS = {
    "none": Exponential(0.0),
    "exponential": Exponential(3.0),
    "polynomial": Polynomial(2.5),
    "threshold": Threshold(0.4),
    "value": ValueThreshold(0.2),
    "custom": CustomHardening(lambda s: (s + 2) ** 3),
}


@pytest.mark.parametrize("name", OURS)
@settings(max_examples=40)
@given(seed=st.integers(0, 2**31), n=st.integers(1, 9))
def test_weights(name, seed, n):
    generator = torch.Generator().manual_seed(seed)
    s = 2 * torch.rand(4, n, generator=generator, dtype=torch.float64) - 1
    mask = torch.rand(4, n, generator=generator) < 0.7
    weights = OURS[name].log_weights(s, mask).exp()
    for row in range(4):
        chosen = s[row][mask[row]]
        if len(chosen) == 0:
            continue
        expected = ETAS[name](chosen)
        assert torch.allclose(weights[row][mask[row]], expected / expected.sum(), rtol=1e-9, atol=1e-12)
        assert weights[row][~mask[row]].sum() == 0


def test_a_row_where_eta_vanishes_has_equal_weights():
    s = torch.tensor([[-1.0, -1.0, 0.5]])
    mask = torch.tensor([[True, True, False]])
    assert torch.allclose(Polynomial(2.0).log_weights(s, mask).exp(), torch.tensor([[0.5, 0.5, 0.0]]))


def test_ties_at_the_threshold_are_kept():
    s = torch.tensor([[0.2, 0.2, 0.1, 0.0]])
    weights = Threshold(0.25).log_weights(s, torch.ones(1, 4, dtype=torch.bool)).exp()
    assert weights.tolist() == [[0.5, 0.5, 0.0, 0.0]]


def test_a_fraction_moves_with_the_batch_and_a_value_does_not():
    easy, hard = torch.tensor([[-0.9, -0.8, -0.7, -0.6]]), torch.tensor([[0.6, 0.7, 0.8, 0.9]])
    mask = torch.ones(1, 4, dtype=torch.bool)
    for s in (easy, hard):
        assert Threshold(0.5).log_weights(s, mask).exp().tolist() == [[0.0, 0.0, 0.5, 0.5]]
        assert ValueThreshold(0.65).log_weights(s, mask).exp().count_nonzero() == (4 if s is easy else 3)


def test_polynomial_gradient_is_finite_where_eta_is_zero():
    s = torch.tensor([[-1.5, -1.0, 0.5]], requires_grad=True)
    Polynomial(2.0).log_weights(s, torch.ones(1, 3, dtype=torch.bool)).exp()[0, 2].backward()
    assert torch.isfinite(s.grad).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Exponential(-1), "beta: got -1"),
        (lambda: Polynomial(-1), "beta: got -1"),
        (lambda: Threshold(0), "fraction: got 0"),
        (lambda: Threshold(1.5), "fraction: got 1.5, expected a share"),
        (lambda: ValueThreshold(float("nan")), "value: got nan, expected a finite number$"),
        (lambda: CustomHardening(lambda s: s), "eta: got -1.0 at s = -1.00, expected a finite number >= 0"),
        (lambda: CustomHardening(lambda s: s.abs()), "eta: decreases between"),
        (lambda: CustomHardening(lambda s: s + 1, span=-1), "span: got -1"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nan_weights_are_refused():
    hardening = CustomHardening(lambda s: (s + 1).clamp(min=0) + torch.where(s > 1, torch.nan, 0.0))
    with pytest.raises(ValueError, match="hardening: got NaN weights from CustomHardening"):
        hardening.log_weights(torch.tensor([[2.0]]), torch.ones(1, 1, dtype=torch.bool))


@pytest.mark.parametrize("tenths", range(1, 11))
def test_a_threshold_keeps_the_smallest_number_that_is_at_least_the_fraction(tenths):
    for count in range(1, 120):
        similarity, negatives = torch.arange(float(count))[None], torch.ones(1, count, dtype=torch.bool)
        kept = Threshold(tenths / 10).log_weights(similarity, negatives).exp().count_nonzero()
        assert kept == -(-count * tenths // 10)
