"""Every link is tested with every hardening, estimator and kind of positive."""

import inspect
import math
import statistics

import pytest
import torch

from nc_lightning.geometry import simplex_etf
from nc_lightning.losses import (
    ContrastiveLoss,
    HSCLLoss,
    HUCLLoss,
    InfoNCE,
    Logistic,
    Polynomial,
    SCLLoss,
    Threshold,
    Triplet,
    UCLLoss,
)
from nc_lightning.losses.engines import tile_sizes
from tests.losses.loops_over_triples import ETAS, LINKS, loop_loss
from tests.losses.test_hardening import OURS as HARDENINGS
from tests.losses.test_links import OURS as OUR_LINKS

LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 3, 2, 0])


def value_and_gradient(function, z):
    leaf = z.clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("negatives", ["other_classes", "all"])
def test_value_and_gradient_equal_those_of_loops_over_triples(link, eta, negatives, monkeypatch):
    monkeypatch.setattr(tile_sizes, "CPU", tile_sizes.CPU._replace(row_block=9))  # several blocks and chunks
    z = 0.7 * torch.randn(9, 4, dtype=torch.float64)
    for differentiate in (False, True):
        loss = ContrastiveLoss(
            negatives,
            temperature=0.5,
            differentiate_weights=differentiate,
            link=OUR_LINKS[link],
            hardening=HARDENINGS[eta],
        )
        value, gradient = value_and_gradient(lambda z, loss=loss: loss(z, LABELS), z)
        options = {"temperature": 0.5, "differentiate": differentiate, "link": link, "eta": eta}
        expected, expected_gradient = value_and_gradient(lambda z, o=options: loop_loss(z, LABELS, negatives, **o), z)
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        assert (gradient - expected_gradient).abs().max() < 1e-9 * expected_gradient.abs().max()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("share_draws", [False, True])
def test_drawn_negatives_converge_to_the_expectation(link, share_draws):
    z = torch.randn(9, 4, dtype=torch.float64)
    exact = HSCLLoss(3.0, link=OUR_LINKS[link])(z, LABELS).item()
    k = 4000
    drawn = HSCLLoss(3.0, num_negatives=k, link=OUR_LINKS[link], share_draws=share_draws)
    estimates = [drawn(z, LABELS).item() for _ in range(10)]
    if "sum" in link:  # k drawn negatives represent the few in the batch
        alpha = 0.0 if "alpha 0" in link else 1.0
        exact = HSCLLoss(3.0, link=InfoNCE(alpha=alpha / k))(z, LABELS).item() + math.log(k)
    error = statistics.stdev(estimates) / math.sqrt(10)
    assert abs(statistics.mean(estimates) - exact) < 4 * error + 2e-3 * abs(exact)


def test_draws_depend_only_on_the_generator():
    z = torch.randn(12, 3)
    labels = torch.arange(4).repeat(3)
    for replacement in (True, False):
        loss = HSCLLoss(2.0, num_negatives=5, replacement=replacement)
        first, second, other = (
            loss(z, labels, generator=torch.Generator().manual_seed(seed)).item() for seed in (1, 1, 2)
        )
        assert first == second != other


def test_drawing_all_negatives_without_replacement_is_the_exact_unhardened_loss():
    z, labels = torch.randn(12, 3, dtype=torch.float64), torch.arange(4).repeat(3)
    drawn = HSCLLoss(7.0, num_negatives=9, replacement=False)(z, labels)
    assert drawn.item() == pytest.approx(SCLLoss()(z, labels).item(), rel=1e-12)


@pytest.mark.parametrize("share_draws", [False, True])
def test_a_small_evaluation_batch_draws_all_its_negatives(share_draws):
    z, labels = torch.randn(9, 3), torch.tensor([0, 0, 1, 1, 1, 2, 3, 2, 0])
    loss = HSCLLoss(num_negatives=50, replacement=False, share_draws=share_draws)
    with pytest.raises(ValueError, match="num_negatives: got 50 without replacement, expected at most 6"):
        loss(z, labels)
    assert loss.eval()(z, labels).item() == pytest.approx(SCLLoss()(z, labels).item(), rel=1e-6)
    loss.num_negatives = 7  # a single anchor, of class 3, has 8
    drawn = {round(loss(z, labels).item(), 6) for _ in range(50)}
    assert len(drawn) <= 8, "only that anchor may leave one out"


