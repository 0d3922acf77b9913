import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nc_lightning.evaluation import evaluate_features
from tests.evaluation.digits import digits

KEYS = [
    "knn_20",
    "knn_200",
    "linear",
    "linear_weight_decay",
    "ncm",
    "few_shot_1",
    "few_shot_1_interval",
    "few_shot_5",
    "few_shot_5_interval",
    "few_shot_10",
    "few_shot_10_interval",
    "precision_at_1",
    "r_precision",
    "map_at_r",
]


def test_digits_have_the_accuracies_of_scikit_learn():
    train, test = digits()
    values, notes = evaluate_features(train, test, 10)
    assert list(values) == KEYS
    assert notes == []
    assert all(type(value) is float for value in values.values())
    inverse = 1 / (len(train[0]) * values["linear_weight_decay"])
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=inverse, max_iter=1000))
    assert values["linear"] == linear.fit(*train).score(*test)
    knn = KNeighborsClassifier(20, metric="cosine", weights=lambda d: np.exp(-d / 0.07))
    assert values["knn_20"] == knn.fit(*train).score(*test)
    assert values["few_shot_1"] < values["few_shot_5"] < values["few_shot_10"] < values["linear"]


def test_what_is_left_out_is_noted():
    train, test = digits(labels_only=[0, 1, 2])
    kept = (train[1] != 2) | (torch.arange(len(train[1])) % 40 == 0)
    train = train[0][kept], train[1][kept]
    train[1][:5] = -1
    test = torch.cat([test[0], test[0][:2]]), torch.cat([test[1], torch.tensor([7, 8])])
    values, notes = evaluate_features(train, test, 10, ks=(5, 5000))
    assert notes[0] == "train: 5 unlabeled samples left out"
    assert notes[1].startswith("test: 2 samples count as wrong, as the training set has none of 2 classes (7, 8)")
    assert notes[2].startswith("knn_5000: left out, the training set has only ")
    assert "few_shot_10: left out, the smallest training class has only " in "\n".join(notes)
    assert notes[-1] == "retrieval: 2 test samples left out, which have no other sample of their class"
    assert values["knn_5"] <= 1 - 2 / len(test[1])
    assert "knn_5000" not in values
    assert "few_shot_10" not in values
    assert "few_shot_1" in values


@pytest.mark.parametrize(
    ("train", "test", "line"),
    [
        ([3, 3], [3], "train: got the single class 3, expected samples of at least two classes"),
        ([-1, -1], [3], "train: got no labeled sample, expected at least one"),
        ([0, 1], [-1], "test: got no labeled sample, expected at least one"),
        ([0, 9], [1], r"train_labels: got label 9, expected integers in \[0, 4\)"),
    ],
)
def test_bad_labels_are_one_line(train, test, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        evaluate_features(
            (torch.ones(len(train), 2), torch.tensor(train)), (torch.ones(len(test), 2), torch.tensor(test)), 4
        )


def test_bad_features_are_one_line():
    labels = torch.arange(2)
    with pytest.raises(ValueError, match="^test: got nan in row 0, expected finite features$"):
        evaluate_features((torch.eye(2), labels), (torch.full((2, 2), torch.nan), labels), 2)
    with pytest.raises(ValueError, match="^queries: got 3 dimensions, expected 2 as in the bank$"):
        evaluate_features((torch.eye(2), labels), (torch.ones(2, 3), labels), 2)
