import math
import statistics
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import simplex_etf
from nc_lightning.losses import ContrastiveLoss, HSCLLoss, HUCLLoss, SCLLoss, UCLLoss
from tests.losses.loops_over_triples import loop_loss, paper_estimate

LAYOUTS = {
    "mixed": [0, 0, 1, 1, 1, 2, 3, 2, 0],
    "pairs": [0, 0, 1, 1, 2, 2],
    "two classes": [0, 1, 0, 1, 1, 1],
    "one class": [3, 3, 3, 3],
    "with singletons": [0, 0, 5, 6, 7],
}
NEGATIVES = ["other_classes", "all"]


def value_and_gradient(function, z):
    leaf = z.clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@pytest.mark.filterwarnings("ignore:a batch holds no anchor")
@pytest.mark.parametrize("labels", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("beta", [0.0, 2.5, 30.0])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("normalization", ["unit_ball", "unit_sphere", "none"])
def test_value_and_gradient_equal_those_of_loops_over_triples(labels, negatives, beta, temperature, normalization):
    labels = torch.tensor(labels)
    z = 0.7 * torch.randn(len(labels), 4, dtype=torch.float64)  # some rows inside the ball, some outside it
    for differentiate in (False, True):
        for include_self in (False, True):
            loss = ContrastiveLoss(negatives, beta, temperature, None, normalization, differentiate, include_self)
            value, gradient = value_and_gradient(lambda z, loss=loss: loss(z, labels), z)
            options = (negatives, beta, temperature, normalization, differentiate, include_self)
            expected, expected_gradient = value_and_gradient(lambda z, o=options: loop_loss(z, labels, *o), z)
            assert value.item() == pytest.approx(expected.item(), rel=1e-12, abs=1e-15), options
            scale = expected_gradient.abs().max() + 1e-12
            assert (gradient - expected_gradient).abs().max() < 1e-10 * scale, options


@pytest.mark.parametrize("mistake", ["label", "swapped rows", "beta", "temperature"])
def test_the_comparison_detects_a_deliberate_error(mistake):
    labels = torch.tensor(LAYOUTS["mixed"])
    z = torch.randn(9, 4, dtype=torch.float64)
    expected = loop_loss(z, labels, "other_classes", 5.0, 1.0)
    beta, temperature = 5.0, 1.0
    if mistake == "label":
        labels[0] = 3
    elif mistake == "swapped rows":
        z = z[[1, 2, 0, *range(3, 9)]]
    elif mistake == "beta":
        beta = 5.001
    else:
        temperature = 1.001
    assert abs(HSCLLoss(beta, temperature)(z, labels) - expected) > 1e-6


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("differentiate", [False, True])
def test_gradcheck(negatives, differentiate):
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    loss = ContrastiveLoss(negatives, 3.0 if differentiate else 0.0, 0.5, differentiate_weights=differentiate)
    z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels), z)


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("beta", [0.0, 5.0])
def test_the_papers_estimator_agrees_within_its_monte_carlo_error(negatives, beta):
    labels = torch.arange(5).repeat(4)
    z = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64))
    exact = ContrastiveLoss(negatives, beta, include_self=True)(z, labels).item()
    generator = torch.Generator().manual_seed(0)
    ours = ContrastiveLoss(negatives, beta, num_negatives=256, include_self=True)
    for estimates in (
        [paper_estimate(z, labels, negatives, beta, 256, generator) for _ in range(12)],
        [ours(z, labels).item() for _ in range(50)],
    ):
        error = statistics.stdev(estimates) / math.sqrt(len(estimates))
        # log(1 + mean e^t) of 256 draws lies below its limit by at most var(e^t) / 512, by Jensen.
        assert abs(statistics.mean(estimates) - exact) < 4 * error + 2e-3
        assert error < 2e-3


def test_sampled_gradient_agrees_with_the_exact_one():
    labels = torch.arange(4).repeat(3)
    z = torch.randn(12, 3, dtype=torch.float64)
    _, exact = value_and_gradient(lambda z: HSCLLoss(5.0)(z, labels), z)
    _, sampled = value_and_gradient(lambda z: HSCLLoss(5.0, num_negatives=20_000)(z, labels), z)
    assert (exact - sampled).abs().max() < 0.03 * exact.abs().max()


def random_batch(seed, dim=4, size=16, classes=5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (size,), generator=generator)
    return torch.randn(size, dim, generator=generator, dtype=torch.float64), labels


