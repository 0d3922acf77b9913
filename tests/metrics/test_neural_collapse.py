import math
import pickle

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torchmetrics import MetricCollection

from nc_lightning.geometry import measure, simplex_etf
from nc_lightning.metrics import NC1, NC2, EffectiveRank, NeuralCollapse

TWO_LOOKS = ("within_class_variation", "ncc_accuracy")


def features(noise=0.1, num_classes=6, dim=8, n=90):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(num_classes, (n,), generator=generator)
    return simplex_etf(num_classes, dim)[labels] + noise * torch.randn(n, dim, generator=generator), labels


def assert_same(actual, expected, skip=()):
    for key, value in expected.items():
        if key not in skip:
            assert float(actual[key]) == pytest.approx(float(value), rel=1e-12, abs=1e-12, nan_ok=True), key


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_one_update_has_every_measure():
    z, labels = features()
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    metric.update(z, labels)
    assert set(metric.compute()) == set(measure(z, labels))
    assert_same(metric.compute(), measure(z, labels, 6))
    assert_same(metric.compute(), measure(z, labels, 6))  # computing changes nothing
    metric.reset()
    assert math.isnan(metric.compute()["nc1"])


def test_batches_in_any_order():
    z, labels = features()
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    for part in torch.randperm(90).split(13):
        metric.update(z[part], labels[part])
    assert_same(metric.compute(), measure(z, labels, 6), skip=TWO_LOOKS)
    assert all(math.isnan(metric.compute()[key]) for key in TWO_LOOKS)


def test_forward_returns_the_batch_and_keeps_the_whole():
    z, labels = features()
    metric = NC1(num_classes=6, feature_dim=8)
    batches = [metric(z[part], labels[part]).item() for part in torch.arange(90).split(30)]
    assert batches[0] == pytest.approx(measure(z[:30], labels[:30], 6)["nc1"])
    assert metric.compute().item() == pytest.approx(measure(z, labels, 6)["nc1"])


def test_a_collection_keeps_its_members_apart():
    z, labels = features()
    sizes = {"num_classes": 6, "feature_dim": 8}
    collection = MetricCollection({"rank": EffectiveRank(**sizes), "nc1": NC1(**sizes), "nc2": NC2(**sizes)})
    for part in torch.arange(90).split(30):
        collection.update(z[part], labels[part])
    values, expected = collection.compute(), measure(z, labels, 6)
    assert values["rank"].item() == pytest.approx(expected["effective_rank"])
    assert values["nc1"].item() == pytest.approx(expected["nc1"])
    assert values["nc2_etf"].item() == pytest.approx(expected["nc2_etf"])


def test_pickle_state_dict_and_precision():
    z, labels = features()
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    metric.update(z.float(), labels)
    assert metric.state_dict() == {}
    assert metric.half().means.dtype == torch.float64
    assert_same(pickle.loads(pickle.dumps(metric)).compute(), metric.compute())


def test_wrong_labels_are_noticed():
    z, labels = features(noise=0.01)
    metric = NC1(num_classes=6, feature_dim=8)
    metric.update(z, labels.roll(1))
    assert metric.compute() > 100 * measure(z, labels)["nc1"]


def test_bad_input():
    with pytest.raises(ValueError, match="feature_dim: got 0"):
        NeuralCollapse(num_classes=3, feature_dim=0)
    with pytest.raises(ValueError, match="labels: got label 3"):
        NC1(num_classes=3, feature_dim=2).update(torch.zeros(1, 2), torch.tensor([3]))


def _rank(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    z, labels = features()
    # Uneven shards, and the second process never sees class 0.
    mine = torch.nonzero((labels == 0) | (torch.arange(90) < 25)).squeeze(1)
    mine = mine if rank == 0 else torch.tensor([i for i in range(90) if i not in set(mine.tolist())])
    metric = NeuralCollapse(num_classes=6, feature_dim=8)
    for part in mine.split(11):
        metric.update(z[part], labels[part])
    values = metric.compute()
    metric.update(z[mine], labels[mine])  # syncing has left the state of this process alone
    assert metric.counts.sum() == 2 * len(mine)
    torch.save(values, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one(gloo, tmp_path):
    mp.spawn(_rank, args=(tmp_path / "store", tmp_path), nprocs=2)
    z, labels = features()
    for rank in (0, 1):
        assert_same(torch.load(tmp_path / f"{rank}.pt"), measure(z, labels, 6), skip=TWO_LOOKS)
