import pytest
import torch

from benchmarks.counted_processes import counted
from benchmarks.work import Work
from nc_lightning.distributed.global_batch import Shares
from nc_lightning.losses import HSCLLoss
from nc_lightning.losses.engines.division import Division, elements_of
from nc_lightning.losses.engines.sorted_batch import sort_batch
from nc_lightning.losses.engines.tile_sizes import CPU
from tests.on_processes import on_processes

N, FEATURE_DIM, NUM_CLASSES = 8192, 128, 100


def sorted_batch(labels, past=None):
    return sort_batch(torch.tensor(labels), "other_classes", False, None if past is None else torch.tensor(past))


BATCHES = {
    "balanced": sorted_batch(list(range(100)) * 40),
    "one class has most samples": sorted_batch([0] * 3000 + list(range(1, 101)) * 10),
    "few samples": sorted_batch([0, 0, 1, 1, 2]),
    "a queue": sorted_batch(list(range(10)) * 100, past=list(range(10)) * 300),
}


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("name", BATCHES)
def test_every_tile_and_anchor_belongs_to_one_process(name, world_size):
    batch, n = BATCHES[name], len(BATCHES[name].order)
    parts = [Division(rank, world_size) for rank in range(world_size)]
    covered = torch.zeros(n, len(batch.label), dtype=torch.int)
    for part in parts:
        for rows, columns in part.tiles(batch, CPU.rows, CPU.columns):
            covered[rows, columns] += 1
    negative = batch.label[:n, None] != batch.label
    upper = torch.arange(n)[:, None] <= torch.arange(len(batch.label))
    assert (covered[negative & upper] == 1).all()
    assert covered.max() <= 1
    for slices in ([part.anchors(batch) for part in parts], [part.rows(batch) for part in parts]):
        assert [i for s in slices for i in range(s.start, s.stop)] == list(range(n))


@pytest.mark.parametrize("world_size", [2, 4, 8])
@pytest.mark.parametrize("name", ["balanced", "one class has most samples"])
def test_processes_have_equal_shares(name, world_size):
    batch = BATCHES[name]
    parts = [Division(rank, world_size) for rank in range(world_size)]
    tiles = [sum(map(elements_of, part.tiles(batch, CPU.rows, CPU.columns))) for part in parts]
    assert max(tiles) <= 1.1 * sum(tiles) / world_size
    sizes = batch.windows.end - batch.windows.first
    positives = [int(sizes[part.anchors(batch)].sum()) for part in parts]
    assert max(positives) <= 1.1 * sum(positives) / world_size


def test_without_shares_there_is_one_process():
    assert Division.among(None) == Division(0, 1)
    assert Division.among(Shares((3, 4, 5), 1)) == Division(1, 3)


def work(rank, world_size):
    """Operations of matrix products and bytes moved by kernels of a forward and backward pass."""
    torch.manual_seed(0)
    z, labels = torch.randn(N, FEATURE_DIM), torch.randint(NUM_CLASSES, (N,))
    z, labels = (t.tensor_split(world_size)[rank] for t in (z, labels))
    z.requires_grad_()
    with Work() as counted_work:
        HSCLLoss(beta=5.0, temperature=0.5)(z, labels).backward()
    return counted_work.flops, counted_work.bytes


@pytest.mark.slow
def test_each_of_four_processes_does_a_quarter_of_the_work(gloo):
    flops, moved = work(0, 1)
    for flops_of_one, moved_by_one in on_processes(4, work, 4):
        assert flops_of_one <= 1.1 * flops / 4
        assert moved_by_one <= 1.1 * moved / 4


@pytest.mark.parametrize("world_size", [2, 4, 64])
def test_features_and_gradients_are_received_once(world_size):
    n = 2048
    z, labels = torch.randn(n // world_size, FEATURE_DIM, requires_grad=True), torch.arange(n // world_size) % 2
    with counted(world_size) as traffic:
        HSCLLoss(beta=5.0, temperature=0.5)(z, labels).backward()
    features = 4 * n * FEATURE_DIM * (1 - 1 / world_size)
    assert traffic.received["all_to_all"] == features
    assert traffic.total <= 2.2 * features  # and a few numbers for each sample
