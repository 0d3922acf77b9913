import pytest
import torch
from sklearn.neighbors import NearestCentroid

from nc_lightning.evaluation import few_shot_accuracy, nearest_class_mean
from nc_lightning.evaluation.class_means import draw_shots
from tests.evaluation.digits import digits
from tests.largest_tensor import LargestTensor


@pytest.mark.filterwarnings("ignore:.*zero standard deviation.*")
def test_digits_are_classified_as_by_scikit_learn():
    (bank, labels), (queries, _) = digits()
    peer = NearestCentroid().fit(bank, labels)
    assert nearest_class_mean(queries, bank, labels, 10).tolist() == peer.predict(queries).tolist()


def test_absent_classes_are_never_predicted():
    bank, labels = torch.tensor([[5.0], [9.0]]), torch.tensor([0, 2])
    assert nearest_class_mean(torch.tensor([[0.1], [8.0]]), bank, labels, 3).tolist() == [0, 2]


@pytest.mark.filterwarnings("ignore:.*(zero standard deviation|invalid value).*")  # NearestCentroid, of single samples
@pytest.mark.parametrize("shots", [1, 5])
def test_few_shots_are_those_of_a_loop(monkeypatch, shots):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 500)
    (bank, labels), (queries, expected) = digits()
    labels = labels.clone()
    bank, labels = bank[labels != 3], labels[labels != 3]  # an absent class: its queries are wrong
    found = few_shot_accuracy(queries, expected, bank, labels, 10, shots, draws=7, seed=3)
    _, chosen = draw_shots(labels, shots, 7, 3)
    accuracies = []
    for draw in chosen:
        peer = NearestCentroid().fit(bank[draw.flatten()], labels[draw.flatten()])
        accuracies.append((torch.from_numpy(peer.predict(queries)) == expected).double().mean())
    accuracies = torch.stack(accuracies)
    assert found.accuracy == pytest.approx(accuracies.mean().item(), abs=1e-12)
    assert found.interval == pytest.approx(1.96 * accuracies.std().item() / 7**0.5, abs=1e-12)
    assert found.accuracy < 0.9


def test_shots_are_drawn_without_replacement_and_evenly():
    labels = torch.tensor([4, 0, 4, 4, 0])
    present, chosen = draw_shots(labels, 2, 3000, 0)
    assert present.tolist() == [0, 4]
    assert (labels[chosen] == present[:, None]).all()
    assert (chosen[..., 0] != chosen[..., 1]).all()
    share = chosen.flatten().bincount() / 3000
    torch.testing.assert_close(share, torch.tensor([2 / 3, 1, 2 / 3, 2 / 3, 1]), atol=0.04, rtol=0)


def test_a_common_offset_does_not_change_the_accuracy():
    (bank, labels), (queries, expected) = digits()
    near = few_shot_accuracy(queries, expected, bank, labels, 10, 5, draws=5)
    assert few_shot_accuracy(queries + 1e6, expected, bank + 1e6, labels, 10, 5, draws=5) == near


def test_classes_with_fewer_samples_than_shots_are_refused():
    z, labels = torch.randn(5, 2), torch.tensor([0, 0, 0, 2, 2])
    with pytest.raises(ValueError, match="^shots: got 3, expected at most 2, the samples of class 2$"):
        few_shot_accuracy(z, labels, z, labels, 3, shots=3)


def test_few_shots_hold_the_means_of_some_draws(monkeypatch):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 2000)
    z, labels = torch.randn(600, 8), torch.arange(600) % 200
    with LargestTensor() as largest:
        few_shot_accuracy(z, labels, z, labels, 200, shots=3, draws=20)
    assert largest.numel <= 20 * 200 * 3  # indices of the draws; their means would be 20 x 200 x 8
