from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from nc_lightning.evaluation import nearest_neighbors, neighbors
from nc_lightning.geometry import simplex_etf
from tests.evaluation.digits import digits


def slow(queries, bank, k):
    """All cosines in float64, sorted by cosine, then by index."""
    normalized = [np.asarray(z) / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12) for z in (queries, bank)]
    found = []
    for query in normalized[0]:
        cosines = [float(query @ row) for row in normalized[1]]
        found.append(sorted(range(len(cosines)), key=lambda i: (-cosines[i], i))[:k])
    return found


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbors, "BANK_ROWS", 64)
    monkeypatch.setattr(neighbors, "QUERY_ROWS", 16)
    monkeypatch.setattr(neighbors, "CHUNK", 4)


@pytest.mark.parametrize("k", [1, 3, 64, 65, 200])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_find_what_a_loop_finds(small_blocks, k, dtype):
    queries, bank = (
        torch.randn(37, 5, dtype=torch.float64).to(dtype),
        torch.randn(200, 5, dtype=torch.float64).to(dtype),
    )
    similarities, indices = nearest_neighbors(queries, bank, k)
    assert indices.tolist() == slow(queries.double(), bank.double(), k)
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], bank[indices], dim=2)
    torch.testing.assert_close(similarities, cosines)
    assert similarities.dtype == dtype


@given(st.integers(0, 10**6), st.integers(1, 150), st.integers(1, 90), st.integers(1, 4))
def test_equal_similarities_come_in_the_order_of_the_bank(seed, n, k, levels):
    torch.manual_seed(seed)
    level, k = torch.randint(levels, (n,)), min(k, n)  # few different rows: many are equal
    bank = torch.stack([(level * 0.5).cos(), (level * 0.5).sin()], 1)
    with mock.patch.multiple(neighbors, BANK_ROWS=32, QUERY_ROWS=1, CHUNK=2):
        _, indices = nearest_neighbors(torch.tensor([[1.0, 0.0], [-1.0, 0.2]]), bank, k)
    assert indices[0].tolist() == level.argsort(stable=True)[:k].tolist()
    assert indices[1].tolist() == level.argsort(stable=True, descending=True)[:k].tolist()


def test_collapsed_features_find_the_first_of_their_class(small_blocks):
    labels = torch.arange(4).repeat(50)
    z = simplex_etf(4, 3).double()[labels]
    _, indices = nearest_neighbors(z[:4], z, 10)
    assert indices.tolist() == [[c + 4 * i for i in range(10)] for c in range(4)]


def test_digits_have_the_neighbors_of_scikit_learn():
    (bank, _), (queries, _) = digits()
    similarities, indices = nearest_neighbors(queries, bank, 20)
    distances, expected = (
        NearestNeighbors(n_neighbors=20, metric="cosine", algorithm="brute").fit(bank).kneighbors(queries)
    )
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-12)
    assert (indices.numpy() == expected).mean() > 0.9999


def test_half_precision_and_zero_rows():
    bank = torch.tensor([[0.0, 0.0], [-1.0, 0.0], [60000.0, 60000.0]], dtype=torch.float16)
    similarities, indices = nearest_neighbors(torch.tensor([[1.0, 0.0]], dtype=torch.float16), bank, 3)
    assert indices.tolist() == [[2, 0, 1]]
    assert similarities.tolist() == [pytest.approx([0.5**0.5, 0.0, -1.0])]


@pytest.mark.parametrize(
    ("queries", "bank", "k", "line"),
    [
        ((2, 3), (4, 3), 5, "k: got 5, expected at most 4, the number of samples in the bank"),
        ((2, 3), (4, 3), 0, "k: got 0, expected an integer >= 1"),
        ((2, 3), (4, 2), 1, "queries: got 3 dimensions, expected 2 as in the bank"),
        ((0, 3), (4, 3), 1, "queries: got no samples, expected at least one"),
    ],
)
def test_bad_input_is_one_line(queries, bank, k, line):
    with pytest.raises(ValueError, match=f"^{line}$"):
        nearest_neighbors(torch.ones(queries), torch.ones(bank), k)


def test_features_that_are_not_finite_are_named():
    bank = torch.ones(3, 2)
    bank[2, 0] = torch.inf
    with pytest.raises(ValueError, match="^bank: got inf in row 2, expected finite features$"):
        nearest_neighbors(torch.ones(1, 2), bank, 1)
    huge = torch.full((1, 2), 3e38)  # finite, although its sum is not
    assert nearest_neighbors(huge, torch.ones(1, 2), 1)[1].tolist() == [[0]]
