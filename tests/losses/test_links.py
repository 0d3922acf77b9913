import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_lightning.losses import CustomLink, InfoNCE, Logistic, Triplet
from tests.losses.loops_over_triples import LINKS

OURS = {
    "infonce": InfoNCE(),
    "infonce sum": InfoNCE(form="sum"),
    "infonce alpha 0.3": InfoNCE(alpha=0.3),
    "infonce sum alpha 0": InfoNCE(form="sum", alpha=0),
    "logistic": Logistic(),
    "triplet": Triplet(margin=0.4),
    "custom": CustomLink(phi=torch.square, chi=torch.exp, span=3.0),
}
numbers = st.lists(st.floats(-3, 3), min_size=1, max_size=5)


@pytest.mark.parametrize("name", LINKS)
@settings(max_examples=40)
@given(t=numbers, seed=st.integers(0, 999))
def test_value(name, t, seed):
    weights = torch.rand(len(t), generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.01
    weights /= weights.sum()
    t = torch.tensor(t, dtype=torch.float64)
    value = OURS[name](t, weights.log(), torch.tensor(float(len(t)), dtype=torch.float64))
    assert value.item() == pytest.approx(LINKS[name](t, weights, len(t)).item(), rel=1e-12, abs=1e-12)
    assert OURS[name].mixture(t.tolist(), weights.tolist(), len(t)) == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.parametrize("link", OURS.values(), ids=OURS)
@settings(max_examples=40)
@given(a=numbers, seed=st.integers(0, 999))
def test_convex_and_non_decreasing(link, a, seed):
    generator = torch.Generator().manual_seed(seed)
    a = torch.tensor(a, dtype=torch.float64)
    b = 6 * torch.rand(len(a), generator=generator, dtype=torch.float64) - 3
    weights = torch.full_like(a, 1 / len(a)).log()
    count = torch.tensor(float(len(a)), dtype=torch.float64)
    psi = lambda t: link(t, weights, count)  # noqa: E731
    assert psi((a + b) / 2) <= (psi(a) + psi(b)) / 2 + 1e-9 * (1 + psi(a).abs() + psi(b).abs())
    assert psi(torch.maximum(a, b)) >= psi(a) - 1e-12


@pytest.mark.parametrize("link", [v for k, v in OURS.items() if k != "custom"], ids=[k for k in OURS if k != "custom"])
def test_extremes_are_finite_with_a_gradient(link):
    for scale in (1e-6, 1e2, 1e6):
        t = torch.tensor([-scale, 0.0, scale], requires_grad=True)
        value = link(t, torch.tensor([0.2, 0.3, 0.5]).log(), torch.tensor(3.0))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(t.grad).all()


def test_a_negative_without_weight_has_no_effect():
    t = torch.tensor([0.5, torch.inf], dtype=torch.float64)
    for link in OURS.values():
        if isinstance(link, InfoNCE):
            continue
        weights = torch.tensor([0.0, -torch.inf], dtype=torch.float64)
        assert link(t, weights, torch.tensor(1.0)).item() == pytest.approx(link.mixture([0.5], [1.0]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InfoNCE(form="max"), "form: got 'max', expected one of mean, sum"),
        (lambda: InfoNCE(alpha=-1), "alpha: got -1"),
        (lambda: Triplet(margin=-0.1), "margin: got -0.1"),
        (lambda: CustomLink(torch.log1p, torch.exp, span=0), "span: got 0"),
        (lambda: CustomLink(lambda u: -u, torch.exp), "psi decreases between"),
        (lambda: CustomLink(lambda u: u, torch.tanh), "psi is concave around"),
        (lambda: CustomLink(lambda u: u.sqrt(), torch.exp, span=2), None),
        (lambda: CustomLink(torch.log, lambda t: t), "psi is not finite at"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    if message is None:
        assert math.isfinite(make().mixture([0.1], [1.0]))
        return
    with pytest.raises(ValueError, match=message):
        make()
