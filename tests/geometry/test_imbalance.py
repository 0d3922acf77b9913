import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from nc_lightning.geometry import (
    minority_collapse_ratio,
    scl_lower_bound,
    scl_optimum,
    simplex_etf,
    unit_ball,
)
from nc_lightning.losses import InfoNCE, Logistic, SCLLoss, Triplet
from tests.largest_tensor import LargestTensor

BATCHES = [(4, 3, 2, 2), (6, 2, 2), (5, 4, 3, 2, 2), (9, 1, 1), (3, 2, 1), (8, 2)]
LINKS = {"mean": InfoNCE(), "sum": InfoNCE("sum"), "decoupled": InfoNCE(alpha=0.0), "logistic": Logistic()}

# Cosine within the small classes of ten, for (large classes, small classes) and the ratio of their probabilities.
COSINES = {
    (1, 9): {1: -0.111, 5: 0.081, 10: 0.358, 20: 0.816, 50: 1.0, 100: 1.0},
    (2, 8): {1: -0.111, 5: 0.131, 10: 0.349, 20: 0.594, 50: 0.869, 100: 1.0},
    (5, 5): {1: -0.111, 5: 0.115, 10: 0.182, 20: 0.223, 50: 0.250, 100: 0.260},
}


def two_kinds(large, small, ratio):
    total = large * ratio + small
    return [ratio / total] * large + [1 / total] * small


def loss_of(gram, priors, temperature=1.0):
    """The population's loss of collapsed classes, term by term."""
    value = 0.0
    for c, p in enumerate(priors):
        others = [j for j in range(len(priors)) if j != c]
        terms = [priors[j] / (1 - p) * math.exp((gram[c][j] - gram[c][c]) / temperature) for j in others]
        value += p * math.log1p(sum(terms))
    return value


def features_of(gram):
    """Vectors with the given inner products."""
    values, vectors = torch.linalg.eigh(gram)
    return vectors * values.clamp(min=0).sqrt()


def labels_of(counts):
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


@pytest.mark.parametrize(("large", "small"), COSINES)
def test_cosines_within_the_small_classes(large, small):
    for ratio, cosine in COSINES[large, small].items():
        priors = two_kinds(large, small, ratio)
        optimum = scl_optimum(priors)
        assert optimum.gram[-1, -2].item() == pytest.approx(cosine, abs=1e-3)
        assert optimum.minority_collapsed == (cosine == 1)
        assert optimum.gap < 1e-12
        assert optimum.loss == pytest.approx(loss_of(optimum.gram.tolist(), priors), abs=1e-14)


@pytest.mark.parametrize(("priors", "temperature"), [([0.6, 0.3, 0.1], 1.0), ([0.4, 0.4, 0.1, 0.1], 0.5)])
def test_the_optimum_is_that_of_a_general_solver_over_all_vectors(priors, temperature):
    size = len(priors)

    def value(x):
        vectors = x.reshape(size, size)
        return loss_of((vectors @ vectors.T).tolist(), priors, temperature)

    inside = {"type": "ineq", "fun": lambda x: 1 - (x.reshape(size, size) ** 2).sum(1)}
    start = 0.5 * torch.randn(size * size, generator=torch.Generator().manual_seed(1)).double().numpy()
    found = minimize(value, start, method="SLSQP", constraints=inside, options={"ftol": 1e-14, "maxiter": 500})
    assert scl_optimum(priors, temperature=temperature).loss == pytest.approx(found.fun, abs=1e-9)


def test_equal_classes_have_neural_collapse():
    for optimum in (scl_optimum([0.25] * 4), scl_optimum(counts=[6] * 4)):
        assert optimum.loss == pytest.approx(scl_lower_bound(4), abs=1e-14)
        assert torch.allclose(optimum.gram, simplex_etf(4, 3) @ simplex_etf(4, 3).T, atol=1e-8)
        assert not optimum.minority_collapsed


