"""Each sample is measured once and in order, with every kind of loader."""

import functools

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe
from nc_lightning.callbacks.measurement import passes as measurement
from nc_lightning.callbacks.measurement.trained_samples import spread
from nc_lightning.callbacks.prediction_writer import PredictionWriter
from nc_lightning.data import ClassBalancedBatchSampler, DigitsDataModule
from nc_lightning.encoders import MLP
from nc_lightning.geometry import measure
from tests.on_processes import on_processes

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
N = 43
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 4


class Theirs(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.seen = []

    def forward(self, x):
        if not self.training:
            self.seen.append(x)
        return x

    def training_step(self, batch, batch_idx):
        batch = batch[0] if isinstance(batch, list) and isinstance(batch[0], (list, tuple)) else batch
        batch = batch["a"] if isinstance(batch, dict) else batch
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Stream(IterableDataset):
    def __init__(self, endless=False):
        self.endless = endless

    def __iter__(self):
        yield from zip(X, Y, strict=True)
        for _ in range(10**5):  # reading all of it is an error, and not a test that never ends
            if not self.endless:
                return
            yield X[0], Y[0]
        raise AssertionError("an endless stream was read to its end")


class Rows(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, index):
        return X[index], Y[index]


class Batches:
    """A plain iterable, without a length."""

    def __iter__(self):
        return iter(zip(X.split(10), Y.split(10), strict=True))


class Shuffled(DataLoader):
    def __iter__(self):
        return ((x, y) for x, y in super().__iter__())


class WholeBatches(Rows):
    """Each index is a batch."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        if index >= 5:
            raise IndexError
        return X[10 * index : 10 * index + 10], Y[10 * index : 10 * index + 10]


def sampler():
    return ClassBalancedBatchSampler(Y, batch_size=8)


def stack(rows):
    x, y = zip(*rows, strict=True)
    return torch.stack(x), torch.stack(y)


SET = TensorDataset(X, Y)
LOADERS = {
    "shuffled": lambda: DataLoader(SET, 10, shuffle=True, drop_last=True),
    "epoch sampler": lambda: DataLoader(SET, sampler=sampler(), batch_size=None),
    "epoch sampler, rows": lambda: DataLoader(Rows(), sampler=sampler(), batch_size=None),
    "batch sampler": lambda: DataLoader(SET, batch_sampler=sampler()),
    "tensors of indices": lambda: DataLoader(SET, sampler=torch.randperm(N).split(9), batch_size=None),
    "batches by index": lambda: DataLoader(WholeBatches(), shuffle=True, batch_size=None),
    "single rows": lambda: DataLoader(SET, 1, shuffle=True),
    "collate": lambda: DataLoader(list(zip(X, Y, strict=True)), 10, shuffle=True, collate_fn=stack),
    "stream": lambda: DataLoader(Stream(), 10),
    "persistent workers": lambda: DataLoader(SET, 10, shuffle=True, num_workers=1, persistent_workers=True),
    "subclass": lambda: Shuffled(SET, 10),
    "iterable": Batches,
    "list": lambda: [DataLoader(SET, 10, shuffle=True)],
    "dict": lambda: {"a": DataLoader(SET, 10, shuffle=True)},
    "combined": lambda: CombinedLoader({"a": DataLoader(SET, 10, shuffle=True)}, "min_size"),
}


def fit(loader, val=None, module=None, monitor=None, **options):
    monitor = monitor or GeometryMonitor(num_classes=4)
    module = module or Theirs()
    trainer = Trainer(callbacks=[monitor], **{**QUIET, "max_epochs": 2, **options})
    trainer.fit(module, loader, val)
    return module, monitor


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LOADERS)
def test_each_sample_is_measured_once_and_in_order(name):
    module, monitor = fit(LOADERS[name]())
    assert torch.equal(torch.cat(module.seen[1:]), X.repeat(2, 1))  # in two epochs, after the check of the first batch
    assert monitor.results["train"] == pytest.approx(measure(X, Y), rel=1e-9, abs=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_two_loaders_are_read_in_sequence():
    loader = [DataLoader(TensorDataset(X[:20], Y[:20]), 10, shuffle=True), DataLoader(TensorDataset(X[20:], Y[20:]), 7)]
    module, _ = fit(loader, max_epochs=1)
    assert torch.equal(torch.cat(module.seen[2:]), X)


@pytest.mark.filterwarnings("ignore")
def test_an_infinite_stream_is_read_for_one_epoch():
    _, monitor = fit(DataLoader(Stream(endless=True), 10), limit_train_batches=6)
    assert monitor.statistics["train"].num_samples == 60


NOTE = "GeometryMonitor: the train set has no length, so an epoch ends only where its data do; if they are an endless"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("endless", "samples"), [(True, 70), (False, N)])
def test_without_a_limit_as_many_batches_are_measured_as_were_trained(endless, samples, caplog):
    with caplog.at_level("INFO"):
        _, monitor = fit(DataLoader(Stream(endless), 10), max_steps=7, max_epochs=-1)
    assert monitor.statistics["train"].num_samples == samples
    assert f"{NOTE} stream, set limit_train_batches" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        fit(DataLoader(Stream(endless), 10), limit_train_batches=2, max_epochs=1)
    assert "has no length" not in caplog.text


CLASSES = {"sorted": torch.arange(240) // 60, "in turns": torch.arange(240) % 4, "in pairs": torch.arange(240) // 2 % 4}
CUT = {
    "batches": (lambda s: DataLoader(s, 10, shuffle=True), {"limit_train_batches": 4}, 40),
    "a share of them": (lambda s: DataLoader(s, 10, shuffle=True, drop_last=True), {"limit_train_batches": 0.5}, 120),
    "fast": (lambda s: DataLoader(s, 24), {"fast_dev_run": 2}, 48),
    "subset": (
        lambda s: DataLoader(s, 10, sampler=SubsetRandomSampler(torch.randperm(240)[:160])),
        {"limit_train_batches": 8},
        80,
    ),
    "batch sampler": (
        lambda s: DataLoader(s, batch_sampler=ClassBalancedBatchSampler(s.tensors[1], 8)),
        {"limit_train_batches": 8},
        64,
    ),
    "epoch sampler": (
        lambda s: DataLoader(s, sampler=ClassBalancedBatchSampler(s.tensors[1], 8), batch_size=None),
        {"limit_train_batches": 8},
        64,
    ),
    "unknown sizes": (
        lambda s: DataLoader(s, sampler=torch.randperm(240).split(16), batch_size=None),
        {"limit_train_batches": 5},
        80,
    ),
    "more than there are": (lambda s: DataLoader(s, 50), {"limit_train_batches": 9}, 240),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("order", CLASSES)
@pytest.mark.parametrize("name", CUT)
def test_a_measurement_reads_at_most_one_epoch_and_covers_every_class(name, order):
    loader, options, count = CUT[name]
    x = torch.randn(240, 6)
    module, monitor = fit(loader(TensorDataset(x, CLASSES[order])), **options)
    assert monitor.statistics["train"].num_samples == count
    assert monitor.statistics["train"].counts.min() > 0
    first, *second = torch.cat(module.seen[1:]).split(count)
    rows = [int(torch.nonzero((x == row).all(1))) for row in first]
    assert rows == sorted(set(rows))
    assert all(torch.equal(again, first) for again in second)  # epoch by epoch


@pytest.mark.filterwarnings("ignore")
def test_limits_also_apply_to_a_data_module():
    data = DigitsDataModule(batch_size=50)
    monitor = GeometryMonitor()
    trainer = Trainer(callbacks=[monitor], max_epochs=1, limit_train_batches=6, **QUIET)
    trainer.fit(HSCL(encoder=MLP((1, 8, 8), (5,)), num_classes=10), data)
    assert monitor.statistics["train"].num_samples == 300
    assert monitor.statistics["train"].counts.min() > 10


@pytest.mark.filterwarnings("ignore")
def test_the_check_of_the_first_batch_consumes_no_training_batch():
    loader = DataLoader(SET, 10, shuffle=True, num_workers=1, persistent_workers=True)
    module, _ = fit(loader, loader, Validated(), max_epochs=1)  # one loader with a single iterator
    assert module.trainer.global_step == 5


@pytest.mark.filterwarnings("ignore")
def test_the_data_module_of_an_earlier_fit_is_not_reused():
    data, monitor = DigitsDataModule(), GeometryMonitor()
    trainer = Trainer(callbacks=[monitor], max_epochs=1, **QUIET)
    module = HSCL(encoder=MLP((1, 8, 8), (5,)), num_classes=10)
    trainer.fit(module, data)
    trainer.fit_loop.max_epochs = 2
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(60, 1, 8, 8), torch.arange(60) % 10), 20))
    assert monitor.statistics["train"].num_samples == 60


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("loader", ["stream", "iterable"])
def test_the_batches_of_an_epoch_are_measured_where_the_data_have_no_order(loader):
    _, monitor = fit(LOADERS[loader](), limit_train_batches=3)
    assert monitor.statistics["train"].num_samples == 30


def test_measured_positions_are_spread_over_the_set():
    for count, size in ((1, 1), (3, 10), (7, 100), (100, 100), (99, 100), (5, 10**9)):
        positions = spread(count, size)
        assert len(positions) == count
        assert all(i * size // count <= position < (i + 1) * size // count for i, position in enumerate(positions))


def test_a_one_shot_iterator_is_left_to_training():
    with pytest.warns(UserWarning, match="GeometryMonitor: got an iterator as a loader, which can be read only once"):
        _, monitor = fit(iter([(X[:20], Y[:20]), (X[20:], Y[20:])]), max_epochs=1)
    assert monitor.results == {}


@pytest.mark.filterwarnings("ignore")
def test_overfit_batches_limits_the_measurement():
    _, monitor = fit(DataLoader(SET, 10, shuffle=True), overfit_batches=2)
    assert monitor.results["train"] == pytest.approx(measure(X[:20], Y[:20]), rel=1e-9, abs=1e-12)


@pytest.mark.filterwarnings("ignore")
def test_both_passes_see_the_same_random_inputs(monkeypatch):
    monkeypatch.setattr(measurement, "KEPT_BYTES", 0)

    class Noisy(Rows):
        def __getitem__(self, index):
            return X[index] + torch.randn(6), Y[index]

    module, _ = fit(DataLoader(Noisy(), 10), max_epochs=1)
    first, second = torch.cat(module.seen[1:]).split(N)
    assert torch.equal(first, second)
    assert not torch.equal(first, X)


class Validated(Theirs):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass


OPTIONS = [
    {"max_epochs": 5, "check_val_every_n_epoch": 2},
    {"max_epochs": 1, "val_check_interval": 0.25},
    {"max_epochs": -1, "max_steps": 7},
    {"max_epochs": 3, "val_check_interval": 3, "check_val_every_n_epoch": None},
    {"max_epochs": 2, "num_sanity_val_steps": 0, "check_val_every_n_epoch": 3},
    {"fast_dev_run": 1},
    {"max_epochs": 3, "reload_dataloaders_every_n_epochs": 1, "check_val_every_n_epoch": 2},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_both_sets_are_measured_once_in_the_final_state(options, every):
    class Logged(GeometryMonitor):
        steps = ()

        def _tell(self, trainer, pl_module):
            self.steps = (*self.steps, trainer.global_step)
            assert self.results.keys() == {"train", "val"}

    held_out = DataLoader(TensorDataset(X[:21], Y[:21]), 10)
    module, monitor = fit(DataLoader(SET, 10), held_out, Validated(), Logged(every, num_classes=4), **options)
    assert len(set(monitor.steps)) == len(monitor.steps)
    limit = 10 if "fast_dev_run" in options else 21
    assert monitor.statistics["val"].num_samples == limit
    assert monitor.steps[-1] == module.trainer.global_step


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_epoch_end", "on_validation_end"])
def test_a_stopped_run_measures_both_sets_at_the_end(hook):
    class Stops(Callback):
        pass

    def stop(self, trainer, pl_module, *args):
        trainer.should_stop = trainer.global_step >= 7

    setattr(Stops, hook, stop)
    monitor = GeometryMonitor(10, num_classes=4)
    trainer = Trainer(callbacks=[monitor, Stops()], max_epochs=50, **QUIET)
    trainer.fit(Validated(), DataLoader(SET, 10), DataLoader(SET, 10))
    assert trainer.global_step == {"on_train_batch_end": 7}.get(hook, 10)
    assert set(monitor.results) == {"train", "val"}
    assert trainer.callback_metrics["geometry/val/nc1"] == pytest.approx(monitor.results["val"]["nc1"])
    assert monitor.epoch == 2


@pytest.mark.filterwarnings("ignore")
def test_without_validation_the_training_set_is_measured():
    for options in ({"limit_val_batches": 0}, {}):
        held_out = DataLoader(SET, 10) if options else None
        _, monitor = fit(DataLoader(SET, 10), held_out, Validated(), **options)
        assert set(monitor.results) == {"train"}


@pytest.mark.filterwarnings("ignore")
def test_the_measurement_respects_limit_val_batches():
    _, monitor = fit(DataLoader(SET, 10), DataLoader(SET, 10), Validated(), limit_val_batches=2)
    assert monitor.results["val"]["nc1"] == pytest.approx(measure(X[:20], Y[:20])["nc1"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_several_loaders_are_separate_sets(tmp_path):
    def model():
        torch.manual_seed(0)
        return HSCL(encoder=MLP((6,), (5,)), num_classes=4)

    parts = [(X[:12], Y[:12]), (X[12:32], Y[12:32])]
    loaders = [DataLoader(TensorDataset(*part), 50) for part in parts]

    def run(val):
        module, monitor, probe = model(), GeometryMonitor(), OnlineLinearProbe()
        trainer = Trainer(callbacks=[monitor, probe], max_epochs=2, default_root_dir=tmp_path, **QUIET)
        trainer.fit(module, DataLoader(SET, 20), val)
        return monitor.results, trainer.callback_metrics, trainer, module

    results, metrics, trainer, module = run(loaders)
    for i, suffix in enumerate(("", "_1")):
        alone, alone_metrics, *_ = run(loaders[i])
        assert results[f"val{suffix}"] == alone["val"]
        assert metrics[f"loss/val{suffix}"] == alone_metrics["loss/val"]
        assert metrics[f"probe/val{suffix}_accuracy"] == alone_metrics["probe/val_accuracy"]
    trainer.test(module, loaders, verbose=False)
    assert {"loss/test", "loss/test_1", "geometry/test_1/nc1"} <= trainer.callback_metrics.keys()

    writer = PredictionWriter()
    trainer = Trainer(callbacks=[writer], default_root_dir=tmp_path, **QUIET)
    trainer.predict(module, loaders)
    assert [path.name for path in writer.written.values()] == ["predictions.npz", "predictions_1.npz"]
    for path, (x, labels) in zip(writer.written.values(), parts, strict=True):
        with np.load(path) as file, torch.no_grad():
            assert torch.allclose(torch.from_numpy(file["z"]), module.eval()(x))
            assert file["labels"].tolist() == labels.tolist()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_labels_of_any_integer_type_are_accepted(tmp_path, dtype):
    def run(labels):
        torch.manual_seed(0)
        module = HSCL(encoder=MLP((6,), (5,)), num_classes=4)
        monitor, probe = GeometryMonitor(), OnlineLinearProbe(functools.partial(torch.optim.SGD, lr=0.1))
        monitor.sample_size = 20
        loader = DataLoader(TensorDataset(X, labels), 20)
        trainer = Trainer(callbacks=[monitor, probe], max_epochs=2, default_root_dir=tmp_path, **QUIET)
        trainer.fit(module, loader, loader)
        sample = monitor.sample
        return monitor.results, {k: v.item() for k, v in trainer.callback_metrics.items()}, sample.labels.tolist()

    assert repr(run(Y.to(dtype))) == repr(run(Y))  # NaN is NaN


def _cut(rank, world_size, batches):
    torch.manual_seed(0)
    x = torch.randn(240, 6, dtype=torch.float64)
    loader = DataLoader(TensorDataset(x, CLASSES["sorted"]), 10)
    options = {"devices": world_size, "strategy": "ddp", "precision": "64-true", "accelerator": "cpu"}
    _, monitor = fit(loader, limit_train_batches=batches, max_epochs=1, **options)
    return monitor.results["train"], monitor.statistics["train"].num_samples


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_several_processes_measure_as_many_samples_as_they_train_on_together(gloo):
    ((one, count),) = on_processes(1, _cut, 1, 8)
    assert count == 80
    for several, total in on_processes(2, _cut, 2, 4):
        assert total == 80
        assert several == pytest.approx(one, rel=1e-10, abs=1e-10, nan_ok=True)
