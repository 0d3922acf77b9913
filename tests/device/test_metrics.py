"""Every metric equals its CPU result on the device bit for bit, with and without float64."""

import copy

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import nn
from torchmetrics import MetricCollection

from nc_lightning import metrics
from nc_lightning.data import DigitsDataModule
from nc_lightning.geometry import ClassStatistics, simplex_etf
from tests.on_both import on_both
from tests.pretend_device import NAME, Machine
from tests.pretend_run import PretendAccelerator, PretendSingleDevice

C, D, N = 5, 6, 31
LABELS = torch.arange(N) % C
Z = simplex_etf(C, D).float()[LABELS] + 0.3 * torch.randn(N, D, generator=torch.Generator().manual_seed(0))
WEIGHT, BIAS = torch.randn(C, D, generator=torch.Generator().manual_seed(1)), torch.linspace(-1, 1, C)
CENTERS = ClassStatistics(C, D).update(Z, LABELS)


def make(name, device="cpu"):
    """A metric with all its arguments; the classifier is on the device, the centers are not."""
    if name == "Uniformity":
        return metrics.Uniformity()
    if name == "LiDAR":
        return metrics.LiDAR(D)
    classifier = nn.Linear(D, C)
    classifier.load_state_dict({"weight": WEIGHT, "bias": BIAS})
    more = {"NC3": ["classifier"], "NC4": ["classifier", "centers"], "NeuralCollapse": ["classifier", "centers"]}
    given = {"classifier": classifier.to(device), "centers": CENTERS}
    return getattr(metrics, name)(C, D, dataset_size=30, **{key: given[key] for key in more.get(name, [])})


def parts(z, labels):
    return list(zip(z.split(16), labels.split(16), strict=True))


def moved_first(name, z, labels):
    metric = make(name, z.device).to(z.device)
    for part in parts(z, labels):
        metric.update(*part)
    return metric.compute()


def moved_between(name, z, labels):
    """Move a metric with a state to the device and back, with a cached value, and update it after a reset."""
    metric = make(name, z.device)
    first, *others = parts(z, labels)
    metric.update(first[0].cpu(), first[1].cpu())
    metric = metric.to(z.device)
    for part in others:
        metric.update(*part)
    values = leaves(metric.compute())
    metric = copy.deepcopy(metric.cpu()).to(z.device)
    values += leaves(metric.compute())
    metric.reset()
    metric.update(z, labels)
    return [*values, *leaves(metric.compute())]


def called(name, z, labels):
    metric = make(name, z.device).to(z.device)
    values = [value for part in parts(z, labels) for value in leaves(metric(*part))]
    return [*values, *leaves(metric.to(z.device).compute())]


def merged(name, z, labels):
    metric = make(name, z.device).to(z.device)
    other = metric.clone()
    metric.update(z[:20], labels[:20])
    other.update(z[20:], labels[20:])
    metric.merge_state(other)
    return metric.compute()


def in_a_collection(name, z, labels):
    others = {"two": metrics.NC2(C, D), "three": metrics.Spectrum(C, D, dataset_size=30)}
    collection = MetricCollection({"one": make(name, z.device), **others}).to(z.device)
    for part in parts(z, labels):
        collection.update(*part)
    return collection.compute()


def leaves(value):
    return list(value.values()) if isinstance(value, dict) else [value]


@pytest.mark.parametrize("float64", [True, False])
@pytest.mark.parametrize("use", [moved_first, moved_between, called, merged, in_a_collection])
@pytest.mark.parametrize("name", metrics.__all__)
def test_values_equal_those_of_the_cpu(name, use, float64):
    (cpu, device), _ = on_both(lambda: lambda *x: use(name, *x), Z, LABELS, gradient=False, float64=float64)
    assert {value.dtype for value in cpu} == {torch.float64}
    torch.testing.assert_close(device, cpu, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("float64", "place"), [(True, NAME), (False, "cpu")])
@pytest.mark.parametrize("name", metrics.__all__)
def test_metric_states_are_kept_where_float64_exists(name, float64, place):
    with Machine(float64):
        metric = make(name, NAME).to(NAME)
        metric.update(Z.to(NAME), LABELS.to(NAME))
        for value in metric.half().metric_state.values():
            tensor = value[0] if isinstance(value, list) else value
            assert (tensor.device.type, tensor.dtype) == (place, torch.float64)
        metric.reset()
        assert metric.device.type == place


