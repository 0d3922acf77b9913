from itertools import product

import pytest
import torch

from nc_lightning.geometry import normalize
from nc_lightning.losses import Exponential, InfoNCE
from nc_lightning.losses.engines import threads, tile_sizes, tiled
from nc_lightning.losses.engines.autograd import general_loss
from nc_lightning.losses.engines.infonce_terms import InfoNCETerms
from nc_lightning.losses.engines.sorted_batch import SortedBatch, sort_batch
from nc_lightning.losses.pairs import label_pairs
from tests.largest_tensor import LargestTensor
from tests.losses.test_hardening import OURS as HARDENINGS

LAYOUTS = {
    "one class": [3] * 21,
    "all distinct": list(range(24)),
    "pairs": list(range(13)) * 2,
    "singletons": [7] * 9 + [8] * 5 + list(range(5)),
    "mixed": [0, 0, 1, 1, 1, 2, 3, 2, 0] * 3 + [9],
    "two classes": [0, 1, 0, 1, 1, 1] * 6,
    "whole tiles": [0] * 8 + [1] * 16 + [2] * 8,
    "random": [5, 3, 1, 3, 5, 5, 0, 8, 8, 3, 7, 7, 1, 2, 4, 4, 9, 9, 9, 0, 0, 6, 6, 3, 3, 3, 3, 3, 3, 2, 2, 5, 5, 5, 1],
}
NEGATIVES = ["other_classes", "all"]
BETAS = [0.0, 2.0, 2.5, 5.0, 30.0]
TEMPERATURES = [0.05, 0.3, 1.0]
DECOUPLED = InfoNCE("sum", 0.0)
PATHS = ["square", "triangle", "triangle, nothing kept", "triangle, in threads", "row blocks", "row blocks, in threads"]


@pytest.fixture
def small_tiles(monkeypatch):
    """Shrink the tiles so that a few dozen samples fill many, and return a function that forces one path."""
    sizes = tile_sizes.TileSizes(square=0, rows=4, columns=8, cache=100, row_block=32, positive_rows=3, positives=2**24)

    def force(path):
        path, _, how = path.partition(", ")
        square, cache = 2**20 if path == "square" else 0, 0 if how == "nothing kept" else 100
        monkeypatch.setattr(tile_sizes, "CPU", sizes._replace(square=square, cache=cache))
        monkeypatch.setattr(tiled, "SAFE_SHARE", 0.0 if path == "row blocks" else 0.95)
        monkeypatch.setattr(tiled, "SQUARE_PAIRS", 1.0)
        monkeypatch.setattr(threads, "LEAST_ELEMENTS", 0)
        torch.set_num_threads(3 if how == "in threads" else 1)

    return force


def value_and_gradient(function, z):
    leaf = z.clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def tiled_loss(z, labels, past=None, past_labels=None, classes=None, **o):
    sorted_batch = sort_batch(labels, o.pop("negatives"), o.pop("include_self"), past_labels, classes)
    infonce = InfoNCETerms(*(o.pop(name) for name in InfoNCETerms._fields if name in o))
    return z.sum() * 0 if sorted_batch is None else tiled.tiled_loss(z, sorted_batch, infonce, past=past, **o)


def dense_loss(z, labels, past=None, past_labels=None, classes=None, **o):
    """The loss from a single matrix, by automatic differentiation."""
    pairs = label_pairs(labels, o["negatives"], o["include_self"], past_labels, classes=classes)
    if not pairs.anchors.any():
        return z.sum() * 0
    z = normalize(z, o["normalization"])
    hardening = o.get("hardening", Exponential(o["beta"]))
    similarity = z @ (z if past is None else torch.cat([z, past])).T
    total = general_loss(similarity, pairs, pairs.usable(), o["link"], hardening, o["temperature"], o["differentiate"])
    return total / len(pairs.usable()[0])


def batch(layout, dim=5, norm=1.0):
    labels = torch.tensor(LAYOUTS[layout])
    return norm * torch.nn.functional.normalize(torch.randn(len(labels), dim, dtype=torch.float64)), labels


