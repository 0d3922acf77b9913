import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from nc_lightning.evaluation import class_votes, knn_predict, knn_scores
from nc_lightning.evaluation.knn import voted
from tests.evaluation.digits import digits
from tests.largest_tensor import LargestTensor


def weights(distances):
    return np.exp((1 - distances) / 0.07)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("temperature", "how"), [(None, "uniform"), (0.07, weights)])
def test_digits_are_classified_as_by_scikit_learn(dtype, temperature, how):
    (bank, labels), (queries, _) = digits(dtype)
    ours = knn_predict(queries, bank, labels, 10, (1, 20, 200), temperature)
    for predictions, k in zip(ours, (1, 20, 200), strict=True):
        peer = KNeighborsClassifier(k, metric="cosine", weights=how, algorithm="brute").fit(bank, labels)
        assert predictions.tolist() == peer.predict(queries).tolist()


def test_scores_are_those_of_scikit_learn():
    (bank, labels), (queries, _) = digits()
    peer = KNeighborsClassifier(20, metric="cosine", weights=weights).fit(bank, labels)
    scores = knn_scores(queries, bank, labels, 10, 20)
    np.testing.assert_allclose(scores, peer.predict_proba(queries), atol=1e-10)
    assert scores.argmax(1).tolist() == knn_predict(queries, bank, labels, 10, 20).tolist()


def test_no_weight_overflows():
    votes = class_votes(torch.tensor([[1.0, 0.5, -1.0]]), torch.tensor([[2, 0, 0]]), 3, 1e-6)
    assert votes.tolist() == [[0.0, 0.0, 1.0]]


def test_equal_votes_go_to_the_lowest_class():
    bank, labels = torch.tensor([[1.0, 0.1], [1.0, -0.1]]), torch.tensor([1, 0])
    for temperature in (None, 0.07):
        assert knn_predict(torch.tensor([[1.0, 0.0]]), bank, labels, 2, 2, temperature).tolist() == [0]


@pytest.mark.parametrize(
    ("labels", "k", "temperature", "line"),
    [
        ([0, 1], 3, 0.07, "k: got 3, expected at most 2"),
        ([0, 1], [1, 0], 0.07, "k: got 0, expected an integer >= 1"),
        ([0, 1], [], 0.07, "k: got no number of neighbors"),
        ([0, -1], 1, 0.07, r"bank_labels: got label -1, expected integers in \[0, 2\)"),
        ([0, 1], 1, 0.0, "temperature: got 0.0, expected a finite number > 0"),
    ],
)
def test_bad_input_is_one_line(labels, k, temperature, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        knn_predict(torch.ones(1, 2), torch.ones(2, 2), torch.tensor(labels), 2, k, temperature)


@pytest.mark.parametrize("temperature", [None, 0.1])
def test_votes_are_counted_in_blocks(monkeypatch, temperature):
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 1500)
    similarities = torch.rand(300, 5).sort(1, descending=True).values
    labels = torch.arange(1500).remainder(400).view(300, 5)
    expected = class_votes(similarities, labels, 400, temperature).argmax(1)
    with LargestTensor() as largest:
        assert torch.equal(voted(similarities, labels, 400, temperature), expected)
    assert largest.numel <= 1500
    assert len(voted(similarities[:0], labels[:0], 400, temperature)) == 0
