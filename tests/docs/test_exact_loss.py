"""The equations of docs/explanations/exact-loss.md, evaluated literally, are what the engines compute."""

import importlib
import math
import re

import pytest
import torch

from nc_lightning.geometry import unit_sphere
from nc_lightning.losses import ContrastiveLoss
from nc_lightning.losses.engines.sorted_batch import sort_batch
from nc_lightning.losses.links import InfoNCE
from nc_lightning.losses.pairs import label_pairs
from nc_lightning.losses.queue import FeatureQueue

PAGE = "docs/explanations/exact-loss.md"


def by_the_page(z, pairs, tau, beta, alpha, form, delta):
    """Loss, gradient by z and derivative by tau; rows of z behind the anchors are the queue. Equations 2 to 9."""
    n, s = len(pairs.positives), z @ z.T
    positive, negative = pairs.positives & pairs.anchors[:, None], pairs.negatives & pairs.anchors[:, None]
    hardened, weights = ((beta + 1 / tau) * s[:n]).exp() * negative, (beta * s[:n]).exp() * negative
    a, b, k = hardened.sum(1), weights.sum(1), negative.sum(1)
    log_alpha = math.log(alpha) if alpha > 0 else 0.0
    level = a.log() - b.log() - log_alpha + (k.log() if form == "sum" else 0)
    x = level[:, None] - s[:n] / tau
    count = positive.sum()
    losses, pull = (torch.nn.functional.softplus(x), x.sigmoid()) if alpha > 0 else (x, torch.ones_like(x))
    loss = log_alpha + losses[positive].sum() / count
    p = torch.where(positive, pull, 0.0)
    q = p.sum(1, keepdim=True)
    h = (1 + beta * tau * delta) * q / a[:, None] * hardened - beta * tau * delta * q / b[:, None] * weights
    h = torch.where(pairs.anchors[:, None], h, 0.0)
    matrix = h - p
    matrix[:, :n] += (h - p)[:, :n].T
    gradient = matrix @ z / (count * tau)
    return loss, gradient, -(gradient * z[:n]).sum() / (2 * tau)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(23, 5, dtype=torch.float64, generator=generator)
    return 0.7 * x, torch.randint(4, (23,), generator=generator)


@pytest.mark.parametrize("delta", [False, True])
@pytest.mark.parametrize(("alpha", "form"), [(1.0, "mean"), (0.5, "mean"), (1.0, "sum"), (0.0, "sum")])
@pytest.mark.parametrize("beta", [0.0, 5.0])
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("negatives", ["other_classes", "all"])
@pytest.mark.parametrize("normalization", ["unit_ball", "unit_sphere"])
def test_value_and_gradient(normalization, negatives, include_self, beta, alpha, form, delta):
    x, labels = batch()
    r = x.norm(dim=1, keepdim=True)
    r = r.clamp(min=1) if normalization == "unit_ball" else r
    z = x / r
    pairs = label_pairs(labels, negatives, include_self)
    value, gradient, _ = by_the_page(z, pairs, 0.5, beta, alpha, form, delta)
    scaled = (r > 1) if normalization == "unit_ball" else torch.ones_like(r)
    gradient = (gradient - scaled * (gradient * z).sum(1, keepdim=True) * z) / r  # equation 10
    options = {"link": InfoNCE(form, alpha), "differentiate_weights": delta, "include_self": include_self}
    x.requires_grad_()
    loss = ContrastiveLoss(negatives, beta, 0.5, normalization=normalization, **options)(x, labels)
    loss.backward()
    torch.testing.assert_close(loss.detach(), value)
    torch.testing.assert_close(x.grad, gradient)


@pytest.mark.parametrize("temperature", [0.5, 1e-3], ids=["terms as they are", "terms relative to the hardest"])
def test_a_queue_and_large_exponents(temperature):
    (x, labels), (past, past_labels) = batch(), batch(seed=1)
    x, past = 0.8 * unit_sphere(x), 0.8 * unit_sphere(past)  # inside the ball; e^640 is still a float64
    loss = ContrastiveLoss("other_classes", 2.0, temperature)
    loss.queue = FeatureQueue(len(past))
    loss.queue.push(past, past_labels)
    x.requires_grad_()
    value = loss(x, labels)
    value.backward()
    pairs = label_pairs(labels, "other_classes", past=past_labels)
    z = torch.cat([x.detach(), past])
    expected, gradient, _ = by_the_page(z, pairs, temperature, 2.0, 1.0, "mean", False)
    torch.testing.assert_close(value.detach(), expected)
    torch.testing.assert_close(x.grad, gradient)


def test_temperature():
    x, labels = batch()
    z = unit_sphere(x)
    pairs = label_pairs(labels, "other_classes")
    tau = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    loss = ContrastiveLoss("other_classes", 3.0, tau, normalization="unit_sphere")
    x.requires_grad_()
    loss(x, labels).backward()
    torch.testing.assert_close(tau.grad, by_the_page(z, pairs, 0.5, 3.0, 1.0, "mean", False)[2])


def test_windows():
    _, labels = batch()
    past_labels = torch.arange(9) % 4
    for negatives in ("other_classes", "all"):
        for include_self in (False, True):
            found = sort_batch(labels, negatives, include_self, past_labels)
            pairs = label_pairs(labels, negatives, include_self, past_labels)
            assert found.num_pairs == int(pairs.positives.sum())
            assert found.negative_counts.tolist() == pairs.negatives.sum(1)[found.order].tolist()


def equations_of_functions(page):
    rows = re.findall(r"^\| `([\w.]+)` \| ([\d, ]+) \|$", page, flags=re.MULTILINE)
    return {name: [int(number) for number in numbers.split(",")] for name, numbers in rows}


def test_equations_are_numbered_in_order(repository):
    labels = re.findall(r"^\$\$ \(exact-(\d+)\)$", (repository / PAGE).read_text(), flags=re.MULTILINE)
    assert [int(label) for label in labels] == list(range(1, len(labels) + 1))


def test_each_engine_function_names_its_equation(repository):
    functions = equations_of_functions((repository / PAGE).read_text())
    assert len(functions) == 24
    for name, numbers in functions.items():
        module, _, function = name.partition(".")
        loaded = importlib.import_module(f"nc_lightning.losses.engines.{module}")
        function = getattr(loaded, function, None) or getattr(loaded.InfoNCETerms, function)
        for number in numbers:
            assert re.search(rf"Equation[s]? [^.]*\b{number}\b", function.__doc__), (name, number)
