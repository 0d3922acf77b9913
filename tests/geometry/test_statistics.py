from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.geometry import ClassStatistics, simplex_etf


def two_pass(z, labels, num_classes):
    """The two-pass reference: means first, then deviations, class by class, in float64."""
    z = z.double()
    counts = torch.zeros(num_classes, dtype=torch.float64)
    means = torch.zeros(num_classes, z.shape[1], dtype=torch.float64)
    scatter = torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64)
    traces = torch.zeros(num_classes, dtype=torch.float64)
    for c in range(num_classes):
        members = z[labels == c]
        if len(members) == 0:
            continue
        counts[c] = len(members)
        means[c] = members.mean(0)
        for row in members - means[c]:
            scatter += torch.outer(row, row)
            traces[c] += row @ row
    return counts, means, scatter, traces


def state(stats):
    return stats.counts, stats.means, stats.scatter, stats.traces


def assert_same(actual, expected, tolerance=1e-12):
    for a, e in zip(actual, expected, strict=True):
        assert (a - e).abs().max() <= tolerance * e.abs().max(), (a, e)


@given(
    seed=st.integers(0, 2**31),
    log_noise=st.integers(-6, 0),
    offset=st.sampled_from([0.0, 5.0, 1e3]),
    cuts=st.lists(st.integers(1, 59), max_size=5),
)
def test_any_split_in_any_order_equals_the_two_pass_result(seed, log_noise, offset, cuts):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, (60,), generator=generator)
    noise = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    z = simplex_etf(5, 6)[labels] + offset + 10.0**log_noise * noise
    truth = two_pass(z, labels, 5)
    edges = [0, *sorted(cuts), 60]
    order = torch.randperm(60, generator=generator)
    parts = [order[a:b] for a, b in pairwise(edges)]

    streamed = ClassStatistics(5, 6)
    merged = ClassStatistics(5, 6)
    for part in parts:
        streamed.update(z[part], labels[part])
        merged.merge(ClassStatistics(5, 6).update(z[part], labels[part]))
    # The inputs are only this accurate: an offset of 1e3 rounds a deviation of 10^log_noise to eps * 1e3.
    tolerance = max(1e-12, 1e-14 * (1 + offset) / 10.0**log_noise)
    assert_same(state(streamed), truth, tolerance)
    assert_same(state(merged), truth, tolerance)


def test_nothing_cancels_near_collapse():
    # At a relative deviation of 1e-8, raw second moments in float64 have no correct digit.
    labels = torch.arange(10).repeat(40)
    z = simplex_etf(10, 12)[labels] + 5 + 1e-8 * torch.randn(400, 12, dtype=torch.float64)
    stats = ClassStatistics(10, 12)
    for part in torch.randperm(400).split(17):
        stats.update(z[part], labels[part])
    truth = two_pass(z, labels, 10)
    raw = (z.square().sum() - sum(40 * mean @ mean for mean in truth[1])).item()
    expected = truth[3].sum()
    assert abs(stats.traces.sum() - expected) < 1e-6 * expected
    assert abs(raw - expected) > 0.1 * expected, "the naive formula must fail here, else this test proves nothing"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_input_is_accumulated_in_float64(dtype):
    z = torch.randn(50, 4).to(dtype)
    labels = torch.randint(3, (50,))
    stats = ClassStatistics(3, 4).update(z, labels)
    assert_same(state(stats), two_pass(z, labels, 3), 1e-13)
    assert stats.scatter.dtype == torch.float64


def test_autocast_does_not_reach_the_products():
    z, labels = torch.randn(64, 16), torch.randint(3, (64,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        stats = ClassStatistics(3, 16).update(z, labels)
    assert_same(state(stats), two_pass(z, labels, 3), 1e-13)


def test_empty_batches_and_absent_classes_are_neutral():
    stats = ClassStatistics(4, 2).update(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert stats.num_samples == 0
    stats.update(torch.tensor([[1.0, 2.0]]), torch.tensor([2]))
    before = [t.clone() for t in state(stats)]
    stats.merge(ClassStatistics(4, 2))
    assert all(torch.equal(a, b) for a, b in zip(before, state(stats), strict=True))
    assert stats.present.tolist() == [False, False, True, False]


def test_a_bad_batch_changes_nothing():
    stats = ClassStatistics(2, 2).update(torch.ones(1, 2), torch.tensor([0]))
    bad = [
        (torch.ones(1, 3), torch.tensor([0]), "z: got feature dimension 3, expected feature_dim = 2"),
        (torch.full((1, 2), torch.nan), torch.tensor([0]), "z: got nan in row 0"),
        (torch.ones(1, 2), torch.tensor([2]), "labels: got label 2"),
    ]
    for z, labels, message in bad:
        with pytest.raises(ValueError, match=message):
            stats.update(z, labels)
    assert stats.num_samples == 1


def test_merging_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"other: got statistics of \(num_classes, feature_dim\) = \(3, 2\)"):
        ClassStatistics(2, 2).merge(ClassStatistics(3, 2))


def test_a_wrong_label_is_detected():
    labels = torch.arange(3).repeat(4)
    z = simplex_etf(3, 2)[labels]
    wrong = labels.clone()
    wrong[0] = 1
    assert not torch.allclose(
        ClassStatistics(3, 2).update(z, wrong).means, ClassStatistics(3, 2).update(z, labels).means
    )
