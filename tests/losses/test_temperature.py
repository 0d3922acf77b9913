"""A learned temperature."""

import pytest
import torch
from torch import nn

from nc_lightning.losses import FeatureQueue, HSCLLoss, HUCLLoss, InfoNCE, Logistic, SCLLoss, UCLLoss

LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 3, 2, 0])


def make(loss, tau, **options):
    return loss(temperature=nn.Parameter(torch.tensor(tau, dtype=torch.float64)), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"link": InfoNCE("sum", 0.5)},
        {"link": InfoNCE("sum", 0.0)},
        {"link": Logistic()},
        {"normalization": "none"},
        {"normalization": "unit_sphere"},
        {"include_self": True},
        {"queue": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("loss", [SCLLoss, HSCLLoss, UCLLoss, HUCLLoss])
def test_the_gradient_of_the_temperature_equals_finite_differences(loss, options):
    options = dict(options)
    queue = FeatureQueue(5) if options.pop("queue", False) else None
    if queue:
        queue.push(torch.randn(5, 4, dtype=torch.float64), torch.arange(5))
    for differentiate in (False, True) if loss in (HSCLLoss, HUCLLoss) else (False,):
        chosen = options | ({"differentiate_weights": True} if differentiate else {})
        ours, z = make(loss, 0.4, **chosen), torch.randn(9, 4, dtype=torch.float64, requires_grad=True)
        ours.queue = queue
        ours(z, LABELS).backward()
        values = []
        for tau in (0.4 - 1e-5, 0.4 + 1e-5):
            moved = loss(temperature=tau, **chosen)
            moved.queue = queue
            values.append(moved(z, LABELS).item())
        assert ours.temperature.grad.item() == pytest.approx((values[1] - values[0]) / 2e-5, rel=1e-6)
        fixed, leaf = loss(temperature=0.4, **chosen), z.detach().clone().requires_grad_()
        fixed.queue = queue
        fixed(leaf, LABELS).backward()
        assert torch.allclose(z.grad, leaf.grad, rtol=1e-10, atol=1e-15)


def test_the_temperature_has_a_gradient_with_frozen_features():
    loss = make(HSCLLoss, 0.4)
    loss(torch.randn(9, 4, dtype=torch.float64), LABELS).backward()
    assert loss.temperature.grad != 0


def test_the_temperature_is_a_parameter_for_the_optimizer():
    loss = make(HSCLLoss, 0.4)
    assert [name for name, _ in loss.named_parameters()] == ["temperature"]
    assert "temperature=0.4" in repr(loss)
    assert loss.lower_bound(4) == HSCLLoss(temperature=0.4).lower_bound(4)


def test_the_temperature_must_be_one_positive_number():
    with pytest.raises(ValueError, match=r"temperature: got a tensor of shape \(1,\), expected \(\)"):
        SCLLoss(temperature=nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match=r"temperature: got -0.5, expected a finite number > 0"):
        make(SCLLoss, -0.5)
    loss = make(SCLLoss, 0.5)
    loss.temperature.data.fill_(0.0)
    with pytest.raises(ValueError, match=r"temperature: got 0.0, expected a finite number > 0"):
        loss(torch.randn(9, 4), LABELS)