@pytest.mark.filterwarnings("ignore:a batch holds no anchor")
@given(
    seed=st.integers(0, 2**31),
    beta=st.floats(0, 50),
    temperature=st.floats(0.05, 5),
    normalization=st.sampled_from(["unit_ball", "unit_sphere", "none"]),
)
def test_hardening_never_lowers_the_loss(seed, beta, temperature, normalization):
    z, labels = random_batch(seed)
    options = {"temperature": temperature, "normalization": normalization}
    for hard, easy in ((HSCLLoss, SCLLoss), (HUCLLoss, UCLLoss)):
        floor = easy(**options)(z, labels)
        assert hard(beta, **options)(z, labels) >= floor - 1e-12 * (1 + floor)


def test_beta_zero_is_bit_for_bit_the_unhardened_loss():
    z, labels = random_batch(3, size=64)
    for hard, easy in ((HSCLLoss, SCLLoss), (HUCLLoss, UCLLoss)):
        value, gradient = value_and_gradient(lambda z, loss=hard: loss(0.0)(z, labels), z.float())
        expected, expected_gradient = value_and_gradient(lambda z, loss=easy: loss()(z, labels), z.float())
        assert torch.equal(value, expected)
        assert torch.equal(gradient, expected_gradient)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 100])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("loss", [SCLLoss, HSCLLoss])
def test_the_etf_meets_the_supervised_bound_with_zero_gradient_on_the_sphere(num_classes, temperature, loss):
    labels = torch.arange(num_classes).repeat(3)
    z = simplex_etf(num_classes, num_classes)[labels]
    module = loss(temperature=temperature, normalization="unit_sphere")
    value, gradient = value_and_gradient(lambda z: module(z, labels), z)
    assert value.item() == pytest.approx(module.lower_bound(num_classes), abs=1e-10)
    assert gradient.abs().max() < 1e-10


@pytest.mark.parametrize("include_self", [False, True])
def test_the_etf_meets_the_unsupervised_bound_of_its_batch(include_self):
    labels = torch.arange(10).repeat(8)
    loss = UCLLoss(include_self=include_self)
    value = loss(simplex_etf(10, 9)[labels], labels).item()
    assert value == pytest.approx(loss.lower_bound(10, batch_size=80), abs=1e-10)
    expected = 0.333807037 if include_self else 0.328318790
    assert value == pytest.approx(expected, abs=1e-9)


@given(seed=st.integers(0, 2**31), scale=st.floats(0.1, 10), num_classes=st.integers(2, 6), copies=st.integers(2, 4))
def test_balanced_batches_stay_above_the_bound(seed, scale, num_classes, copies):
    labels = torch.arange(num_classes).repeat(copies)
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(len(labels), 4, generator=generator, dtype=torch.float64)
    for loss in (SCLLoss(), HSCLLoss(3.0), UCLLoss(), HUCLLoss(3.0)):
        assert loss(z, labels) >= loss.lower_bound(num_classes, len(labels)) - 1e-12


def test_an_unbalanced_batch_may_lie_below_the_bound():
    labels = torch.tensor([0] * 12 + [1] * 2)
    z = torch.where(labels == 0, 1.0, -1.0).double()[:, None]
    assert SCLLoss()(z, labels) < SCLLoss().lower_bound(num_classes=10)


def test_total_collapse_has_the_expected_loss():
    z, labels = torch.ones(12, 3), torch.arange(4).repeat(3)
    for loss in (SCLLoss(0.1), HSCLLoss(7.0), UCLLoss(2.0), HUCLLoss(7.0)):
        assert loss(z, labels).item() == pytest.approx(loss.collapsed_value, rel=1e-6)


