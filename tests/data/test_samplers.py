import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.data import ClassBalancedBatchSampler, RandomBatchSampler


@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6), copies=st.integers(2, 5), seed=st.integers(0, 99))
def test_every_class_equally_often_in_each_batch(sizes, copies, seed):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    sampler = ClassBalancedBatchSampler(labels, batch_size=copies * len(sizes), seed=seed)
    batches = list(sampler)
    assert len(batches) == len(sampler) >= 1
    for batch in batches:
        assert labels[batch].bincount(minlength=len(sizes)).tolist() == [copies] * len(sizes)
    for c, n in enumerate(sizes):
        seen = [i for batch in batches for i in batch if labels[i] == c]
        for start in range(0, len(seen) - n + 1, n):  # a class is walked through before any of it comes again
            assert len(set(seen[start : start + n])) == n


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: ClassBalancedBatchSampler(torch.arange(5).repeat(20), 10, seed),
        lambda seed: RandomBatchSampler(100, 10, seed),
    ],
)
def test_reproducible_and_different_every_epoch_and_seed(make):
    def batches(seed, epoch):
        sampler = make(seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(0, 0) == batches(0, 0)
    assert len({str(batches(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4
    state = torch.get_rng_state()
    batches(0, 0)
    assert torch.equal(state, torch.get_rng_state())


def test_random_batches_hold_each_sample_at_most_once():
    seen = [i for batch in RandomBatchSampler(103, 10) for i in batch]
    assert len(seen) == len(set(seen)) == 100


def test_bad_arguments():
    labels = torch.arange(10).repeat(3)
    for size in (25, 10):
        with pytest.raises(ValueError, match=f"batch_size: got {size}, expected a multiple of the 10 classes"):
            ClassBalancedBatchSampler(labels, batch_size=size)
    with pytest.raises(ValueError, match="labels: got no sample of class 1"):
        ClassBalancedBatchSampler(torch.tensor([0, 2]), batch_size=6)
    with pytest.raises(ValueError, match="batch_size: got 11, expected at most the 10 samples"):
        RandomBatchSampler(10, 11)