def test_the_order_of_classes_is_kept_and_absent_classes_are_left_out():
    counts = [2, 7, 0, 2, 4]
    optimum, ordered = scl_optimum(counts=counts), scl_optimum(counts=[7, 4, 2, 2])
    assert optimum.loss == pytest.approx(ordered.loss, abs=1e-13)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(optimum.gram, ordered.gram[order][:, order], atol=1e-6)
    assert scl_optimum([0.5, 0.0, 0.3, 0.2]).loss == scl_optimum([0.5, 0.3, 0.2]).loss


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("counts", BATCHES)
def test_a_collapsed_batch_attains_the_bound(counts, link):
    optimum = scl_optimum(counts=counts, temperature=0.5, link=LINKS[link])
    z = features_of(optimum.gram)[labels_of(counts)]
    loss = SCLLoss(temperature=0.5, link=LINKS[link])(z, labels_of(counts))
    assert loss.item() == pytest.approx(optimum.loss, abs=1e-10)
    assert optimum.gap < 1e-10


@pytest.mark.parametrize("counts", BATCHES)
def test_random_batches_are_above_the_bound(counts):
    optimum, labels = scl_optimum(counts=counts), labels_of(counts)
    best, loss = features_of(optimum.gram)[labels], SCLLoss()
    generator = torch.Generator().manual_seed(0)
    for trial in range(400):
        noise = torch.randn(best.shape, generator=generator, dtype=torch.float64)
        z = best + 10 ** (-trial / 100) * noise if trial % 2 else noise * 2 ** (trial % 5 - 2)
        assert loss(z, labels) >= optimum.loss - 1e-12


@settings(max_examples=8, deadline=None)
@given(
    counts=st.lists(st.integers(0, 6), min_size=2, max_size=5).filter(
        lambda counts: max(counts) > 1 and sum(n > 0 for n in counts) > 1
    ),
    temperature=st.sampled_from([0.1, 0.5, 1.0, 3.0]),
    seed=st.integers(0, 1000),
)
def test_any_batch_is_above_the_bound_of_its_counts(counts, temperature, seed):
    bound = scl_lower_bound(len(counts), temperature, counts=counts)
    generator = torch.Generator().manual_seed(seed)
    loss, labels = SCLLoss(temperature=temperature), labels_of(counts)
    for dim in (1, 2, 7):
        z = unit_ball(torch.randn(len(labels), dim, generator=generator, dtype=torch.float64))
        assert loss(z, labels) >= bound * (1 - 1e-9)


@pytest.mark.parametrize("counts", [(4, 3, 2, 2), (9, 2, 2)])
def test_training_of_free_features_arrives_at_the_bound(counts):
    bound, labels = scl_optimum(counts=counts).loss, labels_of(counts)
    reached = []
    for seed in range(3):
        z = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        z = torch.nn.functional.normalize(z).requires_grad_()
        loss = SCLLoss(normalization="unit_sphere")
        optimizer = torch.optim.LBFGS([z], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-14)

        def closure(optimizer=optimizer, loss=loss, z=z):
            optimizer.zero_grad()
            value = loss(z, labels)
            value.backward()
            return value

        optimizer.step(closure)
        reached.append(loss(z, labels).item())
    assert min(reached) == pytest.approx(bound, abs=1e-8)
    assert min(reached) >= bound - 1e-12


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("priors", [[0.6, 0.2, 0.2], [0.5, 0.3, 0.1, 0.1]])
def test_few_negatives_by_enumeration_of_their_classes(priors, k):
    def value(gram):
        total = 0.0
        for c, p in enumerate(priors):
            for classes in itertools.product([j for j in range(len(priors)) if j != c], repeat=k):
                chance = math.prod(priors[j] / (1 - p) for j in classes)
                total += p * chance * math.log1p(sum(math.exp(gram[c][j] - gram[c][c]) for j in classes) / k)
        return total

    optimum = scl_optimum(priors, num_negatives=k)
    assert optimum.loss == pytest.approx(value(optimum.gram.tolist()), abs=1e-13)
    assert optimum.gap < 1e-10
    generator = torch.Generator().manual_seed(k)
    for _ in range(50):
        vectors = unit_ball(
            features_of(optimum.gram) + 0.3 * torch.randn(len(priors), len(priors), generator=generator)
        )
        assert value((vectors @ vectors.T).tolist()) >= optimum.loss


def test_many_negatives_tend_to_the_limit():
    priors = two_kinds(1, 3, 5)
    assert scl_optimum(priors, num_negatives=2000).loss == pytest.approx(scl_optimum(priors).loss, abs=1e-4)
    with pytest.raises(ValueError, match="num_negatives: got 256 with 5 different class sizes, which have too many"):
        scl_optimum(counts=[2, 3, 4, 5, 6], num_negatives=256)