def options(
    beta=5.0,
    temperature=0.3,
    negatives="other_classes",
    differentiate=False,
    include_self=False,
    link=InfoNCE(),  # noqa: B008
    normalization="none",
):
    return {
        "link": link,
        "normalization": normalization,
        "negatives": negatives,
        "beta": beta,
        "temperature": temperature,
        "differentiate": differentiate,
        "include_self": include_self,
    }


def settings():
    for negatives, beta, temperature, differentiate, include_self in product(
        NEGATIVES, BETAS, TEMPERATURES, [False, True], [False, True]
    ):
        yield options(beta, temperature, negatives, differentiate, include_self)


def assert_equal(actual, expected, relative, rounding=0.0, note=None):
    """Compare (value, gradient) pairs; ``rounding`` is the error of a gradient in which all terms cancel."""
    (value, gradient), (expected_value, expected_gradient) = actual, expected
    error = (value.double() - expected_value).abs()
    assert error <= relative * expected_value.abs(), note
    error = (gradient.double() - expected_gradient).abs().max()
    assert error <= relative * expected_gradient.abs().max() + rounding, note


@pytest.mark.some(3)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_value_and_gradient_equal_those_of_the_dense_engine(small_tiles, layout, path):
    small_tiles(path)
    z, labels = batch(layout)
    for o in settings():
        ours = value_and_gradient(lambda z, o=o: tiled_loss(z, labels, **o), z)
        dense = value_and_gradient(lambda z, o=o: dense_loss(z, labels, **o), z)
        assert_equal(ours, dense, 1e-10, rounding=1e-15 / o["temperature"], note=o)
        assert torch.equal(ours[0], tiled_loss(z, labels, **o)), "requiring a gradient must not change the value"


@pytest.mark.some(2)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", ["mixed", "two classes"])
@pytest.mark.parametrize("normalization", ["unit_ball", "unit_sphere"])
def test_the_gradient_includes_the_normalization(small_tiles, layout, path, normalization):
    small_tiles(path)
    z, labels = batch(layout)
    z *= torch.linspace(0, 3.1, len(z))[:, None]  # a zero row, and rows inside and outside the ball
    for o in [*settings(), options(link=DECOUPLED), options(negatives="all", differentiate=True, link=DECOUPLED)]:
        o = o | {"normalization": normalization}
        ours = value_and_gradient(lambda z, o=o: tiled_loss(z, labels, **o), z)
        dense = value_and_gradient(lambda z, o=o: dense_loss(z, labels, **o), z)
        # On the sphere a zero row and its gradient are divided by 1e-12, so it is compared separately.
        assert_equal((ours[0], ours[1][1:]), (dense[0], dense[1][1:]), 1e-10, rounding=1e-14 / o["temperature"], note=o)
        assert_equal((ours[0], ours[1][:1]), (dense[0], dense[1][:1]), 1e-10, rounding=1e-14, note=o)


@pytest.mark.parametrize("name", HARDENINGS)
@pytest.mark.parametrize("layout", ["mixed", "pairs", "two classes"])
def test_other_hardenings_equal_the_dense_engine(small_tiles, layout, name):
    small_tiles("triangle")
    z, labels = batch(layout)
    z[0] = -z[1:].mean(0)  # a sample far from all others, whose eta may vanish
    links = [InfoNCE(), InfoNCE("sum", 2.0), DECOUPLED]
    for negatives, link, temperature, include_self in product(NEGATIVES, links, [0.003, 0.3], [False, True]):
        o = options(0.0, temperature, negatives, include_self=include_self, link=link) | {"hardening": HARDENINGS[name]}
        ours = value_and_gradient(lambda z, o=o: tiled_loss(z, labels, **o), z)
        dense = value_and_gradient(lambda z, o=o: dense_loss(z, labels, **o), z)
        assert_equal(ours, dense, 1e-10, rounding=1e-15 / temperature, note=o)


