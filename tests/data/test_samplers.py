import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.data import ClassBalancedBatchSampler, RandomBatchSampler, StratifiedBatchSampler


@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6), copies=st.integers(2, 5), seed=st.integers(0, 99))
def test_each_balanced_batch_holds_every_class_equally_often(sizes, copies, seed):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    sampler = ClassBalancedBatchSampler(labels, batch_size=copies * len(sizes), seed=seed)
    batches = list(sampler)
    assert len(batches) == len(sampler) >= 1
    for batch in batches:
        assert labels[batch].bincount(minlength=len(sizes)).tolist() == [copies] * len(sizes)
    for c, n in enumerate(sizes):
        seen = [i for batch in batches for i in batch if labels[i] == c]
        for start in range(0, len(seen) - n + 1, n):  # a class is used up before any of its samples repeats
            assert len(set(seen[start : start + n])) == n


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: ClassBalancedBatchSampler(torch.arange(5).repeat(20), 10, seed),
        lambda seed: ClassBalancedBatchSampler(torch.arange(5).repeat(20), 12, seed, classes_per_batch=3),
        lambda seed: RandomBatchSampler(100, 10, seed),
        lambda seed: StratifiedBatchSampler(torch.arange(5).repeat(20), 10, seed),
    ],
)
def test_batches_are_reproducible_and_differ_by_epoch_and_seed(make):
    def batches(seed, epoch):
        sampler = make(seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert batches(0, 0) == batches(0, 0)
    assert len({str(batches(*key)) for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4
    state = torch.get_rng_state()
    batches(0, 0)
    assert torch.equal(state, torch.get_rng_state())


@given(
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=9),
    wanted=st.integers(2, 9),
    copies=st.integers(2, 4),
    seed=st.integers(0, 99),
)
def test_batches_of_some_classes_use_all_classes_equally_often(sizes, wanted, copies, seed):
    wanted = min(wanted, len(sizes))
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    sampler = ClassBalancedBatchSampler(labels, copies * wanted, seed, classes_per_batch=wanted)
    batches = list(sampler)
    times = torch.zeros(len(sizes), dtype=torch.int64)
    for batch in batches:
        counts = labels[batch].bincount(minlength=len(sizes))
        assert sorted(counts.tolist()) == [0] * (len(sizes) - wanted) + [copies] * wanted
        times += counts // copies
    assert times.max() - times.min() <= 1
    for c, n in enumerate(sizes):
        seen = [i for batch in batches for i in batch if labels[i] == c]
        for start in range(0, len(seen) - n + 1, n):
            assert len(set(seen[start : start + n])) == n


@given(sizes=st.lists(st.integers(1, 60), min_size=2, max_size=9), share=st.integers(1, 8), seed=st.integers(0, 99))
def test_stratified_batches_hold_each_class_in_proportion(sizes, share, seed):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(sizes)])
    batches = list(StratifiedBatchSampler(labels, -(-len(labels) // share), seed))
    for batch in batches:
        expected = len(batch) * torch.tensor(sizes) / len(labels)
        assert (labels[batch].bincount(minlength=len(sizes)) - expected).abs().max() <= 2
    seen = [i for batch in batches for i in batch]
    assert len(seen) == len(set(seen))


@pytest.mark.parametrize("ranks", [2, 3])
def test_processes_share_the_batches_of_one_process(ranks):
    labels = torch.arange(6).repeat(30)
    for make in (
        lambda size, **kwargs: ClassBalancedBatchSampler(labels, size, **kwargs),
        lambda size, **kwargs: ClassBalancedBatchSampler(labels, size, classes_per_batch=4, **kwargs),
        lambda size, **kwargs: RandomBatchSampler(len(labels), size, **kwargs),
        lambda size, **kwargs: StratifiedBatchSampler(labels, size, **kwargs),
    ):
        alone = list(make(24))
        shares = [list(make(24 // ranks, num_replicas=ranks, rank=rank)) for rank in range(ranks)]
        assert [len(share) for share in shares] == [len(alone)] * ranks
        for whole, *parts in zip(alone, *shares, strict=True):
            assert {len(part) for part in parts} == {24 // ranks}
            assert sorted(i for part in parts for i in part) == sorted(whole)
            if ranks == 2:
                assert all(labels[part].bincount().max() <= 12 for part in parts)


def test_a_sampler_resumes_in_mid_epoch():
    for sampler in (
        ClassBalancedBatchSampler(torch.arange(6).repeat(30), 12, classes_per_batch=3),
        RandomBatchSampler(180, 12),
        StratifiedBatchSampler(torch.arange(6).repeat(30), 12),
    ):
        sampler.set_epoch(4)
        assert list(sampler.batches(start=5)) == list(sampler)[5:]


def test_random_batches_hold_each_sample_at_most_once():
    seen = [i for batch in RandomBatchSampler(103, 10) for i in batch]
    assert len(seen) == len(set(seen)) == 100


def test_bad_arguments_are_refused():
    labels = torch.arange(10).repeat(3)
    for size in (25, 10):
        with pytest.raises(ValueError, match=f"batch_size: got {size}, expected a multiple of the 10 classes"):
            ClassBalancedBatchSampler(labels, batch_size=size)
    with pytest.raises(ValueError, match="batch_size: got 10 on 2 processes, expected a multiple of the 8 classes"):
        ClassBalancedBatchSampler(labels, 10, classes_per_batch=8, num_replicas=2, rank=0)
    with pytest.raises(ValueError, match="classes_per_batch: got 11, expected at most the 10 classes"):
        ClassBalancedBatchSampler(labels, 22, classes_per_batch=11)
    with pytest.raises(ValueError, match="batch_size: got 31, expected at most the 30 samples"):
        StratifiedBatchSampler(labels, 31)
    with pytest.raises(ValueError, match="labels: got no sample of class 1"):
        ClassBalancedBatchSampler(torch.tensor([0, 2]), batch_size=6)
    with pytest.raises(ValueError, match="batch_size: got 11, expected at most the 10 samples"):
        RandomBatchSampler(10, 11)


@pytest.mark.parametrize("wanted", [None, 3])
def test_balanced_batches_are_those_of_a_loop_over_classes(wanted):
    """The loop takes time for C passes over an epoch."""
    labels = torch.arange(91) % 7
    sampler = ClassBalancedBatchSampler(labels, 2 * (wanted or 7), seed=3, classes_per_batch=wanted)
    generator = sampler.generator()
    classes = sampler._classes(generator)
    table = torch.empty(classes.numel(), 2, dtype=torch.int64)
    for c in range(7):
        rows = torch.nonzero(classes.flatten() == c).flatten()
        drawn = []
        while len(drawn) < 2 * len(rows):
            drawn += sampler.members[c][torch.randperm(13, generator=generator)].tolist()
        table[rows] = torch.tensor(drawn[: 2 * len(rows)]).view(len(rows), 2)
    assert torch.equal(sampler.draw(sampler.generator()), table.view(sampler.num_batches, -1))
