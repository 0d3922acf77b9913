import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.evaluation import retrieval
from nc_lightning.geometry import simplex_etf
from tests.evaluation.digits import digits


def slow(z, labels):
    """The definitions, query by query."""
    z = np.asarray(z, dtype=np.float64)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    values = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        r = sum(labels[j] == labels[i] for j in others)
        if r == 0:
            continue
        ranked = sorted(others, key=lambda j: (-float(z[i] @ z[j]), j))[:r]
        hits = [labels[j] == labels[i] for j in ranked]
        precisions = [sum(hits[: n + 1]) / (n + 1) if hits[n] else 0 for n in range(r)]
        values.append((hits[0], sum(hits) / r, sum(precisions) / r))
    return (*np.mean(values, axis=0), len(z) - len(values))


@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(1, 6))
def test_measures_are_those_of_a_loop(seed, n, num_classes):
    torch.manual_seed(seed)
    z, labels = torch.randn(n, 3, dtype=torch.float64), torch.randint(num_classes, (n,))
    if labels.bincount().max() < 2:
        labels[:] = 7
    assert retrieval(z, labels) == pytest.approx(slow(z, labels.tolist()), abs=1e-12)


def test_blocks_change_nothing(monkeypatch):
    z, labels = digits()[1]
    whole = retrieval(z, labels)
    monkeypatch.setattr("nc_lightning.evaluation.ranking.SIMILARITIES_AT_ONCE", 7 * len(z))
    monkeypatch.setattr("nc_lightning.evaluation.ranking.BANK_ROWS", 100)
    assert retrieval(z, labels) == pytest.approx(whole, abs=1e-9)


def test_digits_have_the_values_of_pytorch_metric_learning():
    """The numbers are those of its AccuracyCalculator, version 2.9.0, for the same features on the unit sphere."""
    expected = (0.987037037037037, 0.6176076908799809, 0.5630037124640064)
    assert retrieval(*digits()[1])[:3] == pytest.approx(expected, abs=1e-9)


def test_collapsed_classes_are_found_perfectly():
    labels = torch.arange(5).repeat(6)
    assert retrieval(simplex_etf(5, 4)[labels], labels) == (1, 1, 1, 0)


def test_queries_without_another_sample_are_counted():
    found = retrieval(torch.randn(4, 2), torch.tensor([0, 1, 1, 2]))
    assert found.left_out == 2
    found = retrieval(torch.randn(3, 2), torch.arange(3))
    assert found.left_out == 3
    assert math.isnan(found.map_at_r)


def test_unknown_labels_are_refused():
    with pytest.raises(ValueError, match="^z_labels: got label -1"):
        retrieval(torch.randn(2, 2), torch.tensor([0, -1]))