@pytest.mark.some(4)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("link", [InfoNCE("sum"), InfoNCE("mean", 0.3), InfoNCE("sum", 2.0), DECOUPLED], ids=str)
def test_the_sum_form_and_other_positive_weights_equal_the_dense_engine(small_tiles, path, link):
    small_tiles(path)
    z, labels = batch("mixed")
    for o in settings():
        o = o | {"link": link}
        ours = value_and_gradient(lambda z, o=o: tiled_loss(z, labels, **o), z)
        dense = value_and_gradient(lambda z, o=o: dense_loss(z, labels, **o), z)
        assert_equal(ours, dense, 1e-10, rounding=1e-14 / o["temperature"], note=o)


@pytest.mark.some(3)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", ["one class", "all distinct", "mixed", "whole tiles"])
@pytest.mark.parametrize("past_size", [1, 7, 20])
def test_past_features_are_negatives_without_a_gradient(small_tiles, path, layout, past_size):
    small_tiles(path)
    z, labels = batch(layout)
    past = torch.nn.functional.normalize(torch.randn(past_size, 5, dtype=torch.float64)).requires_grad_()
    past_labels = torch.randint(-1, 12, (past_size,))
    for o in [*settings(), options(link=DECOUPLED), options(negatives="all", differentiate=True, link=DECOUPLED)]:
        o = o | {"past": past, "past_labels": past_labels}
        ours = value_and_gradient(lambda z, o=o: tiled_loss(z, labels, **o), z)
        dense = value_and_gradient(lambda z, o=o: dense_loss(z, labels, **o), z)
        assert_equal(ours, dense, 1e-10, rounding=1e-14 / o["temperature"], note=o)
    tiled_loss(z.requires_grad_(), labels, **o)
    assert past.grad is None


