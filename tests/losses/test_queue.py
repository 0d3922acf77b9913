import pytest
import torch

from nc_lightning.losses import ContrastiveLoss, Exponential, FeatureQueue, HSCLLoss, HUCLLoss, SCLLoss, UCLLoss
from tests.losses.loops_over_triples import LINKS, loop_loss
from tests.losses.test_hardening import OURS as HARDENINGS
from tests.losses.test_links import OURS as OUR_LINKS

LABELS = torch.tensor([0, 0, 1, 1, 1, 2, 3, 2, 0])


def filled(features, labels, size=None):
    queue = FeatureQueue(size or len(labels))
    queue.push(features, torch.as_tensor(labels))
    return queue


def random_features(n, dim=4):
    return torch.nn.functional.normalize(torch.randn(n, dim, dtype=torch.float64))


@pytest.mark.parametrize("negatives", ["other_classes", "all"])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("eta", ["exponential", "threshold"])
def test_value_and_gradient_equal_those_of_loops_over_triples(negatives, link, eta):
    hardening = Exponential(3.0) if eta == "exponential" else HARDENINGS[eta]
    loss = ContrastiveLoss(negatives, temperature=0.5, link=OUR_LINKS[link], hardening=hardening)
    past, past_labels = random_features(6), [0, 1, 5, 5, -1, 2]
    loss.queue = filled(past, past_labels)
    z = (0.7 * random_features(9)).requires_grad_()  # inside the ball, where the gradient is unique
    value = loss(z, LABELS)
    (gradient,) = torch.autograd.grad(value, z)
    options = {"temperature": 0.5, "link": link, "eta": eta, "past": past, "past_labels": past_labels}
    options["differentiate"] = loss.differentiate_weights
    expected = loop_loss(z, LABELS, negatives, **options)
    (expected_gradient,) = torch.autograd.grad(expected, z)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    assert (gradient - expected_gradient).abs().max() < 1e-9 * expected_gradient.abs().max()
    wrong = loop_loss(z, LABELS, negatives, **(options | {"past_labels": [1, 0, 5, 5, -1, 2]}))
    assert (wrong.item() == pytest.approx(value.item(), rel=1e-9)) == (negatives == "all"), "labels must matter"


def test_drawn_negatives_come_from_the_queue_as_well():
    loss = SCLLoss(num_negatives=20_000, share_draws=True)
    past = -random_features(1).expand(50, 4)
    loss.queue = filled(past, [7] * 50)
    z = random_features(9)
    expected = loop_loss(z, LABELS, "other_classes", past=past, past_labels=[7] * 50)
    assert loss(z, LABELS).item() == pytest.approx(expected.item(), rel=0.01)


def test_a_batch_of_one_class_finds_its_negatives_in_the_queue():
    loss = SCLLoss()
    z, labels = random_features(4), torch.zeros(4, dtype=torch.long)
    loss.queue = filled(random_features(5), [1, 2, 3, 0, -1])
    assert loss(z, labels) > 0
    loss.queue = filled(random_features(5), [0] * 5)
    with pytest.warns(UserWarning, match="holds no anchor with both"):
        assert loss(z, labels) == 0


def test_by_view_past_features_of_other_and_unknown_classes_are_negatives():
    z, labels, instances = random_features(6), torch.tensor([0, 0, 1] * 2), torch.arange(3).repeat(2)
    past = random_features(4)
    loss = SCLLoss(positives="view")
    loss.queue = filled(past, [0, 1, 5, -1])
    for known, classes in ((labels, labels), (torch.full((6,), -1), instances + 10)):
        options = {"past": past, "past_labels": [0, 1, 5, -1], "classes": classes}
        expected = loop_loss(z, instances, "other_classes", **options)
        assert loss(z, known, instances).item() == pytest.approx(expected.item(), rel=1e-12)


def test_an_unknown_label_in_the_batch_matches_no_past_label():
    z, past = random_features(4), random_features(2)
    loss = SCLLoss()
    loss.queue = filled(past, [1, 6])
    labels = torch.tensor([1, 1, -1, -1])
    expected = loop_loss(z, [1, 1, 100, 101], "other_classes", past=past, past_labels=[1, 6])
    assert loss(z, labels).item() == pytest.approx(expected.item(), rel=1e-12)


