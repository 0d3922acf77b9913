import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import simplex_etf, unit_ball
from nc_lightning.losses import Exponential, Threshold, diagnostics, similarity_histograms


def by_loops(z, labels, beta, negatives, edges):
    """Positives, negatives and hardened negatives, pair by pair."""
    bins = len(edges) - 1
    counts = [[0.0] * bins for _ in range(3)]

    def bin_of(s):
        return min(bins - 1, max(0, math.floor((s - edges[0]) / (edges[-1] - edges[0]) * bins)))

    n = len(z)
    for i in range(n):
        s = [float((z[i] * z[j]).sum()) for j in range(n)]
        others = [j for j in range(n) if (j != i if negatives == "all" else labels[j] != labels[i])]
        total = sum(math.exp(beta * s[j]) for j in others)
        for j in range(n):
            if j != i and labels[j] == labels[i]:
                counts[0][bin_of(s[j])] += 1
        for j in others:
            counts[1][bin_of(s[j])] += 1
            counts[2][bin_of(s[j])] += math.exp(beta * s[j]) / total
    return [torch.tensor(c, dtype=torch.float64) / max(sum(c), 1e-300) for c in counts]


@given(
    n=st.integers(2, 25),
    classes=st.integers(1, 5),
    beta=st.floats(0, 20),
    negatives=st.sampled_from(["other_classes", "all"]),
    at_once=st.sampled_from([1, 40, 2**22]),
)
def test_histograms_count_the_same_pairs_as_loops(n, classes, beta, negatives, at_once):
    torch.manual_seed(n)
    z, labels = unit_ball(torch.randn(n, 3)), torch.randint(classes, (n,))
    before, diagnostics.ELEMENTS_AT_ONCE = diagnostics.ELEMENTS_AT_ONCE, at_once
    try:
        seen = similarity_histograms(z, labels, Exponential(beta), negatives, num_bins=7)
    finally:
        diagnostics.ELEMENTS_AT_ONCE = before
    expected = by_loops(z, labels, beta, negatives, seen.edges.tolist())
    for got, wanted in zip(seen[1:], expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-6)


def test_wrong_labels_are_detected():
    labels = torch.arange(4).repeat(5)
    right = similarity_histograms(simplex_etf(4, 3)[labels], labels)
    wrong = similarity_histograms(simplex_etf(4, 3)[labels], torch.arange(4).repeat_interleave(5))
    assert right.positives[-1] == pytest.approx(1.0)
    assert wrong.positives[-1] < 0.5


def test_a_sample_of_anchors_represents_all():
    torch.manual_seed(0)
    z, labels = unit_ball(torch.randn(600, 5)), torch.arange(600) % 6
    every = similarity_histograms(z, labels, Threshold(0.1), num_bins=10)
    some = similarity_histograms(z, labels, Threshold(0.1), num_bins=10, max_anchors=100)
    for one, other in zip(every[1:], some[1:], strict=True):
        assert float((one - other).abs().sum()) < 0.1


def test_without_hardening_there_are_no_hardened_negatives():
    assert similarity_histograms(torch.eye(4), torch.arange(4) % 2).hardened is None


def test_features_outside_the_ball_have_a_wider_range():
    seen = similarity_histograms(3 * torch.eye(4), torch.zeros(4, dtype=torch.long))
    assert seen.edges[[0, -1]].tolist() == [-9.0, 9.0]
    assert float(seen.positives.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_features_have_empty_histograms(n):
    seen = similarity_histograms(torch.randn(n, 3), torch.zeros(n, dtype=torch.long), Exponential(1.0))
    assert all(float(share.sum()) == 0 for share in seen[1:3])


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="labels: got"):
        similarity_histograms(torch.randn(4, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="num_bins: got 0"):
        similarity_histograms(torch.randn(4, 2), torch.zeros(4, dtype=torch.long), num_bins=0)
    with pytest.raises(TypeError, match="z: got"):
        similarity_histograms(torch.ones(4, 2, dtype=torch.long), torch.zeros(4, dtype=torch.long))