@pytest.mark.some(3)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("with_queue", [False, True])
def test_views_are_windows_within_those_of_their_classes(small_tiles, path, layout, with_queue):
    small_tiles(path)
    z, classes = batch(layout)
    instances = torch.randint(len(z) // 3, (len(z),))  # instances on both sides of a class are two
    past = {"past": z.flip(0)[:7], "past_labels": torch.randint(-1, 9, (7,))} if with_queue else {}
    for o in settings():
        if o["negatives"] == "other_classes":
            o = o | past | {"classes": classes}
            ours = value_and_gradient(lambda z, o=o: tiled_loss(z, instances, **o), z)
            dense = value_and_gradient(lambda z, o=o: dense_loss(z, instances, **o), z)
            assert_equal(ours, dense, 1e-10, rounding=1e-14 / o["temperature"], note=o)


def supcon(z, labels, temperature):
    """L_out of Khosla et al. (2020), with the mean over pairs instead of anchors."""
    logits = z @ z.T / temperature
    myself = torch.eye(len(z), dtype=torch.bool)
    log_probability = logits - logits.masked_fill(myself, -torch.inf).logsumexp(1, keepdim=True)
    return -log_probability[(labels[:, None] == labels) & ~myself].mean()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", ["one class", "mixed", "pairs", "singletons"])
def test_the_sum_over_all_others_without_the_positive_is_supcon(small_tiles, path, layout):
    small_tiles(path)
    z, labels = batch(layout)
    o = options(beta=0.0, temperature=0.1, negatives="all", link=DECOUPLED)
    ours = value_and_gradient(lambda z: tiled_loss(z, labels, **o), z)
    assert_equal(ours, value_and_gradient(lambda z: supcon(z, labels, 0.1), z), 1e-12, rounding=1e-13)


@pytest.mark.parametrize("path", PATHS)
def test_a_feature_that_is_not_a_number_is_not_hidden(small_tiles, path):
    small_tiles(path)
    z, labels = batch("mixed")
    z[3, 1] = torch.nan
    for link in (InfoNCE(), DECOUPLED):
        assert tiled_loss(z, labels, **options(link=link)).isnan()


@pytest.mark.some(4)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("layout", ["mixed", "two classes", "pairs"])
def test_float32_is_close_to_float64(small_tiles, layout, path):
    small_tiles(path)
    z, labels = batch(layout)
    for o in settings():
        single = value_and_gradient(lambda z, o=o: tiled_loss(z, labels, **o), z.float())
        double = value_and_gradient(lambda z, o=o: dense_loss(z, labels, **o), z.float().double())
        assert single[0].dtype == single[1].dtype == torch.float32
        assert_equal(single, double, 1e-4, rounding=1e-6 / o["temperature"], note=o)


@pytest.mark.parametrize("path", PATHS)
def test_features_of_norm_twelve_do_not_overflow(small_tiles, path):
    small_tiles(path)
    z, labels = batch("mixed", norm=12.0)
    for o in settings():
        ours = value_and_gradient(lambda z, o=o: tiled_loss(z, labels, **o), z)
        dense = value_and_gradient(lambda z, o=o: dense_loss(z, labels, **o), z)
        assert_equal(ours, dense, 1e-10, rounding=1e-14 / o["temperature"], note=o)


@pytest.mark.some(4)
@pytest.mark.parametrize("size", [255, 2048, 2305])
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("beta", [5.0, 1000.0])
def test_tiles_of_full_size_equal_the_dense_engine(size, negatives, beta):
    labels = torch.randint(30, (size,))
    z = torch.nn.functional.normalize(torch.randn(size, 8, dtype=torch.float64))
    o = options(beta, 0.5, negatives, differentiate=True)
    ours = value_and_gradient(lambda z: tiled_loss(z, labels, **o), z)
    dense = value_and_gradient(lambda z: dense_loss(z, labels, **o), z)
    assert_equal(ours, dense, 1e-10)


def test_row_blocks_are_used_where_exponents_could_overflow(monkeypatch):
    taken = []
    monkeypatch.setattr(tile_sizes, "CPU", tile_sizes.CPU._replace(square=0))
    for name in ("_triangle", "_row_blocks"):
        path = getattr(tiled, name)
        monkeypatch.setattr(tiled, name, lambda *a, n=name, p=path: taken.append(n) or p(*a))
    z, labels = batch("mixed")
    for beta in (5.0, 80.0, 90.0):
        tiled_loss(z.float(), labels, **options(beta, 0.5))
        tiled_loss(z, labels, **options(beta, 0.5))
    assert taken == ["_triangle", "_triangle", "_row_blocks", "_triangle", "_row_blocks", "_triangle"]


@pytest.mark.parametrize("mistake", ["label", "swapped rows", "beta", "temperature", "a tile left out"])
def test_the_comparison_detects_a_deliberate_mistake(small_tiles, monkeypatch, mistake):
    small_tiles("triangle")
    z, labels = batch("mixed")
    dense = value_and_gradient(lambda z: dense_loss(z, labels, **options()), z)
    leaf, wrong, beta, temperature = z, labels.clone(), 5.0, 0.3
    if mistake == "label":
        wrong[0] = 3
    elif mistake == "swapped rows":
        leaf = z[[1, 2, 0, *range(3, len(z))]]
    elif mistake == "beta":
        beta += 1e-6
    elif mistake == "temperature":
        temperature += 1e-6
    else:
        tiles = SortedBatch.tiles
        monkeypatch.setattr(
            SortedBatch, "tiles", lambda self, *a: list(tiles(self, *a))[:-2] + list(tiles(self, *a))[-1:]
        )
    ours = value_and_gradient(lambda z: tiled_loss(z, wrong, **options(beta, temperature)), leaf)
    with pytest.raises(AssertionError):
        assert_equal(ours, dense, 1e-10)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("differentiate", [False, True])
def test_gradcheck(small_tiles, path, negatives, differentiate):
    small_tiles(path)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 1])
    z = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    # Only without hardness are the weights constant, so that finite differences match detached weights.
    o = options(3.0 if differentiate else 0.0, 0.5, negatives, differentiate)
    assert torch.autograd.gradcheck(lambda z: tiled_loss(z, labels, **o), z)


