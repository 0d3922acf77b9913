import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from nc_lightning.evaluation import WEIGHT_DECAYS, linear_probe
from nc_lightning.evaluation.linear import held_out_part
from tests.evaluation.digits import digits


def logistic_regression(x, y, weight_decay):
    model = LogisticRegression(C=1 / (len(x) * weight_decay), max_iter=1000)
    return make_pipeline(StandardScaler(), model).fit(x, y)


def test_digits_are_classified_as_by_scikit_learn():
    (bank, labels), (queries, _) = digits()
    probe = linear_probe(queries, bank, labels, 10)
    held_out = torch.from_numpy(held_out_part(labels.numpy(), seed=0))
    accuracies = [
        logistic_regression(bank[~held_out], labels[~held_out], w).score(bank[held_out], labels[held_out])
        for w in WEIGHT_DECAYS
    ]
    assert probe.weight_decay == WEIGHT_DECAYS[accuracies.index(max(accuracies))]
    peer = logistic_regression(bank, labels, probe.weight_decay)
    assert probe.predictions.tolist() == peer.predict(queries).tolist()
    assert probe.notes == []


def test_the_weight_decay_is_in_the_stated_units():
    """The gradient of the mean cross-entropy + lambda/2 ||W||^2 vanishes at the solution."""
    (bank, labels), _ = digits()
    model = logistic_regression(bank, labels, 0.1)
    z = torch.from_numpy(model[0].transform(bank.numpy()))
    weight = torch.from_numpy(model[1].coef_).requires_grad_()
    logits = z @ weight.T + torch.from_numpy(model[1].intercept_)
    (torch.nn.functional.cross_entropy(logits, labels) + 0.1 / 2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-3
    assert weight.detach().abs().max() > 0.05


def test_the_held_out_part_is_a_fifth_of_each_class():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [3]).numpy()
    held_out = held_out_part(labels, seed=0)
    assert [int(held_out[labels == c].sum()) for c in range(4)] == [10, 2, 1, 0]
    assert (held_out != held_out_part(labels, seed=1)).any()
    assert (held_out == held_out_part(labels, seed=0)).all()


def test_too_few_samples_to_hold_some_out_are_noted():
    probe = linear_probe(torch.eye(3), torch.eye(3), torch.arange(3), 3)
    assert probe.predictions.tolist() == [0, 1, 2]
    assert probe.weight_decay in WEIGHT_DECAYS
    assert probe.notes == ["linear: too few samples per class to hold some out, so the weight decay 0.001 is used"]


def test_a_solver_that_did_not_converge_is_noted(monkeypatch):
    monkeypatch.setattr("nc_lightning.evaluation.linear.MAX_ITERATIONS", 2)
    (bank, labels), (queries, _) = digits()
    (note,) = linear_probe(queries[:3], bank[:300], labels[:300], 10).notes
    assert note.startswith("linear: L-BFGS did not converge in 2 iterations (weight decay ")


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="^bank_labels: got the single class 1, expected at least two"):
        linear_probe(torch.ones(1, 2), torch.ones(3, 2), torch.ones(3, dtype=torch.int64), 2)
