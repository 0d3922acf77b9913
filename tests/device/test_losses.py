"""Losses on a device: the CPU's values and gradients, one host wait, few kernels, memory within a budget."""

import pytest
import torch

from nc_lightning.losses import (
    CustomHardening,
    CustomLink,
    DCLLoss,
    DHELLoss,
    Exponential,
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
    ValueThreshold,
    similarity_histograms,
)
from nc_lightning.losses.engines import tile_sizes
from tests.on_both import on_both, same_on_both
from tests.pretend_device import NAME, Backend, Generator, Machine

N = 48
Z = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 5
LOSSES = {"SCL": SCLLoss, "HSCL": HSCLLoss, "UCL": UCLLoss, "HUCL": HUCLLoss}
LINKS = [InfoNCE(), InfoNCE("sum"), InfoNCE(alpha=0.0), Logistic(), Triplet(), CustomLink(torch.log1p, torch.exp)]
HARDENINGS = [Polynomial(2.0), Threshold(0.2), ValueThreshold(0.1)]

SORT = {("to the CPU", "losses/engines/sorted_batch.py sort_batch"): 1}
"""The host wait of every loss: one, for the windows of the classes and the number of pairs."""


@pytest.mark.parametrize("normalization", ["unit_ball", "unit_sphere", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss(name, normalization):
    machine = same_on_both(lambda: LOSSES[name](normalization=normalization), Z, LABELS)
    assert machine.waits_in("call") == SORT


@pytest.mark.parametrize("link", LINKS, ids=["mean", "sum", "decoupled", "logistic", "triplet", "custom"])
@pytest.mark.parametrize("name", LOSSES)
def test_links(name, link):
    machine = same_on_both(lambda: LOSSES[name](link=link, include_self=name == "SCL"), Z, LABELS)
    assert machine.waits_in("call") == SORT


@pytest.mark.parametrize("hardening", HARDENINGS, ids=str)
@pytest.mark.parametrize("name", ["HSCL", "HUCL"])
def test_hardenings(name, hardening):
    assert same_on_both(lambda: LOSSES[name](hardening=hardening), Z, LABELS).waits_in("call") == SORT


@pytest.mark.parametrize("name", ["HSCL", "HUCL"])
def test_a_custom_hardening_is_checked_for_nan(name):
    machine = same_on_both(lambda: LOSSES[name](hardening=CustomHardening(lambda s: (s + 1) ** 2)), Z, LABELS)
    assert machine.waits_in("call") == SORT | {("item", "losses/hardening.py log_eta_of_negatives"): 1}


@pytest.mark.parametrize(
    "options",
    [
        {"num_negatives": 8},
        {"num_negatives": 8, "share_draws": True},
        {"num_negatives": 8, "link": Logistic()},
        {"differentiate_weights": True},
        {"include_self": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["HSCL", "HUCL"])
def test_estimators(name, options):
    assert same_on_both(lambda: LOSSES[name](beta=2.0, **options), Z, LABELS).waits_in("call") == SORT


@pytest.mark.parametrize("share_draws", [False, True])
def test_draws_without_replacement_check_the_number_of_negatives(share_draws):
    options = {"num_negatives": 8, "replacement": False, "share_draws": share_draws}
    machine = same_on_both(lambda: HSCLLoss(beta=2.0, **options), Z, LABELS)
    assert machine.waits_in("call") == SORT | {("item", "losses/engines/sampled.py _draw_without_replacement"): 1}


def test_debiased():
    assert same_on_both(lambda: HUCLLoss(beta=1.0, tau_plus=0.1), Z, LABELS).waits_in("call") == SORT


@pytest.mark.parametrize("link", [InfoNCE(), Logistic()], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_views_as_positives(name, link):
    instances = torch.arange(N) % (N // 2)
    loss = LOSSES[name](positives="view", link=link)
    same_on_both(lambda: lambda z, i: loss(z, torch.full((N,), -1), i), Z, instances)
    machine = same_on_both(lambda: loss, Z, LABELS[instances], instances)
    assert machine.waits_in("call") == SORT


@pytest.mark.parametrize("link", [InfoNCE(), Logistic()], ids=str)
def test_labels_and_instances_may_stay_on_the_cpu(link):
    loss, instances = HSCLLoss(beta=2.0, link=link), torch.arange(N) % (N // 2)
    same_on_both(lambda: lambda z: loss(z, LABELS, instances), Z)
    same_on_both(lambda: lambda z, i: loss(z, LABELS, i), Z, instances)
    same_on_both(lambda: lambda z, labels: loss(z, labels, instances), Z, LABELS)


@pytest.fixture
def _small_tiles(monkeypatch):
    small = tile_sizes.TileSizes(
        square=0, rows=8, columns=16, cache=512, row_block=8 * N, positive_rows=8, positives=512
    )
    monkeypatch.setattr(tile_sizes, "sizes_within", lambda elements: small)


@pytest.mark.usefixtures("_small_tiles")
@pytest.mark.parametrize("queue", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.01], ids=["triangle", "row blocks"])
@pytest.mark.parametrize("name", LOSSES)
def test_sweeps_over_tiles(name, temperature, queue):
    def make():
        loss = LOSSES[name](temperature=temperature)
        if queue:
            loss.queue = FeatureQueue(20)

        def step(z, labels):
            if queue:
                loss.queue.push(z.detach(), labels)
            return loss(z, labels)

        return step

    assert same_on_both(make, Z, LABELS).waits_in("call") == SORT


@pytest.mark.parametrize("options", [{}, {"link": Logistic()}, {"num_negatives": 8}], ids=["tiled", "general", "drawn"])
def test_queue(options):
    def make():
        loss = HSCLLoss(beta=2.0, **options)
        loss.queue = FeatureQueue(20)

        def step(z, labels):
            loss.queue.push(z.detach(), labels)
            return loss(z, labels)

        return step

    assert same_on_both(make, Z, LABELS).waits_in("call") == SORT


@pytest.mark.parametrize("link", [InfoNCE(), Logistic()], ids=str)
def test_a_learned_temperature_is_read_once(link):
    def loss(z, labels, tau):
        tau = tau.detach().requires_grad_()
        value = HSCLLoss(temperature=tau, link=link)(z, labels)
        assert torch.autograd.grad(value, tau, retain_graph=True)[0].device == z.device
        return value

    machine = same_on_both(lambda: loss, Z, LABELS, torch.tensor(0.5))
    of_constructor = 1
    assert machine.waits_in("call") == SORT | {("item", "losses/theory.py tau"): 1 + of_constructor}


@pytest.mark.parametrize("name", ["HSCL", "HUCL"])
def test_statistics_of_negatives(name):
    same_on_both(lambda: LOSSES[name]().negative_statistics, Z, LABELS, gradient=False)


def test_histograms():
    same_on_both(lambda: lambda *x: similarity_histograms(*x, Exponential(2.0)), Z, LABELS, gradient=False)


def test_a_batch_without_a_pair_gives_the_values_of_the_cpu():
    machine = same_on_both(lambda: SCLLoss(), Z, torch.arange(N))
    assert machine.waits_in("call") == SORT


def test_a_generator_of_another_device_is_refused():
    with Machine(), pytest.raises(ValueError, match="generator: got one on cpu"):
        HSCLLoss(num_negatives=4)(Z.to(NAME), LABELS.to(NAME), generator=Generator())


@pytest.mark.parametrize("name", LOSSES)
def test_deterministic_algorithms(name):
    torch.use_deterministic_algorithms(True)  # also fills memory that is not initialized with NaN
    try:
        same_on_both(LOSSES[name], Z, LABELS)
        same_on_both(lambda: LOSSES[name](temperature=0.01, num_negatives=4), Z, LABELS)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("options", [{}, {"link": Logistic()}], ids=["tiled", "general"])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_work_on_a_device_without_float64(name, options):
    same_on_both(lambda: LOSSES[name](**options), Z, LABELS, float64=False)


@pytest.mark.parametrize("options", [{}, {"replacement": False}, {"share_draws": True}], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_draws_on_a_device_without_float64_have_the_same_mean(name, options):
    # The random numbers differ, but there are enough of them for both means to be close.
    loss = LOSSES[name](num_negatives=38 if "replacement" in options else 2000, **options)
    (cpu, device), _ = on_both(lambda: loss, Z, LABELS, float64=False)
    torch.testing.assert_close(device[0], cpu[0], rtol=0.03, atol=0)
    assert torch.nn.functional.cosine_similarity(device[1].flatten(), cpu[1].flatten(), dim=0) > 0.95


# ------------------------------------------------------------------------------------------------- kernels and memory


def cost(loss, n, feature_dim=16, num_classes=100):
    """Launches, and peak of memory beyond the features, of a forward and backward pass; floats have no values."""
    with Machine(values=False) as machine:
        z = torch.randn(n, feature_dim).to(NAME).requires_grad_()
        labels = (torch.arange(n) % num_classes).to(NAME)
        machine.phase, before = "call", machine.memory
        machine.peak = before
        loss(z, labels).backward()
        assert machine.waits_in("call") == SORT
    return machine.launches_in("call"), machine.peak - before


@pytest.mark.parametrize(("n", "most"), [(64, 60), (512, 60), (1024, 60), (2048, 100), (8192, 100)])
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.01}, {"normalization": "none"}, {"include_self": True}], ids=str
)
@pytest.mark.parametrize("name", LOSSES)
def test_launches(name, options, n, most):
    # A kernel of any size costs the host about 5 microseconds. The gradient of the weights takes four more.
    loss = LOSSES[name](**options)
    assert cost(loss, n)[0] <= most + 4 * loss.differentiate_weights * (loss.hardness > 0)


@pytest.mark.parametrize(
    ("options", "most"), [({"link": InfoNCE("sum")}, 62), ({"differentiate_weights": True}, 64)], ids=["sum", "weights"]
)
def test_launches_of_other_options(options, most):
    assert max(cost(HSCLLoss(**options), n)[0] for n in (512, 8192)) <= most


@pytest.mark.parametrize(
    ("options", "size", "most"),
    [({}, 128, 77), ({"link": Logistic()}, 0, 124), ({"num_negatives": 64}, 0, 115)],
    ids=["queue", "logistic", "drawn"],
)
def test_launches_of_other_losses(options, size, most):
    loss, z, labels = HSCLLoss(**options), torch.randn(512, 6), torch.arange(512) % 100
    with Machine() as machine:
        z, labels = z.to(NAME).requires_grad_(), labels.to(NAME)
        if size > 0:
            loss.queue = FeatureQueue(size)
            loss.queue.push(z.detach()[:size], labels[:size])
        machine.phase = "call"
        loss(z, labels).backward()
    assert machine.launches_in("call") <= most


@pytest.mark.parametrize(("gibibytes", "most"), [(16, 200), (24, 200), (32, 100), (80, 100)])
def test_launches_by_size_of_the_card(monkeypatch, gibibytes, most):
    monkeypatch.setattr(Backend, "memory", gibibytes * 2**30)
    assert max(cost(loss(), 8192)[0] for loss in LOSSES.values()) <= most


@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_launches_by_number_of_classes(num_classes):
    for n in (1024, 8192):
        assert cost(HSCLLoss(beta=5.0), n, num_classes=num_classes)[0] <= (60 if n == 1024 else 100)


@pytest.mark.parametrize(
    ("n", "gibibytes", "most"), [(512, 1, 100), (4096, 4, 400), (16384, 16, 1700), (16384, 80, 400), (32768, 80, 1000)]
)
@pytest.mark.parametrize("temperature", [1.0, 0.01])
@pytest.mark.parametrize("num_classes", [2, 10, 1000])
def test_memory_beyond_the_features_stays_within_the_budget(monkeypatch, num_classes, temperature, n, gibibytes, most):
    monkeypatch.setattr(Backend, "memory", gibibytes * 2**30)
    loss, feature_dim = HUCLLoss(beta=5.0, temperature=temperature, differentiate_weights=True), 16
    launches, peak = cost(loss, n, feature_dim, num_classes)
    of_samples = 8 * 4 * n * feature_dim  # the features themselves eight times, as floats
    assert peak <= tile_sizes.MEMORY_SHARE * Backend.memory + of_samples
    assert launches <= most


@pytest.mark.parametrize("loss", [SupConLoss, NTXentLoss, DCLLoss, HCLLoss])
def test_named_losses(loss):
    machine = same_on_both(lambda: loss(), Z, torch.arange(N) % (N // 2))
    assert machine.waits_in("call") == SORT


def test_the_views_of_dhel_are_selected_on_the_device():
    machine = same_on_both(lambda: DHELLoss(), Z, torch.arange(N) % (N // 2))
    assert SORT.items() < machine.waits_in("call").items()
