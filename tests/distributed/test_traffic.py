"""What a process receives does not grow with the square of the number of processes, nor with that times the classes."""

import pytest
import torch

from benchmarks.counted_processes import counted
from nc_lightning.callbacks.measurement.passes import _add_up, _of_all_processes
from nc_lightning.callbacks.online_knn import KNNReader
from nc_lightning.distributed.collectives import add_over_processes
from nc_lightning.geometry import ClassStatistics
from nc_lightning.losses import HSCLLoss
from nc_lightning.metrics import NeuralCollapse
from tests.on_processes import on_processes

C, D = 40, 6
STATE = 8 * (C * D + D * D + 2 * C)
"""Bytes of class statistics."""
MANY = pytest.mark.parametrize("world_size", [2, 64, 1024])


def statistics():
    z = torch.randn(3 * C, D, generator=torch.Generator().manual_seed(0))
    return ClassStatistics(C, D).update(z, torch.arange(3 * C) % C)


def test_all_processes_are_counted():
    with counted(8) as traffic:
        assert add_over_processes(torch.ones(100)).sum() == 100
    assert traffic.received == {"all_reduce": 2 * 7 / 8 * 400}


@MANY
def test_the_monitor_receives_statistics_once(world_size):
    stats = statistics()
    with counted(world_size) as traffic:
        _of_all_processes(stats, torch.device("cpu"))
        _add_up(stats.counts.clone(), stats.traces.clone())
    assert traffic.received["all_reduce"] <= 2 * (STATE + 16 * C)
    assert traffic.received["all_gather_object"] <= 300 * world_size


@MANY
def test_a_metric_receives_its_state_once(world_size):
    metric = NeuralCollapse(C, D)
    metric.update(torch.randn(3 * C, D), torch.arange(3 * C) % C)
    with counted(world_size) as traffic:
        metric.compute()
    assert 0 < traffic.total <= 2 * metric.state.nbytes


@MANY
def test_the_loss_receives_the_global_batch(world_size):
    n = 4096 // world_size
    z, labels = torch.randn(n, D, requires_grad=True), torch.arange(n) % 2
    with counted(world_size) as traffic:
        HSCLLoss(beta=2.0)(z, labels).backward()
    assert 0 < traffic.total <= 4096 * (4 * D + 64) + 100 * world_size


@pytest.mark.parametrize("world_size", [1, 2, 16, 64])
def test_nearest_neighbors_of_a_block_do_not_grow_with_the_square(monkeypatch, world_size):
    """A process receives the k neighbors of each query from each process."""
    monkeypatch.setattr("nc_lightning.callbacks.online_knn.QUERIES", 512)
    reader = KNNReader(("z",), k=4, temperature=0.1, warn=lambda _: None)
    z, labels = torch.randn(20, D), torch.arange(20) % 5
    for name in ("train", "val"):
        reader.update(name, {"z": z}, labels)
    largest = []
    with counted(world_size) as traffic:
        traffic.add = lambda name, size: largest.append(size)
        reader.compute()
    assert max(largest, default=0) <= max(512, world_size**2) * 4 * 16 + 2000 * world_size


def test_queries_are_received_once():
    reader = KNNReader(("z",), k=4, temperature=0.1, warn=lambda _: None)
    reader.update("train", {"z": torch.randn(9, 500)}, torch.arange(9))
    reader.update("val", {"z": torch.randn(200, 500)}, torch.arange(200) % 9)
    with counted(64) as traffic:  # one query of each process at a time
        reader.compute()
    assert traffic.total <= 1.5 * 64 * 200 * (4 * 500 + 64 * 4 * 12)


def test_processes_without_samples_take_part(gloo):
    for counts, scatter in on_processes(2, _measured):
        whole = statistics()
        assert torch.equal(counts, whole.counts)
        assert torch.allclose(scatter, whole.scatter, rtol=1e-12)


def _measured(rank):
    stats = _of_all_processes(statistics() if rank else None, torch.device("cpu"))
    assert _of_all_processes(None, torch.device("cpu")) is None
    other = ClassStatistics(C - rank, D)
    with pytest.raises(ValueError, match=rf"z: got statistics .* \({C - 1}, {D}\) and \({C}, {D}\)"):
        _of_all_processes(other, torch.device("cpu"))
    return stats.counts, stats.scatter
