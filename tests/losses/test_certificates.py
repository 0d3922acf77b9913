"""The paper's inequalities hold under their assumptions and fail without them."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_lightning.geometry import simplex_etf
from nc_lightning.losses import ContrastiveLoss, HSCLLoss, InfoNCE, SCLLoss
from nc_lightning.losses.pairs import label_pairs
from tests.losses.test_hardening import OURS as HARDENINGS
from tests.losses.test_links import OURS as OUR_LINKS


def per_anchor(z, labels, negatives, link, hardening, temperature=1.0):
    """Loss of every anchor separately, with weights normalized per anchor."""
    pairs = label_pairs(labels, negatives)
    s = z @ z.T
    log_weights = hardening.log_weights(s, pairs.negatives)
    losses = []
    for i in torch.nonzero(pairs.anchors).squeeze(1):
        t = (s[i] - s[i][pairs.positives[i]][:, None]) / temperature
        count = pairs.negatives[i].sum().to(s)
        losses.append(torch.stack([link(row, log_weights[i], count) for row in t]).mean())
    return torch.stack(losses)


def batch(seed, size=10):
    generator = torch.Generator().manual_seed(seed)
    z = torch.nn.functional.normalize(torch.randn(size, 3, generator=generator, dtype=torch.float64))
    return z, torch.randint(3, (size,), generator=generator)


@pytest.mark.some(20)
@pytest.mark.filterwarnings("ignore:a batch holds no anchor")
@pytest.mark.parametrize("link", OUR_LINKS)
@pytest.mark.parametrize("eta", [name for name in HARDENINGS if name != "none"])
@pytest.mark.parametrize("negatives", ["other_classes", "all"])
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_hard_is_never_below_easy_for_any_anchor(link, eta, negatives, seed):
    z, labels = batch(seed)
    if not label_pairs(labels, negatives).anchors.any():
        return
    hard, easy = (per_anchor(z, labels, negatives, OUR_LINKS[link], HARDENINGS[e]) for e in (eta, "none"))
    assert (hard >= easy - 1e-10 * (1 + easy.abs())).all()
    options = {"link": OUR_LINKS[link], "hardening": HARDENINGS[eta]}
    whole = ContrastiveLoss(negatives, **options)(z, labels)
    assert whole >= ContrastiveLoss(negatives, link=OUR_LINKS[link])(z, labels) - 1e-10 * (1 + whole.abs())


def tilted_expectation(support, probabilities, k, psi, eta):
    """E[eta psi] / E[eta] over all k-tuples of a small support, by enumeration; eta is a product over the tuple."""
    numerator = denominator = 0.0
    for chosen in itertools.product(range(len(support)), repeat=k):
        u = support[list(chosen)]
        weight = probabilities[list(chosen)].prod() * eta(u).prod()
        numerator += weight * psi(u)
        denominator += weight
    return numerator / denominator


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("link", OUR_LINKS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), atoms=st.integers(2, 4), power=st.floats(0, 8))
def test_hardening_never_lowers_the_expectation_over_k_negatives(k, link, seed, atoms, power):
    generator = torch.Generator().manual_seed(seed)
    support = 2 * torch.rand(atoms, generator=generator, dtype=torch.float64) - 1
    probabilities = torch.rand(atoms, generator=generator, dtype=torch.float64) + 0.01
    probabilities /= probabilities.sum()
    even = torch.full((k,), -torch.tensor(float(k)).log().item(), dtype=torch.float64)
    count = torch.tensor(float(k), dtype=torch.float64)
    psi = lambda u: OUR_LINKS[link](u - 0.3, even, count)  # noqa: E731
    easy = tilted_expectation(support, probabilities, k, psi, torch.ones_like)
    for eta in (lambda u: torch.exp(power * u), lambda u: (1 + u) ** power):
        assert tilted_expectation(support, probabilities, k, psi, eta) >= easy - 1e-10 * (1 + abs(easy))


# --------------------------------------------------------------- without an assumption, the inequality must fail


def test_weights_normalized_over_the_batch_can_lower_the_loss():
    # Two anchors, one negative each: (u, s+) = (1, 1) and (0, -1).
    u, positive = torch.tensor([1.0, 0.0]), torch.tensor([1.0, -1.0])
    losses = torch.log1p(torch.exp(u - positive))
    weights = torch.exp(5 * u) / torch.exp(5 * u).mean()
    hard = torch.log1p(weights * torch.exp(u - positive)).mean()
    assert losses.mean().item() == pytest.approx(1.0032, abs=1e-4)
    joint = (weights * losses).mean()
    assert joint < losses.mean()
    assert hard.item() != pytest.approx(losses.mean().item())


def test_another_temperature_can_lower_the_loss():
    labels = torch.arange(3).repeat(6)
    z = simplex_etf(3, 3)[labels] + 0.1 * torch.randn(18, 3, dtype=torch.float64)
    assert HSCLLoss(2.0, temperature=0.5)(z, labels) < SCLLoss(temperature=1.0)(z, labels)


def test_dependent_negatives_can_lower_the_loss():
    # Two pairs of negatives that occur together; eta is a product, psi the mean form.
    psi = lambda u: torch.log1p(torch.exp(torch.tensor(u)).mean())  # noqa: E731
    pairs = [(1.0, -1.0), (0.1, 0.1)]
    easy = sum(psi(p) for p in pairs) / 2
    eta = [torch.tensor(p).add(1).pow(2).prod() for p in pairs]
    hard = sum(e * psi(p) for e, p in zip(eta, pairs, strict=True)) / sum(eta)
    assert hard < easy


def test_a_decreasing_hardening_lowers_the_loss():
    z, labels = batch(3, size=30)
    s, pairs = z @ z.T, label_pairs(labels, "other_classes")
    softened = (-3 * s).masked_fill(~pairs.negatives, -torch.inf).log_softmax(1)
    easy = torch.zeros_like(s).masked_fill(~pairs.negatives, -torch.inf).log_softmax(1)
    link = InfoNCE()
    assert (link.of_log_mean((s + softened).logsumexp(1), s) < link.of_log_mean((s + easy).logsumexp(1), s)).all()