@pytest.mark.parametrize(("large", "small", "temperature"), [(1, 9, 1.0), (2, 8, 1.0), (1, 2, 1.0), (2, 3, 0.5)])
def test_small_classes_coincide_from_the_ratio(large, small, temperature):
    ratio = minority_collapse_ratio(large, small, temperature)
    below, above = (scl_optimum(two_kinds(large, small, f * ratio), temperature=temperature) for f in (0.99, 1.01))
    assert not below.minority_collapsed
    assert above.minority_collapsed


@pytest.mark.parametrize(("large", "small", "samples"), [(5, 5, 2), (1, 3, 4), (3, 7, 3)])
def test_small_classes_of_a_batch_coincide_from_the_ratio(large, small, samples):
    ratio = minority_collapse_ratio(large, small, minority_count=samples)
    for count in (math.floor(ratio * samples), math.ceil(ratio * samples)):
        optimum = scl_optimum(counts=[count] * large + [samples] * small)
        assert optimum.minority_collapsed == (count > ratio * samples)


def test_some_small_classes_never_coincide():
    assert minority_collapse_ratio(5, 5) == math.inf
    assert not scl_optimum(two_kinds(5, 5, 1e5)).minority_collapsed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "priors, counts: got both or none of them, expected one"),
        ({"priors": [0.5, 0.4]}, r"priors: got \[0.5, 0.4\], expected probabilities that sum to 1"),
        ({"priors": [1.5, -0.5]}, r"priors: got \[1.5, -0.5\], expected probabilities"),
        ({"priors": [float("nan"), 0.5]}, r"priors: got \[nan, 0.5\], expected probabilities"),
        ({"priors": [1.0]}, "priors: got 1 classes with samples, expected at least 2, to have negatives"),
        ({"counts": [5, 0]}, "counts: got 1 classes with samples, expected at least 2, to have negatives"),
        ({"counts": []}, "counts: got 0 classes with samples"),
        ({"counts": [5, -1]}, r"counts: got \[5, -1\], expected numbers of samples, integers >= 0"),
        ({"counts": [5, 1.5]}, r"counts: got \[5, 1.5\], expected numbers of samples"),
        ({"counts": [1, 1, 1]}, "counts: got at most one sample of each class, expected a class with 2, to have pos"),
        ({"counts": [5, 2], "temperature": 0}, "temperature: got 0, expected a finite number > 0"),
        ({"counts": [5, 2], "temperature": 1e-4}, "temperature: got 0.0001, expected at least 0.003 for the optimum"),
        ({"counts": [5, 2], "num_negatives": 0}, "num_negatives: got 0, expected an integer >= 1"),
        ({"counts": [10, 5, 3, 1, 2, 2], "temperature": 0.5, "link": Triplet(3.0)}, r"link: got Triplet\(margin=3.0\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        scl_optimum(**arguments)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_works_without_gradients(mode):
    with mode():
        assert scl_optimum(counts=[5, 2]).loss == pytest.approx(scl_lower_bound(2), abs=1e-12)
        assert minority_collapse_ratio(1, 9) == pytest.approx(24.9275, abs=1e-4)


def test_small_temperatures_are_computed_without_overflow():
    optimum = scl_optimum(counts=[8, 2, 2], temperature=0.01)
    assert 0 < optimum.loss < 1e-60
    assert optimum.gap < 1e-6 * optimum.loss


def test_bad_arguments_of_the_ratio_are_refused():
    with pytest.raises(ValueError, match="num_majority: got 0, expected an integer >= 1"):
        minority_collapse_ratio(0, 3)
    with pytest.raises(ValueError, match="num_minority: got 1, expected an integer >= 2"):
        minority_collapse_ratio(3, 1)
    with pytest.raises(ValueError, match="minority_count: got 1, expected an integer >= 2"):
        minority_collapse_ratio(3, 3, minority_count=1)
    with pytest.raises(ValueError, match="temperature: got -1"):
        minority_collapse_ratio(3, 3, temperature=-1)


def test_the_optimum_of_many_classes_holds_no_matrix_of_them():
    with LargestTensor() as largest:
        optimum = scl_optimum(counts=[9] * 200 + [3] * 300)
    assert largest.numel <= 1000
    assert optimum.gram.shape == (500, 500)
    assert optimum.gram[0, 1] == optimum.products.diagonal()[optimum.group[0]]
