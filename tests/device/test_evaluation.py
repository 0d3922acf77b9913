"""The evaluation on the pretend device: the values of the CPU, also on a device without float64."""

import pytest
import torch

from nc_lightning.evaluation import evaluate_features, knn_scores, nearest_neighbors
from tests.on_both import same_on_both

LABELS = torch.arange(4).repeat(30)


def features():
    return torch.randn(4, 6)[LABELS] + 0.5 * torch.randn(120, 6)


@pytest.mark.parametrize("float64", [True, False])
def test_every_protocol(float64):
    def values():
        def of(train, test, labels):
            return evaluate_features((train, labels), (test, labels), 4, ks=(5, 50), shots=(1, 5)).values

        return of

    same_on_both(values, features(), features(), LABELS, gradient=False, float64=float64)


@pytest.mark.parametrize("float64", [True, False])
def test_neighbors_and_scores(float64):
    bank, queries = features(), features()[::7]
    same_on_both(lambda: lambda q, b: nearest_neighbors(q, b, 20), queries, bank, gradient=False, float64=float64)
    same_on_both(
        lambda: lambda q, b, y: knn_scores(q, b, y, 4, 20), queries, bank, LABELS, gradient=False, float64=float64
    )
