"""LiDAR of instances, from views in batches, against statistics of all views."""

import math

import pytest
import torch
from torchmetrics import MetricCollection

from nc_lightning.geometry import ClassStatistics, lidar
from nc_lightning.metrics import LiDAR

SAMPLES, VIEWS, D = 30, 4, 6


def views():
    """Views (SAMPLES, VIEWS, D) of samples that differ most in some directions, far from the origin."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(SAMPLES, 1, D, generator=generator) * torch.arange(1, D + 1)
    return 100 + samples + 0.5 * torch.randn(SAMPLES, VIEWS, D, generator=generator)


def expected(z, delta=1e-4):
    instances = torch.arange(len(z)).repeat_interleave(VIEWS)
    return lidar(ClassStatistics(len(z), D).update(z.flatten(0, 1), instances), delta).item()


def update(metric, z):
    """Add samples as a batch of concatenated views, numbered within the batch."""
    metric.update(z.transpose(0, 1).flatten(0, 1), torch.arange(len(z)).repeat(VIEWS))


def test_batches_give_the_value_of_all_views_at_once():
    z = views()
    metric = LiDAR(D)
    for batch in z.split(7):
        update(metric, batch)
    assert metric.compute().item() == pytest.approx(expected(z), rel=1e-10)
    assert 1 < expected(z) < D
    metric.reset()
    with pytest.warns(UserWarning, match="LiDAR: there is no sample"):
        assert math.isnan(metric.compute())


def test_states_are_merged_and_delta_is_not_part_of_them():
    z = views()
    a, b = LiDAR(D), LiDAR(D)
    update(a, z[:11])
    update(b, z[11:])
    a.merge_state(b)
    assert a.compute().item() == pytest.approx(expected(z), rel=1e-10)
    collection = MetricCollection({"small": LiDAR(D), "large": LiDAR(D, delta=9.0)})
    for batch in z.split(7):
        update(collection, batch)
    values = collection.compute()
    assert values["small"].item() == pytest.approx(expected(z), rel=1e-10)
    assert values["large"].item() == pytest.approx(expected(z, 9.0), rel=1e-10)
    assert [sorted(group) for group in collection.compute_groups.values()] == [["large", "small"]]


def test_numbers_of_views_may_differ():
    z, instances = torch.randn(9, D), torch.tensor([0, 0, 0, 0, 7, 7, -1, -1, -1])
    metric = LiDAR(D)
    metric.update(z, instances)
    groups = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    assert metric.compute().item() == pytest.approx(lidar(ClassStatistics(3, D).update(z, groups)).item(), rel=1e-10)


@pytest.mark.parametrize(
    ("z", "instances", "message"),
    [
        (torch.zeros(3, D), torch.tensor([4, 4, 5]), "instances: got a single view of 5, expected all views"),
        (torch.zeros(3, D), torch.tensor([4, 4]), r"instances: got shape \(2,\), expected \(3,\)"),
        (torch.zeros(2, 2), torch.tensor([4, 4]), "z: got feature dimension 2, expected feature_dim = 6"),
        (torch.full((2, D), math.nan), torch.tensor([4, 4]), "z: got nan in row 0"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(z, instances, message):
    metric = LiDAR(D)
    update(metric, views())
    before = metric.compute().item()
    with pytest.raises(ValueError, match=message):
        metric.update(z, instances)
    metric._computed = None
    assert metric.compute().item() == before
    with pytest.raises(ValueError, match="delta: got -1, expected a finite number > 0"):
        LiDAR(D, delta=-1)