@pytest.mark.parametrize("path", PATHS)
def test_backward_runs_twice_and_a_second_derivative_is_refused(small_tiles, path):
    small_tiles(path)
    z, labels = batch("mixed")
    z.requires_grad_()
    factor = torch.tensor(3.0, dtype=z.dtype, requires_grad=True)
    loss = factor * tiled_loss(z, labels, **options())
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    kept = first.clone()
    (second,) = torch.autograd.grad(loss, z, retain_graph=True)
    assert torch.equal(kept, second)
    assert torch.equal(kept, first)
    (gradient,) = torch.autograd.grad(loss, z, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("include_self", [False, True])
@pytest.mark.parametrize("past", [None, [], [0], [0, 4]], ids=str)
@pytest.mark.parametrize("labels", [[], [0], [0, 1], [0, 0], [0, 0, 1], [2, 2, 2, 5, 5]], ids=str)
@pytest.mark.parametrize("classes", [None, [0, 0, 0, 0, 0], [5, 4, 5, 0, 0]], ids=str)
def test_sorting_finds_the_same_usable_anchors_as_masks(labels, past, negatives, include_self, classes):
    labels = torch.tensor(labels, dtype=torch.long)
    past = None if past is None else torch.tensor(past, dtype=torch.long)
    classes = None if classes is None else torch.tensor(classes)[: len(labels)]
    pairs = label_pairs(labels, negatives, include_self, past, classes=classes)
    sorted_batch = sort_batch(labels, negatives, include_self, past, classes)
    assert (sorted_batch is not None) == bool(pairs.anchors.any())
    if sorted_batch is not None:
        assert sorted_batch.num_pairs == pairs.positives[pairs.anchors].sum()
        assert torch.equal(sorted_batch.size > int(not include_self), pairs.anchors[sorted_batch.order])
        for actual, expected in zip(sorted_batch.pairs(slice(0, len(labels))), pairs.usable(), strict=True):
            assert torch.equal(actual, expected)
        assert torch.equal(sorted_batch.negative_counts, pairs.negatives.sum(1)[sorted_batch.order])


@pytest.mark.parametrize(("beta", "temperature", "norm"), [(100, 0.01, 1), (1e4, 1e-4, 1), (5, 0.01, 1e3), (5, 1, 1e8)])
@pytest.mark.parametrize("negatives", NEGATIVES)
def test_extremes_stay_finite(small_tiles, beta, temperature, norm, negatives):
    small_tiles("triangle")
    z, labels = batch("mixed", norm=norm)
    for differentiate in (False, True):
        o = options(float(beta), temperature, negatives, differentiate)
        value, gradient = value_and_gradient(lambda z, o=o: tiled_loss(z, labels, **o), z.float())
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("beta", [5.0, 80.0])
@pytest.mark.parametrize(("num_classes", "link"), [(2, InfoNCE()), (100, DECOUPLED), (8192, InfoNCE())], ids=str)
def test_no_tensor_approaches_the_square_of_the_batch(beta, num_classes, link):
    n = 8192
    z, labels = torch.nn.functional.normalize(torch.randn(n, 64)).requires_grad_(), torch.arange(n) % num_classes
    with LargestTensor() as largest:
        tiled_loss(z, labels, **options(beta, 0.5, include_self=True, link=link)).backward()
    assert largest.products > 0
    assert largest.numel < n * n / 8


def test_the_dense_engine_holds_the_square_of_the_batch():
    z, labels = torch.randn(64, 4, requires_grad=True), torch.arange(64) % 3
    with LargestTensor() as largest:
        dense_loss(z, labels, **options()).backward()
    assert largest.numel >= 64 * 64


@pytest.mark.parametrize("path", PATHS)
def test_without_a_gradient_no_work_is_done_for_it(small_tiles, path):
    small_tiles(path)
    z, labels = batch("mixed")
    products = []
    for requires_grad in (False, True):
        with LargestTensor() as seen:
            loss = tiled_loss(z.clone().requires_grad_(requires_grad), labels, **options())
        assert loss.requires_grad == requires_grad
        products.append(seen.products)
    assert products[0] < products[1]