def test_draws_without_replacement_are_distinct_and_follow_the_weights():
    from nc_lightning.losses.engines.sampled import _draw_without_replacement

    log_weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(4000, 4)
    drawn, counts = _draw_without_replacement(log_weights, 2, torch.rand(4000, 4, dtype=torch.float64))
    assert (counts == 2).all()
    assert (drawn[:, 0] != drawn[:, 1]).all()
    first = drawn[:, 0].bincount() / 4000
    assert torch.allclose(first, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.03)


def test_draws_follow_the_weights_and_never_pick_a_zero_weight():
    from nc_lightning.losses.engines.sampled import _draw

    weights = torch.tensor([[0.0, 0.1, 0.0, 0.9], [0.5, 0.0, 0.5, 0.0], [0.0, 0.0, 1.0, 0.0]])
    drawers = torch.tensor([0, 0, 1, 2])
    drawn = _draw(weights.log().clamp(min=-3e38), drawers, torch.rand(4, 5000, dtype=torch.float64))
    for row, anchor in zip(drawn, drawers, strict=True):
        assert torch.allclose(row.bincount(minlength=4) / 5000, weights[anchor], atol=0.02)
    ends = torch.tensor([[0.0, 1 - 2.0**-53]], dtype=torch.float64).repeat(3, 1)
    assert _draw(weights.log().clamp(min=-3e38), torch.arange(3), ends).tolist() == [[1, 3], [0, 2], [2, 2]]


@pytest.mark.parametrize("loss", [HSCLLoss(5.0), HSCLLoss(link=Triplet()), HSCLLoss(num_negatives=4), SCLLoss()])
def test_a_second_derivative_is_refused(loss):
    x, weight = torch.randn(9, 3, requires_grad=True), torch.randn(3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss((x @ weight).tanh(), LABELS), x, create_graph=True)
    with pytest.raises(RuntimeError, match="loss: got a second derivative, expected first ones only"):
        gradient.square().sum().backward()


def test_a_second_derivative_by_the_temperature_is_refused():
    temperature = torch.nn.Parameter(torch.tensor(0.5))
    loss = SCLLoss(temperature)(torch.randn(9, 3), LABELS)
    (gradient,) = torch.autograd.grad(loss, temperature, create_graph=True)
    with pytest.raises(RuntimeError, match="loss: got a second derivative"):
        gradient.backward()


def test_too_few_negatives_are_refused():
    labels = torch.arange(4).repeat(3)
    z = torch.randn(12, 3)
    assert torch.isfinite(HSCLLoss(num_negatives=256)(z, labels))
    with pytest.raises(ValueError, match="num_negatives: got 256 without replacement, expected at most 9"):
        HSCLLoss(num_negatives=256, replacement=False)(z, labels)


def test_positives_by_view_equal_unknown_labels():
    z = torch.randn(8, 3, dtype=torch.float64)
    instances = torch.arange(4).repeat(2)
    labels = torch.tensor([0, 0, 1, 2]).repeat(2)
    by_view = SCLLoss(positives="view")(z, torch.full_like(labels, -1), instances)
    assert by_view.item() == pytest.approx(SCLLoss()(z, instances).item(), rel=1e-14)
    unknown = SCLLoss()(z, torch.full_like(labels, -1), instances)
    assert unknown.item() == pytest.approx(by_view.item(), rel=1e-14)
    partly = torch.tensor([0, 0, -1, -1]).repeat(2)
    known = UCLLoss()(z, torch.tensor([0, 0, 5, 6]).repeat(2), instances)
    assert UCLLoss()(z, partly, instances).item() == pytest.approx(known.item(), rel=1e-14)
    assert UCLLoss(positives="view").lower_bound(4, 8) is None
    with pytest.raises(TypeError, match=r"instances: got torch\.float32"):
        SCLLoss()(z, labels, instances.float())


