"""Positives that are views of the anchor, and negatives of other classes."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import simplex_etf
from nc_lightning.losses import ContrastiveLoss, FeatureQueue, HSCLLoss, HUCLLoss, InfoNCE, SCLLoss, UCLLoss
from nc_lightning.losses.pairs import ignores_labels
from tests.losses.loops_over_triples import ETAS, LINKS, loop_loss
from tests.losses.test_hardening import OURS as HARDENINGS
from tests.losses.test_links import OURS as OUR_LINKS

# Six images with two views each; the labels of two images are unknown.
INSTANCES = torch.tensor([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5])
LABELS = torch.tensor([0, 0, 1, 1, -1, -1])[INSTANCES]
CLASSES = torch.tensor([0, 0, 1, 1, 8, 9])[INSTANCES]
PAST_LABELS = [0, 1, 7, -1, 0]


def features(n=12, dim=4):
    return 0.7 * torch.randn(n, dim, dtype=torch.float64)


def value_and_gradient(function, z):
    leaf = z.clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def assert_equal(actual, expected):
    assert actual[0].item() == pytest.approx(expected[0].item(), rel=1e-12)
    assert (actual[1] - expected[1]).abs().max() < 1e-10 * expected[1].abs().max()


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("eta", ETAS)
@pytest.mark.parametrize("with_queue", [False, True])
def test_value_and_gradient_equal_those_of_loops_over_triples(link, eta, with_queue):
    z, past = features(), torch.nn.functional.normalize(features(5))
    for differentiate in (False, True):
        for include_self in (False, True):
            chosen = {"link": OUR_LINKS[link], "hardening": HARDENINGS[eta], "include_self": include_self}
            loss = ContrastiveLoss(temperature=0.5, differentiate_weights=differentiate, positives="view", **chosen)
            o = {"differentiate": differentiate, "include_self": include_self, "link": link, "eta": eta}
            if with_queue:
                loss.queue = FeatureQueue(5)
                loss.queue.push(past, torch.tensor(PAST_LABELS))
                o |= {"past": past, "past_labels": PAST_LABELS}
            ours = value_and_gradient(lambda z, loss=loss: loss(z, LABELS, INSTANCES), z)
            loops = value_and_gradient(
                lambda z, o=o: loop_loss(z, INSTANCES, "other_classes", temperature=0.5, classes=CLASSES, **o), z
            )
            assert_equal(ours, loops)


@pytest.mark.parametrize("normalization", ["unit_ball", "unit_sphere", "none"])
@pytest.mark.parametrize("link", ["infonce", "infonce sum alpha 0"])
def test_the_tiled_engine_equals_loops_over_triples(normalization, link):
    z = 2 * features()
    for differentiate in (False, True):
        chosen = {"link": OUR_LINKS[link], "positives": "view"}
        loss = ContrastiveLoss("other_classes", 3.0, 0.5, None, normalization, differentiate, **chosen)
        options = (3.0, 0.5, normalization, differentiate, False, link)
        loops = value_and_gradient(
            lambda z, o=options: loop_loss(z, INSTANCES, "other_classes", *o, classes=CLASSES), z
        )
        assert_equal(value_and_gradient(lambda z, loss=loss: loss(z, LABELS, INSTANCES), z), loops)


def test_a_wrong_class_is_detected():
    z, wrong = features(), CLASSES.clone()
    wrong[[2, 8]] = 0
    expected = loop_loss(z, INSTANCES, "other_classes", classes=wrong)
    assert abs(SCLLoss(positives="view")(z, LABELS, INSTANCES) - expected) > 1e-6


@pytest.mark.parametrize("share_draws", [False, True])
def test_drawn_negatives_converge_to_the_expectation(share_draws):
    z = features()
    exact = HSCLLoss(3.0, positives="view")(z, LABELS, INSTANCES).item()
    drawn = HSCLLoss(3.0, num_negatives=20_000, share_draws=share_draws, positives="view")(z, LABELS, INSTANCES)
    assert drawn.item() == pytest.approx(exact, rel=0.01)
    # There are 8 and 10 negatives; drawing all of them without replacement is the exact loss.
    z, labels, instances = z[INSTANCES < 4], LABELS[INSTANCES < 4], INSTANCES[INSTANCES < 4]
    everyone = SCLLoss(num_negatives=4, replacement=False, positives="view")(z, labels, instances)
    assert everyone.item() == pytest.approx(SCLLoss(positives="view")(z, labels, instances).item(), rel=1e-12)
    with pytest.raises(ValueError, match="num_negatives: got 5 without replacement, expected at most 4"):
        SCLLoss(num_negatives=5, replacement=False, positives="view")(z, labels, instances)


def test_statistics_are_of_negatives_of_other_classes():
    found = HSCLLoss(0.0, positives="view").negative_statistics(features(), LABELS, INSTANCES)
    assert found["effective"].item() == pytest.approx((8 * 8 + 4 * 10) / 12)
    assert found["fraction"].item() == pytest.approx(1.0)


def test_labels_of_every_image_of_its_own_are_positives_by_label():
    z = features()
    for loss in (SCLLoss, HSCLLoss, UCLLoss, HUCLLoss):
        by_view = value_and_gradient(lambda z, loss=loss: loss(positives="view")(z, INSTANCES, INSTANCES), z)
        by_label = value_and_gradient(lambda z, loss=loss: loss()(z, INSTANCES), z)
        assert torch.equal(by_view[0], by_label[0])
        assert torch.equal(by_view[1], by_label[1])


def test_without_instances_there_are_no_pairs():
    for loss in (SCLLoss, UCLLoss):
        with pytest.warns(UserWarning, match="a batch holds no anchor with both a positive and a negative"):
            assert loss(positives="view")(features(), LABELS) == 0


def test_a_batch_of_one_class_has_no_negatives():
    loss = SCLLoss(positives="view")
    with pytest.warns(UserWarning, match="a batch holds no anchor with both a positive and a negative"):
        assert loss(features(), torch.zeros(12, dtype=torch.long), INSTANCES) == 0
    assert loss(features(), torch.full((12,), -1), INSTANCES) > 0


def test_only_unsupervised_losses_by_view_ignore_labels():
    z = features()
    for loss in (SCLLoss, HSCLLoss, UCLLoss, HUCLLoss):
        for positives in ("label", "view"):
            made = loss(positives=positives)
            made.queue = FeatureQueue(5)
            made.queue.push(features(5), torch.tensor(PAST_LABELS))
            same = torch.equal(made(z, LABELS, INSTANCES), made(z, LABELS.flip(0), INSTANCES))
            assert same == ignores_labels(made.positives, made.negatives)


@given(
    seed=st.integers(0, 2**31),
    scale=st.floats(0.1, 10),
    temperature=st.floats(0.1, 2),
    num_classes=st.integers(2, 5),
    images=st.integers(1, 3),
    views=st.integers(2, 3),
)
def test_balanced_batches_stay_above_the_bound(seed, scale, temperature, num_classes, images, views):
    instances = torch.arange(num_classes * images).repeat(views)
    labels = instances % num_classes
    generator = torch.Generator().manual_seed(seed)
    z = scale * torch.randn(len(labels), 4, generator=generator, dtype=torch.float64)
    for link in (InfoNCE(), InfoNCE("sum"), OUR_LINKS["logistic"]):
        options = {"temperature": temperature, "link": link, "positives": "view"}
        floor = SCLLoss(**options).lower_bound(num_classes, len(labels))
        loss = SCLLoss(**options)(z, labels, instances)
        assert loss >= floor - 1e-12
        assert HSCLLoss(3.0, **options)(z, labels, instances) >= loss - 1e-12 * (1 + loss)


@pytest.mark.parametrize("loss", [SCLLoss, HSCLLoss])
@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_the_etf_meets_the_bound(loss, num_classes):
    instances = torch.arange(2 * num_classes).repeat(2)
    labels = instances % num_classes
    made = loss(temperature=0.5, positives="view")
    value = made(simplex_etf(num_classes, num_classes)[labels], labels, instances).item()
    assert value == pytest.approx(made.lower_bound(num_classes), abs=1e-12)
    assert made.lower_bound(num_classes) == loss(temperature=0.5).lower_bound(num_classes)
    for unsupervised in (UCLLoss, HUCLLoss):
        assert unsupervised(positives="view").lower_bound(num_classes) is None
