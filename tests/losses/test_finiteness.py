"""Losses stay finite and correct in half precision, at low temperature and high hardness; NaN stays NaN."""

import math
import warnings

import pytest
import torch

from nc_lightning.losses import HSCLLoss, HUCLLoss, InfoNCE, Logistic, SCLLoss, Triplet, UCLLoss
from tests.losses.loops_over_triples import loop_loss

LOSSES = [SCLLoss, HSCLLoss, UCLLoss, HUCLLoss]
LINKS = {
    "infonce": InfoNCE(),
    "infonce sum": InfoNCE(form="sum"),
    "infonce alpha 0.3": InfoNCE(alpha=0.3),
    "infonce sum alpha 0": InfoNCE(form="sum", alpha=0.0),
    "logistic": Logistic(),
    "triplet": Triplet(margin=0.4),
}
NORMALIZATIONS = ["unit_ball", "unit_sphere", "none"]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
TEMPERATURE, BETA = 0.01, 100.0
LABELS = torch.arange(3).repeat(3)


def batches(normalization):
    """Batches of features by name, with their labels."""
    z = 0.3 * torch.randn(9, 6)
    zeros = z.clone()
    zeros[[0, 4]] = 0
    directions = z / z.norm(dim=1, keepdim=True)
    yield "random", z, LABELS
    yield "identical", z[:1].expand(9, 6), LABELS
    yield "one class", z, torch.zeros(9, dtype=torch.long)
    yield "zero vectors", zeros, LABELS
    yield "norm 1e-8", 1e-8 * directions, LABELS
    if normalization != "none":
        yield "norm 1e4", 1e4 * directions, LABELS


def make(loss, **kwargs):
    return loss(**({"beta": BETA} if loss in (HSCLLoss, HUCLLoss) else {}), temperature=TEMPERATURE, **kwargs)


def value_and_gradient(function, z):
    z = z.clone().requires_grad_()
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.filterwarnings("ignore", message="a batch holds no anchor")
        value = function(z)
    (gradient,) = torch.autograd.grad(value, z)
    return value.item(), gradient


def agree(got, expected, name, dtype):
    (value, gradient), (expected_value, expected_gradient) = got, expected
    assert math.isfinite(value)
    assert value == pytest.approx(expected_value, rel=1e-4, abs=1e-4)
    assert gradient.dtype == dtype
    # fp16 ends at 65504: on the sphere the gradient of a row of norm 1e-8 exceeds it, that of a zero row does not.
    fits = expected_gradient.abs() < torch.finfo(dtype).max
    assert torch.isfinite(gradient[fits]).all()
    assert name == "norm 1e-8" or fits.all()
    tolerance = max(1e-3, 2 * torch.finfo(dtype).eps)
    error = (gradient.double() - expected_gradient)[fits].abs().max()
    # Terms of size 1 / temperature cancel to zero where all features are equal.
    assert error <= tolerance * expected_gradient.abs().max() + 1e-6 / TEMPERATURE


@pytest.mark.some(24)
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_exact_losses_equal_those_in_float64(loss, link, normalization):
    exact = make(loss, link=LINKS[link], normalization=normalization)
    negatives, beta, differentiate = exact.negatives, exact.beta, exact.differentiate_weights
    for name, features, labels in batches(normalization):
        for dtype in DTYPES:
            z = features.to(dtype)
            got = value_and_gradient(lambda z, y=labels: exact(z, y), z)
            expected = value_and_gradient(
                lambda z, y=labels: loop_loss(
                    z, y, negatives, beta, TEMPERATURE, normalization, differentiate, link=link
                ),
                z.double(),
            )
            try:
                agree(got, expected, name, dtype)
            except AssertionError as error:
                raise AssertionError(f"{name}, {dtype}: {got} {expected}") from error


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_sampled_losses_equal_those_in_float64_with_the_same_draws(loss, link, normalization, monkeypatch):
    draw = torch.multinomial
    monkeypatch.setattr(torch, "multinomial", lambda weights, *args, **kwargs: draw(weights.float(), *args, **kwargs))
    for options in ({"num_negatives": 5}, {"num_negatives": 5, "share_draws": True}):
        sampled = make(loss, link=LINKS[link], normalization=normalization, **options)
        for name, features, labels in batches(normalization):
            for dtype in DTYPES:
                z, results = features.to(dtype), []
                for inputs in (z, z.double()):
                    torch.manual_seed(1)
                    results.append(value_and_gradient(lambda z, f=sampled, y=labels: f(z, y), inputs))
                try:
                    agree(*results, name, dtype)
                except AssertionError as error:
                    raise AssertionError(f"{name}, {dtype}: {results}") from error


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("options", [{}, {"num_negatives": 4}, {"num_negatives": 4, "replacement": False}], ids=str)
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("loss", LOSSES)
def test_non_finite_features_give_a_non_finite_loss_without_an_error(loss, link, options, normalization):
    unusual = make(loss, link=LINKS[link], normalization=normalization, **options)
    for bad in (math.nan, math.inf, -math.inf):
        for rows in (0, slice(None)):
            z = torch.randn(9, 6)
            z[rows, 2] = bad
            value, gradient = value_and_gradient(lambda z: unusual(z, LABELS), z)
            assert not (math.isfinite(value) and torch.isfinite(gradient).all())
