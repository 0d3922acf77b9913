"""State made under `torch.inference_mode` can be updated outside it, as between validation and training."""

import copy
import inspect
import itertools
import pickle
from contextlib import nullcontext

import pytest
import torch
from torchmetrics import Metric, MetricCollection

import nc_lightning.metrics
from nc_lightning.geometry import CenterDistances, ClassStatistics, simplex_etf

Z = simplex_etf(4, 3)[torch.arange(4).repeat(5)] + 0.1 * torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4).repeat(5)
METRICS = [m for m in vars(nc_lightning.metrics).values() if inspect.isclass(m) and issubclass(m, Metric)]
CONTEXTS = {"normal": nullcontext, "inference": torch.inference_mode}


def make(metric):
    arguments = {"num_classes": 4, "feature_dim": 3, "classifier": torch.nn.Linear(3, 4)}
    arguments["centers"] = ClassStatistics(4, 3).update(Z, LABELS)
    taken = inspect.signature(metric).parameters
    torch.manual_seed(0)
    return metric(**{name: value for name, value in arguments.items() if name in taken})


def flat(value):
    return torch.stack([v.flatten()[0] for v in value.values()]) if isinstance(value, dict) else value


@pytest.mark.some(4)
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
def test_every_order_of_modes_gives_the_same_value(metric):
    reference = make(metric)
    reference.update(Z[:8], LABELS[:8])
    reference.update(Z[8:], LABELS[8:])
    expected = flat(reference.compute())
    assert not expected.isnan().all()
    renew = {
        "reset": lambda m: m.reset() or m,
        "to": lambda m: m.to("cpu"),
        "pickle": lambda m: pickle.loads(pickle.dumps(m)),
        "deepcopy": copy.deepcopy,
    }
    for steps in itertools.product(CONTEXTS, repeat=5):
        for how, change in renew.items():
            modes = iter(steps)
            with CONTEXTS[next(modes)]():
                given = make(metric)
            with CONTEXTS[next(modes)]():
                given = change(given)
            with CONTEXTS[next(modes)]():
                given.update(Z[:8], LABELS[:8])
            with CONTEXTS[next(modes)]():
                given.update(Z[8:].requires_grad_(), LABELS[8:])
            with CONTEXTS[next(modes)]():
                value = flat(given.compute())
            assert torch.equal(value.detach(), expected.detach()), (steps, how)


def test_merged_states_and_collections_work_across_modes():
    with torch.inference_mode():
        one, other = make(nc_lightning.metrics.NC1), make(nc_lightning.metrics.NC1)
        other.update(Z[:8], LABELS[:8])
        both = MetricCollection([make(nc_lightning.metrics.NC1), make(nc_lightning.metrics.EffectiveRank)])
        both.update(Z[:8], LABELS[:8])
    one.update(Z[8:], LABELS[8:])
    one.merge_state(other)
    both.update(Z[8:], LABELS[8:])
    both(Z, LABELS)
    assert one.compute().item() == pytest.approx(flat_nc1(), rel=1e-12)
    assert len(both.compute_groups) == 1
    both.reset()
    both.update(Z, LABELS)
    assert both.compute()["NC1"].item() == pytest.approx(flat_nc1(), rel=1e-12)


def flat_nc1():
    metric = make(nc_lightning.metrics.NC1)
    metric.update(Z, LABELS)
    return metric.compute().item()


def test_statistics_work_across_modes():
    with torch.inference_mode():
        stats, seen = ClassStatistics(4, 3), CenterDistances(ClassStatistics(4, 3).update(Z, LABELS))
    stats.update(Z[:8], LABELS[:8])
    with torch.inference_mode():
        more = ClassStatistics(4, 3).update(Z[8:], LABELS[8:])
    stats.merge(more)
    assert torch.allclose(stats.means, ClassStatistics(4, 3).update(Z, LABELS).means)
    assert seen.update(Z, LABELS).counts.tolist() == [5, 5, 5, 5]
