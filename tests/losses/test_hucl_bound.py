"""Optimization from random starts arrives at the bound of HUCL, and no features are below it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nc_lightning.geometry import hucl_critical_beta, normalize
from nc_lightning.losses import HUCLLoss, InfoNCE, UCLLoss


def minimize(loss, z, steps=6):
    """Return the smallest loss that L-BFGS reaches from features z (N, d)."""
    z = z.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([z], max_iter=100, line_search_fn="strong_wolfe", tolerance_grad=1e-14,
                                  tolerance_change=1e-18)  # fmt: skip

    def closure():
        optimizer.zero_grad()
        value = loss(z)
        value.backward()
        return value

    value = torch.inf
    for _ in range(steps):
        before, value = value, optimizer.step(closure).item()
        if before - value < 1e-13:
            break
    return loss(z).item()


def least(loss, bound, size, dim, scale, starts=20):
    """Return the least loss from random starts; as soon as one arrives at the bound, the others are not needed."""
    generator, reached = torch.Generator().manual_seed(0), torch.inf
    for _ in range(starts):
        start = scale * torch.randn(size, dim, generator=generator, dtype=torch.float64) / dim**0.5
        reached = min(reached, minimize(loss, start))
        if reached < bound + 1e-10:
            break
    return reached


def labels_of(counts):
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))


@pytest.mark.some(8)
@pytest.mark.parametrize("counts", [(3,) * 3, (2,) * 4, (2,) * 5, (4, 3, 2), (3, 2, 2, 2)], ids=str)
@pytest.mark.parametrize("normalization", ["unit_ball", "unit_sphere", "none"])
@pytest.mark.parametrize("beta", [0.3, 2.0, 8.0])
def test_optimization_arrives_at_the_bound(counts, normalization, beta):
    num_classes, labels, balanced = len(counts), labels_of(counts), len(set(counts)) == 1
    loss = HUCLLoss(beta, normalization=normalization, differentiate_weights=True)
    bound = loss.lower_bound(num_classes, counts=counts)
    scale = 0.3 if normalization == "unit_ball" else 1.0  # outside, the ball has no inward gradient
    # On the sphere the distances of unbalanced classes cannot differ; in the ball they must fit into it.
    tight = balanced or normalization == "none" or (normalization == "unit_ball" and beta == 8.0)
    reached = least(lambda z: loss(z, labels), bound, len(labels), num_classes, scale, 20 if tight else 2)
    assert reached > bound - 1e-12
    if tight:
        assert reached < bound + 1e-10
    else:
        assert reached < bound + 0.05


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("normalization", ["unit_ball", "unit_sphere", "none"])
def test_optimization_of_drawn_negatives_arrives_at_the_bound(k, normalization):
    num_classes, atoms, beta = 3, 2, 1.5
    labels = torch.arange(num_classes).repeat_interleave(atoms)
    loss = HUCLLoss(beta, num_negatives=k, normalization=normalization, include_self=True)
    bound = loss.lower_bound(num_classes, len(labels))

    def expected(z):
        """The mean over all pairs and all draws, with own class and anchor among positives and negatives."""
        s = normalize(z, normalization)
        s = s @ s.T
        log_weights = (beta * s).log_softmax(1)
        t = s[:, None, :] - s[:, :, None]  # anchor, positive, negative
        if k == 1:
            losses = (log_weights.exp()[:, None] * torch.log1p(t.exp())).sum(2)
        else:
            both = (t[..., :, None].exp() + t[..., None, :].exp()) / 2
            joint = (log_weights[:, :, None] + log_weights[:, None, :]).exp()
            losses = (joint[:, None] * torch.log1p(both)).sum((2, 3))
        return losses[labels[:, None] == labels].mean()

    scale = 0.3 if normalization == "unit_ball" else 1.0
    reached = least(expected, bound, len(labels), num_classes, scale)
    assert bound - 1e-12 < reached < bound + 1e-10


@settings(max_examples=300)
@given(
    seed=st.integers(0, 2**31),
    size=st.integers(2, 30),
    dim=st.integers(1, 12),
    num_classes=st.integers(2, 6),
    log_beta=st.floats(-1.5, 1.5),
    scale=st.floats(0.05, 3),
    spread=st.floats(0, 1),
    normalization=st.sampled_from(["unit_ball", "unit_sphere", "none"]),
    include_self=st.booleans(),
)
def test_no_batch_is_below_the_bound(
    seed, size, dim, num_classes, log_beta, scale, spread, normalization, include_self
):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (size,), generator=generator)
    counts = labels.bincount(minlength=num_classes)
    if counts.max() < 2 or counts.max() == size:
        return
    means, noise = (torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in (num_classes, size))
    z = scale * (means[labels] + spread * noise)
    loss = HUCLLoss(10**log_beta, normalization=normalization, include_self=include_self)
    assert loss(z, labels).item() > loss.lower_bound(num_classes, counts=counts.tolist()) - 1e-12


def test_a_wrong_class_size_is_noticed():
    counts, labels = (4, 4, 4), labels_of((4, 4, 4))
    loss = HUCLLoss(5.0, normalization="none", differentiate_weights=True)
    reached = least(lambda z: loss(z, labels), loss.lower_bound(3, counts=counts), 12, 3, 1.0)
    assert reached == pytest.approx(loss.lower_bound(3, counts=counts), abs=1e-10)
    assert abs(reached - loss.lower_bound(3, counts=(3, 3, 3))) > 1e-3


def test_the_sum_form_and_the_decoupled_loss_have_the_bound_too():
    labels = torch.arange(4).repeat(3)
    for link in (InfoNCE("sum"), InfoNCE("sum", alpha=0), InfoNCE(alpha=0.2)):
        for loss in (UCLLoss(0.5, link=link), HUCLLoss(6.0, 0.5, link=link, differentiate_weights=True)):
            bound = loss.lower_bound(4, 12)
            assert least(lambda z, loss=loss: loss(z, labels), bound, 12, 4, 0.3) == pytest.approx(bound, abs=1e-9)


def test_the_optimum_of_a_loss_is_that_of_its_batches():
    assert HUCLLoss(5.0).hucl_optimum(100, 500).critical_beta == hucl_critical_beta(100, counts=[5] * 100)
    assert HUCLLoss(5.0, 0.5).hucl_optimum(100).critical_beta == hucl_critical_beta(100, 0.5)
    assert UCLLoss().hucl_optimum(10).norm == 1.0
    assert HUCLLoss(5.0, positives="view").hucl_optimum(10) is None
    assert HUCLLoss(5.0, normalization="none").hucl_optimum(10) is None
    assert HUCLLoss(5.0, num_negatives=3, replacement=False).hucl_optimum(10, 40) is None