# Host waits of an update with a valid batch, in addition to the one that validates it.
ONE_LOOK = ("item", "checks.py check_values")
MAY_WAIT = {
    ONE_LOOK: 2,
    ("_unique2", "geometry/statistics.py update"): 1,
    ("item", "metrics/base.py update"): 1,  # the number of samples offered, with a dataset_size
    # NC4 and NeuralCollapse read the current classifier and move centers that are on another device
    ("item", "checks.py check_finite"): 2,
    ("item", "metrics/lidar.py update"): 1,
    ("_unique2", "metrics/lidar.py update"): 1,
    ("item", "geometry/centers.py __init__"): 1,
    ("nonzero", "geometry/centers.py _candidates"): 1,
    ("from the CPU", "geometry/statistics.py <genexpr>"): 4,
}


@pytest.mark.parametrize("name", metrics.__all__)
def test_an_update_synchronizes_as_often_as_documented(name):
    with Machine() as machine:
        metric, z, labels = make(name, NAME).to(NAME), Z.to(NAME), LABELS.to(NAME)
        metric.update(z[:20], labels[:20])
        machine.phase = "update"
        metric.update(z[20:], labels[20:])
        machine.phase = ""
    seen = machine.waits_in("update")
    assert {place: n for place, n in seen.items() if n > MAY_WAIT.get(place, 0)} == {}
    if name not in ("NC4", "NeuralCollapse"):
        assert sum(seen.values()) <= (4 if name == "LiDAR" else 3)  # which instances there are, and their means


class WithMetrics(LightningModule):
    """A user module: a linear layer, metrics that Lightning logs and resets, and one logged by value."""

    def __init__(self):
        super().__init__()
        self.layer, self.nc1, self.spread = nn.Linear(64, 9), metrics.NC1(10, 9), metrics.Uniformity()
        self.many = MetricCollection([metrics.NC2(10, 9), metrics.EffectiveRank(10, 9)])

    def training_step(self, batch, _):
        z = self.layer(batch[0].flatten(1))
        self.nc1.update(z, batch[1])
        self.log("nc1", self.nc1, on_step=False, on_epoch=True)
        self.log("step", metrics.EffectiveRank(10, 9).to(self.device)(z, batch[1]))
        self.spread.update(z)
        return nn.functional.cross_entropy(z[:, :8], batch[1] % 8)

    def on_train_epoch_end(self):
        self.log("uniformity", self.spread.compute())
        self.spread.reset()

    def validation_step(self, batch, _):
        self.many.update(self.layer(batch[0].flatten(1)), batch[1])

    def on_validation_epoch_end(self):
        self.log_dict(self.many.compute())
        self.many.reset()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(device, float64):
    seed_everything(0, verbose=False)
    model = WithMetrics()
    on_device = {"accelerator": PretendAccelerator(), "strategy": PretendSingleDevice()}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    with Machine(float64):
        trainer = Trainer(
            max_epochs=2,
            enable_checkpointing=False,
            limit_train_batches=2,
            **quiet,
            **({"accelerator": "cpu"} if device == "cpu" else {"devices": 1, **on_device}),
        )
        trainer.fit(model, DigitsDataModule(batch_size=250))
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("float64", [True, False])
def test_metric_values_are_on_the_device_of_the_metric(float64):
    """Otherwise processes could not average them, since NCCL does not support CPUs."""
    with Machine(float64):
        z, labels = torch.randn(20, 9).to(NAME), (torch.arange(20) % 10).to(NAME)
        metric, collection = metrics.NC1(10, 9).to(NAME), MetricCollection([metrics.NC2(10, 9)]).to(NAME)
        values = [metric(z, labels), metric.compute(), *collection(z, labels).values()]
        assert {value.device.type for value in values} == {NAME if float64 else "cpu"}


@pytest.mark.parametrize("float64", [True, False])
def test_a_module_may_log_metrics_on_the_device(float64):
    values = fit(NAME, float64)
    assert set(values) == {"nc1", "step", "uniformity", "EffectiveRank", *metrics.NC2.keys}
    assert values == pytest.approx(fit("cpu", True), rel=1e-6)