@pytest.mark.parametrize("loss", [HSCLLoss, HUCLLoss])
@pytest.mark.parametrize(
    ("beta", "temperature", "scale"), [(100, 0.01, 1), (1e4, 1e-4, 1), (5, 0.01, 1e3), (5, 1, 1e8)]
)
def test_extremes_stay_finite(loss, beta, temperature, scale):
    labels = torch.arange(8).repeat(4)
    z = scale * torch.randn(32, 5)
    for normalization in ("unit_ball", "none"):
        module = loss(beta, temperature, normalization=normalization)
        value, gradient = value_and_gradient(lambda z, module=module: module(z, labels), z)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_compute_in_float32(dtype):
    z, labels = torch.randn(32, 8), torch.arange(4).repeat(8)
    expected = HSCLLoss(5.0, 0.1)(z.to(dtype).float(), labels)
    assert HSCLLoss(5.0, 0.1)(z.to(dtype), labels).item() == pytest.approx(expected.item(), rel=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = HSCLLoss(5.0, 0.1)(z, labels)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, HSCLLoss(5.0, 0.1)(z, labels))


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [4], []], ids=str)
def test_a_batch_without_pairs_gives_zero_with_a_gradient_and_one_warning(labels):
    labels = torch.tensor(labels, dtype=torch.long)
    for num_negatives in (None, 16):
        loss = SCLLoss(num_negatives=num_negatives)
        z = torch.randn(len(labels), 3, requires_grad=True)
        with pytest.warns(UserWarning, match="a batch holds no anchor with both a positive and a negative"):
            value = loss(z, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loss(z, labels)
        value.backward()
        assert value == 0
        assert torch.equal(z.grad, torch.zeros_like(z))


def test_an_anchor_without_a_positive_is_skipped_but_is_still_a_negative():
    z = torch.randn(5, 3, dtype=torch.float64)
    with_singleton = SCLLoss()(z, torch.tensor([0, 0, 1, 1, 2]))
    assert with_singleton.item() == pytest.approx(
        loop_loss(z, torch.tensor([0, 0, 1, 1, 2]), "other_classes", 0.0, 1.0).item()
    )
    assert with_singleton != SCLLoss()(z[:4], torch.tensor([0, 0, 1, 1]))


def test_the_order_of_the_batch_does_not_matter():
    z, labels = random_batch(5, size=30)
    order = torch.randperm(30)
    assert HSCLLoss()(z, labels).item() == pytest.approx(HSCLLoss()(z[order], labels[order]).item(), rel=1e-12)


def test_negative_statistics_equal_those_of_loops():
    labels = torch.arange(4).repeat(3)
    z = simplex_etf(4, 3)[labels]
    assert HSCLLoss(9.0).negative_statistics(z, labels)["effective"].item() == pytest.approx(9.0)
    soft = HUCLLoss(0.0).negative_statistics(z, labels)
    hard = HUCLLoss(20.0).negative_statistics(z, labels)
    assert soft["effective"].item() == pytest.approx(11.0)
    assert soft["false_share"].item() == pytest.approx(2 / 11)
    assert hard["effective"].item() == pytest.approx(2.0, abs=1e-6)
    assert hard["false_share"].item() == pytest.approx(1.0, abs=1e-6)
    assert "false_share" not in HSCLLoss().negative_statistics(z, labels)
    assert hard["fraction"].item() == pytest.approx(2 / 11)


def test_negative_statistics_can_be_computed_in_strips_and_for_some_anchors(monkeypatch):
    z, labels = random_batch(5, size=30)
    loss = HUCLLoss(4.0)
    whole = {key: value.item() for key, value in loss.negative_statistics(z, labels).items()}

    def of_some():
        return [loss.negative_statistics(z, labels, max_anchors=n)["effective"].item() for n in (30, 10, 1)]

    single = of_some()
    monkeypatch.setattr("nc_lightning.losses.diagnostics.ELEMENTS_AT_ONCE", 100)
    strips = {key: value.item() for key, value in loss.negative_statistics(z, labels).items()}
    assert whole == pytest.approx(strips)
    assert single[0] == whole["effective"]
    assert [loss.negative_statistics(z, labels, max_anchors=n)["effective"] for n in (30, 10, 1)] == pytest.approx(
        single
    )
    assert single[1] != single[0]
    assert math.isnan(loss.negative_statistics(z, torch.arange(30))["effective"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0}, "temperature: got 0, expected a finite number > 0"),
        ({"temperature": -1.0}, "temperature: got -1.0"),
        ({"beta": -0.5}, "beta: got -0.5, expected a finite number >= 0"),
        ({"beta": math.nan}, "beta: got nan"),
        ({"num_negatives": 0}, "num_negatives: got 0, expected an integer >= 1"),
        ({"normalization": "cube"}, "normalization: got 'cube', expected one of unit_ball"),
        ({"num_negatives": 3, "differentiate_weights": True}, "differentiate_weights: got True with num_negatives"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HSCLLoss(**arguments)
    with pytest.raises(ValueError, match="negatives: got 'same', expected one of other_classes, all"):
        ContrastiveLoss("same")


def test_bad_batches_are_refused():
    loss = HSCLLoss()
    with pytest.raises(ValueError, match=r"z: got shape \(4,\)"):
        loss(torch.zeros(4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(TypeError, match="labels: got torch.float32"):
        loss(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(ValueError, match=r"labels: got shape \(3,\), expected \(4,\)"):
        loss(torch.zeros(4, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="beta: got -1"):
        loss.beta = -1