def test_past_features_are_normalized_like_those_of_the_batch():
    z, past = 3 * random_features(9), 2 * random_features(5)
    loss = HUCLLoss(normalization="unit_sphere")
    loss.queue = filled(past, [0] * 5)
    scaled = HUCLLoss(normalization="unit_sphere")
    scaled.queue = filled(past / 2, [0] * 5)
    assert loss(z, LABELS).item() == pytest.approx(scaled(z, LABELS).item(), rel=1e-12)


def test_statistics_and_bounds_take_the_queue_into_account():
    loss = HSCLLoss(beta=0.0)
    z = random_features(9)
    assert loss.lower_bound(4) is not None
    loss.queue = filled(random_features(5), [9] * 5)
    assert loss.lower_bound(4) is None
    expected = sum(14 - (label == LABELS).sum().item() for label in LABELS[LABELS != 3]) / 8
    assert loss.negative_statistics(z, LABELS)["effective"].item() == pytest.approx(expected)


@pytest.mark.parametrize("pushes", [[2], [5], [7], [3, 3], [3, 3, 3], [2, 9, 1], [5, 5]])
def test_the_queue_holds_the_last_features(pushes):
    queue = FeatureQueue(5)
    everything = torch.arange(float(sum(pushes)))
    for part in everything.split(pushes):
        queue.push(part[:, None], part.long())
    assert sorted(queue.labels.tolist()) == everything[-5:].tolist()
    assert torch.equal(queue.features[:, 0], queue.labels.float())


def test_the_queue_holds_no_gradient():
    z = torch.randn(3, 2, requires_grad=True)
    queue = filled(z, [0, 1, 2])
    assert not queue.features.requires_grad
    loss = UCLLoss()
    loss.queue = queue
    loss(z, torch.tensor([0, 0, 1])).backward()  # backward does not reach the pushed features


@pytest.mark.parametrize("new_size", [3, 5, 8])
@pytest.mark.parametrize("pushed", [2, 7])
def test_a_state_loads_into_a_queue_of_any_size(new_size, pushed):
    queue = FeatureQueue(5)
    for i in range(pushed):
        queue.push(torch.full((1, 2), float(i)), torch.tensor([i]))
    restored = FeatureQueue(new_size)
    restored.load_state_dict(queue.state_dict())
    assert sorted(restored.labels.tolist()) == list(range(pushed))[-min(new_size, 5) :]
    restored.push(torch.zeros(1, 2), torch.tensor([100]))
    assert (0 in restored.labels) == (pushed == 2 and new_size > 2)


def test_an_empty_queue_has_no_effect():
    loss, z = HSCLLoss(), random_features(9)
    without = loss(z, LABELS)
    loss.queue = FeatureQueue(4)
    assert torch.equal(loss(z, LABELS), without)
    restored = FeatureQueue(4)
    restored.load_state_dict(loss.queue.state_dict())
    assert len(restored) == 0


def test_a_loaded_state_restores_the_write_position():
    queue, restored = FeatureQueue(5), FeatureQueue(5)
    for i in range(7):
        queue.push(torch.full((1, 2), float(i)), torch.tensor([i]))
        restored.load_state_dict(queue.state_dict())
        assert torch.equal(restored.features, queue.features)
        assert torch.equal(restored.labels, queue.labels)


def test_half_precision_features_are_held_in_float32():
    assert filled(torch.randn(3, 2).bfloat16(), [0, 1, 2]).features.dtype == torch.float32


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="queue_size: got 0, expected an integer >= 1"):
        FeatureQueue(0)
    queue = filled(torch.randn(3, 2), [0, 1, 2])
    message = "queue: got features of 3 dimensions, expected 2, those of the features in it"
    with pytest.raises(ValueError, match=message):
        queue.push(torch.randn(3, 3), torch.tensor([0, 1, 2]))
    loss = SCLLoss()
    loss.queue = queue
    with pytest.raises(ValueError, match=message):
        loss(torch.randn(3, 3), torch.tensor([0, 0, 1]))
    queue.clear()
    queue.push(torch.randn(3, 3), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"labels: got shape \(2,\), expected \(3,\)"):
        queue.push(torch.randn(3, 3), torch.tensor([0, 1]))
    assert len(queue) == 3
