"""Named losses equal their papers, written out sample by sample, in value and gradient."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from nc_lightning.geometry import simplex_etf
from nc_lightning.losses import (
    ContrastiveLoss,
    DCLLoss,
    DHELLoss,
    FeatureQueue,
    HCLLoss,
    InfoNCE,
    NTXentLoss,
    SupConLoss,
    UCLLoss,
)
from nc_lightning.losses.engines import tile_sizes
from tests.largest_tensor import LargestTensor
from tests.losses.test_contrastive import value_and_gradient

TAU = 0.3


def supcon(z, labels, tau=TAU):
    """Khosla et al. (2020), eq. 2, divided by the number of anchors with a positive."""
    z, losses = normalize(z), []
    for i in range(len(z)):
        others = [n for n in range(len(z)) if n != i]
        total = sum(torch.exp(z[i] @ z[n] / tau) for n in others)
        terms = [torch.log(torch.exp(z[i] @ z[p] / tau) / total) for p in others if labels[p] == labels[i]]
        if terms:
            losses.append(-sum(terms) / len(terms))
    return sum(losses) / len(losses)


def over_pairs_of_views(loss):
    """Average a loss of (anchor, positive, instances, views) over all pairs of views of the same sample."""

    def of_batch(z, instances, tau=TAU):
        z, n = normalize(z), len(z)
        views = [sum(instances[m] == instances[i] for m in range(i)) for i in range(n)]
        pairs = [(i, j) for i in range(n) for j in range(n) if i != j and instances[i] == instances[j]]
        return sum(loss(z, i, j, instances, views, tau) for i, j in pairs) / len(pairs)

    return of_batch


@over_pairs_of_views
def nt_xent(z, i, j, instances, views, tau):
    """Chen et al. (2020), eq. 1."""
    total = sum(torch.exp(z[i] @ z[k] / tau) for k in range(len(z)) if k != i)
    return -torch.log(torch.exp(z[i] @ z[j] / tau) / total)


@over_pairs_of_views
def dcl(z, i, j, instances, views, tau):
    """Yeh et al. (2021), L_DC."""
    total = sum(torch.exp(z[i] @ z[k] / tau) for k in range(len(z)) if instances[k] != instances[i])
    return -z[i] @ z[j] / tau + torch.log(total)


@over_pairs_of_views
def dhel(z, i, j, instances, views, tau):
    """Koromilas et al. (2024), L_DHEL."""
    total = sum(torch.exp(z[i] @ z[k] / tau) for k in range(len(z)) if k != i and views[k] == views[i])
    return -torch.log(torch.exp(z[i] @ z[j] / tau) / total)


def hcl(beta, tau_plus):
    @over_pairs_of_views
    def loss(z, i, j, instances, views, tau):
        """Robinson et al. (2021), with the weights and the clamp of their code."""
        positive = torch.exp(z[i] @ z[j] / tau)
        negatives = torch.exp(torch.stack([z[i] @ z[k] for k in range(len(z)) if instances[k] != instances[i]]) / tau)
        weights = negatives**beta
        reweighted = (weights * negatives).sum() / weights.mean()
        total = (reweighted - tau_plus * len(negatives) * positive) / (1 - tau_plus)
        return -torch.log(positive / (positive + total.clamp(min=len(negatives) * math.exp(-1 / tau))))

    return loss


VIEW_LOSSES = {
    "nt-xent": (NTXentLoss(TAU), nt_xent),
    "dcl": (DCLLoss(TAU), dcl),
    "dhel": (DHELLoss(TAU), dhel),
    "hcl": (HCLLoss(1.5, TAU, tau_plus=0.0), hcl(1.5, 0.0)),
    "hcl, debiased": (HCLLoss(1.5, TAU, tau_plus=0.1), hcl(1.5, 0.1)),
    "hcl, clamped": (HCLLoss(0.5, TAU, tau_plus=0.8), hcl(0.5, 0.8)),
}


def assert_equal(found, expected):
    (value, gradient), (expected_value, expected_gradient) = found, expected
    assert value.item() == pytest.approx(expected_value.item(), rel=1e-12)
    assert (gradient - expected_gradient).abs().max() <= 1e-12 * expected_gradient.abs().max()


@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize("name", VIEW_LOSSES)
@pytest.mark.parametrize("layout", ["view after view", "sample after sample"])
def test_losses_by_view_equal_their_papers(name, num_views, layout):
    loss, reference = VIEW_LOSSES[name]
    z = torch.randn(5 * num_views, 4, dtype=torch.float64)
    ids = (
        torch.arange(5).repeat(num_views)
        if layout == "view after view"
        else torch.arange(5).repeat_interleave(num_views)
    )
    expected = value_and_gradient(lambda z: reference(z, ids.tolist()), z)
    assert_equal(value_and_gradient(lambda z: loss(z, torch.zeros_like(ids), ids), z), expected)
    assert_equal(value_and_gradient(lambda z: loss(z, ids), z), expected)


@pytest.mark.parametrize("labels", [[0, 1, 2] * 3, [0, 0, 0, 0, 1, 1, 2, 1, 3], [0, 0, 1, 2, 3, 4, 5, 6, 7]], ids=str)
def test_supcon_equals_its_paper_for_balanced_and_unbalanced_classes(labels):
    z, ids = torch.randn(9, 4, dtype=torch.float64), torch.tensor(labels)
    expected = value_and_gradient(lambda z: supcon(z, labels), z)
    assert_equal(value_and_gradient(lambda z: SupConLoss(TAU)(z, ids), z), expected)
    by_pairs = UCLLoss(TAU, normalization="unit_sphere", link=InfoNCE("sum", alpha=0))
    of_pairs = value_and_gradient(lambda z: by_pairs(z, ids), z)
    if labels == [0, 1, 2] * 3:
        assert_equal(of_pairs, expected)
    elif labels[2] == 0:
        assert abs(of_pairs[0] - expected[0]) > 1e-3, "pairs and anchors have different weights"


def test_supcon_of_several_views_of_labeled_and_unlabeled_samples():
    z, labels, instances = (
        torch.randn(12, 4, dtype=torch.float64),
        torch.tensor([0, 1, 0, -1] * 3),
        torch.arange(4).repeat(3),
    )
    expected = value_and_gradient(lambda z: supcon(z, [0, 1, 0, 7] * 3), z)
    assert_equal(value_and_gradient(lambda z: SupConLoss(TAU)(z, labels, instances), z), expected)


def test_supcon_without_labels_is_nt_xent():
    z, ids = torch.randn(12, 4, dtype=torch.float64), torch.arange(6).repeat(2)
    of_supcon = value_and_gradient(lambda z: SupConLoss(TAU)(z, torch.full_like(ids, -1), ids), z)
    assert_equal(of_supcon, value_and_gradient(lambda z: NTXentLoss(TAU)(z, ids), z))


@pytest.mark.parametrize("name", ["nt-xent", "dcl", "dhel"])
def test_a_missing_view_is_no_positive(name):
    loss, reference = VIEW_LOSSES[name]
    z, ids = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1, 2])
    assert_equal(
        value_and_gradient(lambda z: loss(z, ids), z), value_and_gradient(lambda z: reference(z, ids.tolist()), z)
    )


def test_supcon_meets_its_bound_at_neural_collapse_and_losses_by_view_have_none():
    labels = torch.arange(5).repeat(4)
    value = SupConLoss(0.5)(simplex_etf(5, 4).double()[labels], labels)
    assert value.item() == pytest.approx(SupConLoss(0.5).lower_bound(5, batch_size=20), abs=1e-7)
    for loss in (NTXentLoss(), DCLLoss(), HCLLoss(), DHELLoss()):
        assert loss.lower_bound(5, batch_size=20) is None


def test_hcl_has_its_own_convention_for_the_hardness():
    z, ids = torch.randn(12, 4, dtype=torch.float64), torch.arange(6).repeat(2)
    options = {"link": InfoNCE("sum"), "differentiate_weights": True, "normalization": "unit_sphere"}
    ours = ContrastiveLoss("other_classes", beta=1.5 / TAU, temperature=TAU, **options)
    loss = HCLLoss(1.5, TAU, tau_plus=0.0)
    assert_equal(value_and_gradient(lambda z: loss(z, ids), z), value_and_gradient(lambda z: ours(z, ids), z))
    assert loss.beta == 1.5 / TAU


@pytest.mark.parametrize("loss", [NTXentLoss(), DCLLoss(), HCLLoss(), DHELLoss()])
def test_a_row_with_an_unknown_id_is_a_view_of_no_other(loss):
    z, ids = torch.randn(7, 4, dtype=torch.float64), torch.tensor([0, 0, 1, 1, -1, -1, -1])
    assert_equal(
        value_and_gradient(lambda z: loss(z, ids), z),
        value_and_gradient(lambda z: loss(z, torch.tensor([0, 0, 1, 1, 2, 3, 4])), z),
    )
    with pytest.warns(UserWarning, match="its loss is 0"):
        assert loss(z, torch.full((7,), -1)) == 0


@pytest.mark.parametrize("mistake", ["temperature", "swapped views", "same-view negatives"])
def test_the_comparison_detects_a_deliberate_error(mistake):
    z, ids = torch.randn(10, 4, dtype=torch.float64), torch.arange(5).repeat(2)
    expected = dhel(z, ids.tolist())
    loss = DCLLoss(TAU) if mistake == "same-view negatives" else DHELLoss(TAU + 0.001 * (mistake == "temperature"))
    if mistake == "swapped views":
        z[:1], z[5:6] = z[5:6].clone(), z[:1].clone()
    assert abs(loss(z, ids) - expected) > 1e-4


@pytest.mark.parametrize("make", [SupConLoss, NTXentLoss, DCLLoss, DHELLoss])
def test_the_temperature_can_be_learned(make):
    z, ids = torch.randn(12, 4, dtype=torch.float64), torch.arange(6).repeat(2)
    temperature = nn.Parameter(torch.tensor(0.4, dtype=torch.float64))
    make(temperature)(z, ids).backward()
    step = 1e-6
    expected = (make(0.4 + step)(z, ids) - make(0.4 - step)(z, ids)) / (2 * step)
    assert temperature.grad.item() == pytest.approx(expected.item(), rel=1e-7)


@pytest.mark.parametrize("make", [SupConLoss, DHELLoss])
def test_small_blocks_have_the_value_and_gradient_of_one(make, monkeypatch):
    z, ids = torch.randn(24, 4, dtype=torch.float64), torch.arange(12).repeat(2)
    expected = value_and_gradient(lambda z: make()(z, ids), z)
    monkeypatch.setattr(tile_sizes, "CPU", tile_sizes.CPU._replace(row_block=50))
    assert_equal(value_and_gradient(lambda z: make()(z, ids), z), expected)


@pytest.mark.parametrize(
    "loss",
    [SupConLoss(), NTXentLoss(), DCLLoss(), HCLLoss(tau_plus=0.0), HCLLoss(), DHELLoss()],
    ids=lambda loss: f"{type(loss).__name__} {loss.tau_plus}",
)
def test_no_tensor_approaches_the_square_of_the_batch(loss):
    n = 8192
    z, ids = torch.randn(n, 16, requires_grad=True), torch.arange(n // 2).repeat(2)
    with LargestTensor() as largest:
        loss(z, ids).backward()
    assert largest.products > 0
    assert largest.numel < n * n / 8


@pytest.mark.parametrize("temperature", [0.5, 0.01, 0.001])
def test_the_debiased_gradient_is_finite_at_any_temperature(temperature):
    ids = torch.tensor([0, 0, 1, 1])
    exact = value_and_gradient(
        lambda z: HCLLoss(temperature=temperature)(z, ids), torch.eye(4, dtype=torch.float64)[ids]
    )
    value, gradient = value_and_gradient(lambda z: HCLLoss(temperature=temperature)(z, ids), torch.eye(4)[ids])
    torch.testing.assert_close(value.double(), exact[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.double(), exact[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [SupConLoss, NTXentLoss, DCLLoss, HCLLoss, DHELLoss])
def test_extremes_and_half_precision_are_finite(make):
    for z in (torch.randn(8, 4).bfloat16(), 1e6 * torch.randn(8, 4), torch.ones(8, 4)):
        value, gradient = value_and_gradient(lambda z: make(temperature=0.01)(z, torch.arange(4).repeat(2)), z)
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("make", [SupConLoss, NTXentLoss, DCLLoss, HCLLoss, DHELLoss])
def test_a_batch_without_positives_or_negatives_warns_and_is_zero(make):
    z = torch.randn(4, 3, requires_grad=True)
    with pytest.warns(UserWarning, match="a batch holds no anchor with both a positive and a negative"):
        value = make()(z, torch.arange(4))
    value.backward()
    assert value == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


@pytest.mark.parametrize("make", [SupConLoss, DHELLoss])
def test_a_queue_is_refused(make):
    loss = make()
    loss.queue = FeatureQueue(4)
    loss.queue.push(torch.randn(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=f"queue: got a queue for {make.__name__}, expected none"):
        loss(torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SupConLoss(0), "temperature: got 0"),
        (lambda: HCLLoss(beta=-1.0), "beta: got -1.0"),
        (lambda: HCLLoss(temperature=0.0), "temperature: got 0.0"),
        (lambda: HCLLoss(tau_plus=1.0), "tau_plus: got 1.0"),
        (lambda: NTXentLoss()(torch.zeros(4, 2), torch.zeros(3, dtype=torch.long)), r"labels: got shape \(3,\)"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
