"""The loss of a batch shared by several processes has the value and parameter gradients of one process."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nc_lightning.distributed.global_batch import Shares, share_rows
from nc_lightning.losses import (
    CustomLink,
    DCLLoss,
    DHELLoss,
    FeatureQueue,
    HCLLoss,
    HSCLLoss,
    HUCLLoss,
    InfoNCE,
    Logistic,
    NTXentLoss,
    Polynomial,
    SCLLoss,
    SupConLoss,
    Threshold,
    Triplet,
    UCLLoss,
)
from nc_lightning.losses.engines import division, tile_sizes
from nc_lightning.losses.engines.division import Division
from tests.on_processes import on_processes

DIM = 6


def square(x):
    return x**2


LOSSES = {
    "scl": lambda: SCLLoss(),
    "hscl": lambda: HSCLLoss(5.0),
    "ucl": lambda: UCLLoss(0.3),
    "hucl": lambda: HUCLLoss(5.0),
    "hscl, differentiated": lambda: HSCLLoss(5.0, 0.5, differentiate_weights=True),
    "hucl, differentiated": lambda: HUCLLoss(5.0, 0.5, differentiate_weights=True),
    "scl, differentiated without hardness": lambda: HSCLLoss(0.0, differentiate_weights=True),
    "hscl, include_self": lambda: HSCLLoss(5.0, include_self=True),
    "hucl, include_self": lambda: HUCLLoss(5.0, include_self=True),
    "hscl, extreme": lambda: HSCLLoss(100.0, 0.01),
    "hucl, extreme, differentiated": lambda: HUCLLoss(30.0, 0.05, differentiate_weights=True),
    "hscl, sphere": lambda: HSCLLoss(5.0, normalization="unit_sphere"),
    "hucl, not normalized": lambda: HUCLLoss(2.0, normalization="none"),
    "hscl, sum": lambda: HSCLLoss(5.0, link=InfoNCE("sum")),
    "ucl, alpha": lambda: UCLLoss(link=InfoNCE(alpha=0.3)),
    "hscl, queue": lambda: with_queue(HSCLLoss(5.0)),
    "hucl, queue, differentiated": lambda: with_queue(HUCLLoss(5.0, differentiate_weights=True)),
    "ucl, queue, logistic": lambda: with_queue(UCLLoss(link=Logistic())),
    "hscl, temperature learned": lambda: HSCLLoss(5.0, nn.Parameter(torch.tensor(0.4, dtype=torch.float64))),
    "hucl, temperature learned, differentiated": lambda: HUCLLoss(
        5.0, nn.Parameter(torch.tensor(0.4, dtype=torch.float64)), differentiate_weights=True
    ),
    "hscl, decoupled": lambda: HSCLLoss(5.0, link=InfoNCE(alpha=0.0)),
    "ucl, supcon, queue": lambda: with_queue(UCLLoss(0.3, link=InfoNCE("sum", 0.0))),
    "hucl, decoupled, differentiated": lambda: HUCLLoss(
        5.0, 0.5, link=InfoNCE("sum", 0.0), differentiate_weights=True, normalization="none"
    ),
    "ucl, decoupled, temperature learned": lambda: UCLLoss(
        nn.Parameter(torch.tensor(0.4, dtype=torch.float64)), link=InfoNCE(alpha=0.0)
    ),
    "hscl, logistic": lambda: HSCLLoss(5.0, link=Logistic()),
    "hucl, triplet": lambda: HUCLLoss(5.0, link=Triplet(0.5)),
    "scl, custom link": lambda: SCLLoss(link=CustomLink(square, torch.exp, span=3)),
    "hscl, polynomial": lambda: HSCLLoss(hardening=Polynomial(3.0)),
    "hucl, threshold": lambda: HUCLLoss(hardening=Threshold(0.3)),
    "hucl, debiased": lambda: HUCLLoss(5.0, tau_plus=0.1),
    "hscl, sampled": lambda: HSCLLoss(5.0, num_negatives=4),
    "hucl, sampled, debiased": lambda: HUCLLoss(5.0, num_negatives=4, tau_plus=0.1),
    "ucl, sampled, shared": lambda: UCLLoss(num_negatives=4, share_draws=True, link=Logistic()),
    "hscl, sampled, without replacement": lambda: HSCLLoss(5.0, num_negatives=4, replacement=False),
    "ucl, sampled, queue": lambda: with_queue(UCLLoss(num_negatives=4)),
    "hucl, views": lambda: HUCLLoss(5.0, positives="view"),
    "ucl, views, triplet": lambda: UCLLoss(positives="view", link=Triplet()),
    "hscl, views and classes": lambda: HSCLLoss(5.0, positives="view"),
    "hscl, views and classes, unknown labels, differentiated": lambda: HSCLLoss(
        5.0, 0.5, positives="view", differentiate_weights=True
    ),
    "hscl, views and classes, queue": lambda: with_queue(HSCLLoss(5.0, positives="view", link=InfoNCE("sum", 0.0))),
    "scl, views and classes, triplet": lambda: SCLLoss(positives="view", link=Triplet()),
    "hscl, views and classes, sampled, unknown labels": lambda: HSCLLoss(5.0, num_negatives=4, positives="view"),
    "hscl, unknown labels": lambda: HSCLLoss(5.0),
    "supcon": lambda: SupConLoss(),
    "supcon, unknown labels": lambda: SupConLoss(),
    "supcon, temperature learned": lambda: SupConLoss(nn.Parameter(torch.tensor(0.4, dtype=torch.float64))),
    "nt-xent of views": lambda: NTXentLoss(),
    "dcl of views": lambda: DCLLoss(),
    "hcl of views": lambda: HCLLoss(),
    "hcl of views, not debiased": lambda: HCLLoss(tau_plus=0.0),
    "dhel of views": lambda: DHELLoss(),
    "dhel of views, temperature learned": lambda: DHELLoss(nn.Parameter(torch.tensor(0.4, dtype=torch.float64))),
}
# How a batch is split: unequal numbers of samples and pairs, without positives, or an empty process.
DEALS = {
    1: {"all": [18]},
    2: {"even": [9, 9], "uneven": [13, 5], "nothing": [18, 0]},
    3: {"even": [6, 6, 6], "uneven": [2, 13, 3], "nothing": [9, 0, 9]},
    4: {"uneven": [1, 9, 3, 5], "nothing": [0, 17, 0, 1]},
}
LABELS = {
    "mixed": [0, 1, 2, 0, 1, 1, 1, 2, 2, 0, 3, 0, 0, 4, 2, 1, 1, 0],
    "sorted": [0] * 7 + [1] * 6 + [2] * 4 + [3],
    "pairless": list(range(18)),
    "nearly pairless": [*range(17), 0],
}


def with_queue(loss):
    loss.queue = FeatureQueue(8)
    generator = torch.Generator().manual_seed(5)
    loss.queue.push(torch.randn(7, DIM, dtype=torch.float64, generator=generator), torch.tensor([0, 1, 2, 0, -1, 9, 1]))
    return loss


class Model(nn.Module):
    """A network and, for a learned temperature, its loss."""

    def __init__(self, loss):
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, DIM)).double()
        self.loss = loss

    def forward(self, x, labels, instances):
        z = 1.5 * self.net(x)
        self.result = self.loss.compute(z, labels, instances, generator=torch.Generator().manual_seed(7))
        return self.result.value, z


def batch(name, labels):
    x = torch.randn(18, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor(LABELS[labels])
    if "unknown" in name:
        labels[::3] = -1
    if "views and classes" in name:
        labels = labels[::2].repeat_interleave(2)
    # Views are concatenated, so a split may separate a few; these are compared only on one process.
    return x, labels, torch.arange(18) // 2


def measure(name, labels, deal=None, rank=0):
    x, labels, instances = batch(name, labels)
    if deal is not None:
        x, labels, instances = (t.split(deal)[rank] for t in (x, labels, instances))
    model = Model(LOSSES[name]())
    network = model if deal is None else DistributedDataParallel(model)
    loss, z = network(x, labels, instances)
    loss.backward()
    statistics = model.loss.negative_statistics(z, labels, instances)
    sizes = {"samples": torch.tensor(model.result.batch_size), "pairs": torch.tensor(model.result.num_pairs)}
    gradients = {key: p.grad for key, p in model.named_parameters()}
    return {"loss": loss.detach()} | gradients | statistics | sizes


def small_tiles():
    """Shrink tiles and blocks, so that 18 samples fill many of them."""
    tile_sizes.CPU = tile_sizes.CPU._replace(rows=4, columns=8, row_block=40, positive_rows=3)
    division.LEAST_ROWS = 2


def _measure_all(rank, cases):
    small_tiles()
    return [measure(*case, rank=rank) for case in cases]


def agree(found, expected):
    for key, value in expected.items():
        scale = max(1.0, value.double().nan_to_num().abs().max().item())
        if not torch.allclose(found[key].double(), value.double(), rtol=0, atol=1e-10 * scale, equal_nan=True):
            return False
    return found.keys() == expected.keys()


@pytest.mark.some(1)
@pytest.mark.slow
@pytest.mark.parametrize("world_size", DEALS)
def test_processes_have_the_loss_and_parameter_gradients_of_one(gloo, world_size):
    cases = [
        (name, labels, deal)
        for name in LOSSES
        for labels in LABELS
        for deal in DEALS[world_size].values()
        if not ("view" in name and any(size % 2 for size in deal))
    ]
    found = on_processes(world_size, _measure_all, cases)
    for i, (name, labels, deal) in enumerate(cases):
        expected = measure(name, labels)
        for rank in range(world_size):
            assert agree(found[rank][i], expected), (name, labels, deal, rank)


def _with_an_error(rank, error):
    small_tiles()
    gather, tiles, sum_, sum_of_own = Shares.gather, Division.tiles, Division.sum_, Shares.sum_of_own
    if error == "swapped ranks":
        Shares.gather = lambda self, rows: gather(self, rows).roll(int(rows.is_floating_point()), 0)
    elif error == "a tile left out":
        Division.tiles = lambda self, *args: tiles(self, *args)[self.rank :]
    elif error == "a tile taken twice":
        Division.tiles = lambda self, *args: tiles(self, *args) + tiles(self._replace(rank=1), *args)[: 1 - self.rank]
    elif error == "sums of others forgotten":
        Division.sum_ = lambda self, values: sum_(self, values.clone())
    elif error == "gradients of others forgotten":
        Shares.sum_of_own = lambda self, rows: sum_of_own(self, rows) * 0 + rows[self.own]
    return measure("hscl", "mixed", [13, 5], rank)


ERRORS = ["swapped ranks", "a tile left out", "a tile taken twice", "sums of others forgotten"]


@pytest.mark.slow
@pytest.mark.parametrize("error", ["none", *ERRORS, "gradients of others forgotten"])
def test_the_comparison_detects_errors(gloo, error):
    found = on_processes(2, _with_an_error, error)
    assert all(agree(f, measure("hscl", "mixed")) for f in found) == (error == "none")


def _permuted(rank, name, order, deal):
    x, labels, _ = batch(name, "mixed")
    x, labels = x[order].split(deal)[rank], labels[order].split(deal)[rank]
    loss, _ = Model(LOSSES[name]())(x, labels, None)
    return loss.item()


@pytest.mark.slow
def test_the_distribution_of_samples_over_processes_does_not_matter(gloo):
    order = torch.randperm(18)
    for name in ("hscl", "hucl", "hucl, triplet"):
        expected = measure(name, "mixed")["loss"].item()
        assert on_processes(3, _permuted, name, order, [4, 1, 13]) == pytest.approx([expected] * 3, rel=1e-12)


def _local(rank, deal):
    x, labels, _ = (t.split(deal)[rank] for t in batch("hscl", "mixed"))
    loss, model = HSCLLoss(5.0, sync="local"), Model(HSCLLoss(5.0))
    z = 1.5 * model.net(x)
    result = loss.compute(z, labels)
    assert model.loss.compute(z, labels, sync="local") == result
    return result.value.item(), result.batch_size, loss.negative_statistics(z, labels)["effective"].item()


@pytest.mark.slow
def test_local_losses_use_only_the_batch_of_the_process(gloo):
    deal = [13, 5]
    alone = [_local(rank, deal) for rank in (0, 1)]
    assert on_processes(2, _local, deal) == alone
    assert [size for _, size, _ in alone] == deal


def _too_few(rank):
    labels = torch.tensor([[0, 0, 0], [1, 1, 2]][rank])  # an anchor of class 0 has three negatives, one of class 1 four
    with pytest.raises(ValueError, match="num_negatives: got 4 without replacement, expected at most 3") as error:
        HSCLLoss(5.0, num_negatives=4, replacement=False)(torch.randn(3, 2, requires_grad=True), labels)
    return str(error.value)


@pytest.mark.slow
def test_too_few_negatives_are_an_error_on_every_process(gloo):
    first, second = on_processes(2, _too_few)
    assert first == second


def _without_gradients(rank):
    """A leaf that requires a gradient, in a mode that gives none, on rank 0 or everywhere."""
    labels, values = torch.tensor([0, 1, 1]), []
    for loss in (HSCLLoss(5.0), HSCLLoss(5.0, link=Triplet()), SupConLoss(), SCLLoss(nn.Parameter(torch.tensor(0.5)))):
        z = torch.ones(3, 2).cumsum(0).requires_grad_()
        for mode in (torch.inference_mode, torch.no_grad):
            with mode():
                values.append(loss(z, labels).item())
        with torch.set_grad_enabled(rank > 0):
            values.append(loss(z, labels).item())
    return values


@pytest.mark.slow
def test_processes_need_not_all_get_gradients(gloo):
    first, second = on_processes(2, _without_gradients)
    assert first == second
    assert first[0::3] == first[1::3] == first[2::3]


def _kinds(rank):
    with pytest.raises(ValueError, match="z: got features of different kinds on the processes") as error:
        share_rows(torch.zeros(2, 3 + rank))
    loss = HSCLLoss()
    with pytest.raises(ValueError, match="expected one kind"):
        loss(torch.randn(4, 3).to(torch.float32 if rank else torch.float64), torch.tensor([0, 0, 1, 1]))
    return str(error.value)


@pytest.mark.slow
def test_mismatched_features_are_an_error_on_every_process(gloo):
    first, second = on_processes(2, _kinds)
    assert first == second
    assert "3 of 32 bits, 4 of 32 bits" in first


def _views_of_two_images(rank):
    z = torch.eye(4, dtype=torch.float64)[2 * rank : 2 * rank + 2].repeat(2, 1)
    loss = UCLLoss(positives="view")
    result = loss.compute(z, torch.zeros(4, dtype=torch.long), torch.arange(2).repeat(2))
    return result.value.item(), result.num_pairs


@pytest.mark.slow
def test_views_on_different_processes_are_different_images(gloo):
    z, instances = torch.eye(4, dtype=torch.float64).repeat(2, 1), torch.arange(4).repeat(2)
    expected = UCLLoss(positives="view")(z, torch.zeros(8, dtype=torch.long), instances).item()
    for value, pairs in on_processes(2, _views_of_two_images):
        assert value == pytest.approx(expected, rel=1e-12)
        assert pairs == 8