@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_debiasing_is_the_published_formula(beta):
    z = torch.nn.functional.normalize(torch.randn(8, 3, dtype=torch.float64))
    labels = torch.arange(4).repeat(2)
    tau_plus, temperature = 0.1, 0.5
    total = []
    for i in range(8):
        j = (i + 4) % 8
        others = [n for n in range(8) if n != i]
        negative = torch.exp(z[others] @ z[i] / temperature)
        weights = torch.softmax(beta * (z[others] @ z[i]), 0)
        positive = torch.exp(z[i] @ z[j] / temperature)
        rest = ((weights * negative).sum() - tau_plus * positive) / (1 - tau_plus)
        total.append(-torch.log(positive / (positive + rest.clamp(min=math.exp(-1 / temperature)))))
    loss = HUCLLoss(beta, temperature, tau_plus=tau_plus)
    assert loss(z, labels).item() == pytest.approx(torch.stack(total).mean().item(), rel=1e-12)
    assert loss.lower_bound(4, 8) is None


def test_debiasing_with_drawn_negatives_converges_to_the_exact_one():
    z = torch.nn.functional.normalize(torch.randn(8, 3, dtype=torch.float64))
    labels = torch.arange(4).repeat(2)
    exact = HUCLLoss(1.0, 0.5, tau_plus=0.4)(z, labels).item()
    drawn = HUCLLoss(1.0, 0.5, tau_plus=0.4, num_negatives=20_000)(z, labels).item()
    assert drawn == pytest.approx(exact, rel=0.01)
    assert drawn != pytest.approx(HUCLLoss(1.0, 0.5, num_negatives=20_000)(z, labels).item(), rel=0.03)


def test_debiasing_survives_total_collapse():
    z = torch.ones(8, 3, dtype=torch.float64, requires_grad=True)
    loss = UCLLoss(tau_plus=0.9)(z, torch.arange(4).repeat(2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("num_classes", [3, 10])
def test_the_etf_meets_the_bound_of_every_link(link, num_classes):
    labels = torch.arange(num_classes).repeat(4)
    z = simplex_etf(num_classes, num_classes)[labels]
    for loss in (SCLLoss(0.7, link=OUR_LINKS[link]), HSCLLoss(4.0, 0.7, link=OUR_LINKS[link])):
        assert loss(z, labels).item() == pytest.approx(loss.lower_bound(num_classes, len(labels)), abs=1e-10)
    loss = UCLLoss(0.7, link=OUR_LINKS[link])
    bound = loss.lower_bound(num_classes, len(labels))
    assert loss(z, labels).item() == pytest.approx(bound, abs=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HSCLLoss(tau_plus=0.1), "tau_plus: got 0.1, expected 0 except for unsupervised InfoNCE"),
        (lambda: UCLLoss(tau_plus=0.1, link=Logistic()), "tau_plus: got 0.1, expected 0 except for"),
        (lambda: UCLLoss(tau_plus=1.0), r"tau_plus: got 1.0, expected a probability in \[0, 1\)"),
        (lambda: UCLLoss(tau_plus=-0.1), "tau_plus: got -0.1"),
        (lambda: SCLLoss(positives="both"), "positives: got 'both', expected one of label, view"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_beta_belongs_to_the_hardening():
    loss = HSCLLoss(hardening=Polynomial(2.0))
    loss.beta = 3.0
    assert loss.hardening.beta == 3.0
    with pytest.raises(ValueError, match=r"beta: Threshold\(fraction=0.5\) has no hardness"):
        HSCLLoss(hardening=Threshold(0.5)).beta = 3.0
    assert "Triplet(margin=1.0)" in repr(HSCLLoss(link=Triplet()))


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("num_negatives", [None, 7])
def test_total_collapse_has_the_expected_loss_with_every_link(link, num_negatives):
    loss = HSCLLoss(3.0, num_negatives=num_negatives, link=OUR_LINKS[link])
    if "sum" in link and num_negatives is None:
        assert loss.collapsed_value is None
    else:
        value = loss(torch.ones(12, 3, dtype=torch.float64), torch.arange(4).repeat(3))
        assert value.item() == pytest.approx(loss.collapsed_value, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("loss", "fixed"), [(SCLLoss, True), (HSCLLoss, False), (UCLLoss, True), (HUCLLoss, False)])
def test_signatures_list_the_options(loss, fixed):
    options = dict(inspect.signature(ContrastiveLoss).parameters)
    expected = options.keys() - ({"negatives", "beta"} if fixed else {"negatives"})
    shown = inspect.signature(loss).parameters
    assert shown.keys() == expected
    for name in expected - {"beta"}:
        assert shown[name].default == options[name].default
        assert getattr(loss(**{name: options[name].default}), name) is not None or options[name].default is None
    with pytest.raises(TypeError, match="unexpected"):
        loss(option=1)
