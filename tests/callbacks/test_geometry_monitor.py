import functools
import math
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe
from nc_lightning.callbacks.measurement import passes as measurement_file
from nc_lightning.callbacks.measurement.loaders import Batch
from nc_lightning.data import DigitsDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.geometry import CenterDistances, ClassStatistics, measure, ncc_accuracy, optimal_ideals
from tests.on_processes import on_processes

QUIET = {"enable_progress_bar": False, "enable_model_summary": False}


def trainer(tmp_path, *callbacks, **kwargs):
    defaults = {"max_epochs": 2, "logger": False, "enable_checkpointing": False, "default_root_dir": tmp_path}
    return Trainer(callbacks=list(callbacks), **(QUIET | defaults | kwargs))


def model(**kwargs):
    return HSCL(encoder=MLP((32,), (24,)), num_classes=10, **kwargs)


def dataset(loader):
    x, labels = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(labels)


def test_batched_values_equal_those_of_all_features_at_once(tmp_path):
    monitor, module, data = GeometryMonitor(), model(), LatentClassDataModule(noise=2.0)
    fit = trainer(tmp_path, monitor)
    fit.fit(module, data)
    module.eval()
    (x, labels), (held_out, held_out_labels) = dataset(data.geometry_dataloader()), dataset(data.val_dataloader())
    with torch.no_grad():
        train = measure(module(x), labels)
        val = measure(module(held_out), held_out_labels)
        centers = ClassStatistics(10, 9).update(module(x), labels)
        val["ncc_accuracy"] = float(ncc_accuracy(CenterDistances(centers).update(module(held_out), held_out_labels)))
    for name, expected in (("train", train), ("val", val)):
        assert monitor.results[name] == pytest.approx(expected, rel=1e-5, abs=1e-9, nan_ok=True)
        logged = {k: v.item() for k, v in fit.callback_metrics.items() if k.startswith(f"geometry/{name}/")}
        assert logged == pytest.approx(
            {f"geometry/{name}/{key}": value for key, value in expected.items()}, rel=1e-5, abs=1e-7, nan_ok=True
        )


def test_the_end_of_training_is_measured_even_in_mid_epoch(tmp_path):
    monitor, logger = GeometryMonitor(every_n_epochs=10), CSVLogger(tmp_path)
    fit = trainer(tmp_path, monitor, max_epochs=-1, max_steps=17, logger=logger)
    fit.fit(model(), LatentClassDataModule())
    assert fit.global_step == 17
    assert set(monitor.results) == {"train", "val"}
    fit.logger.save()
    assert "geometry/val/nc1" in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("data", [LatentClassDataModule, DigitsDataModule])
def test_kept_features_give_the_same_values(tmp_path, monkeypatch, data):
    def run():
        torch.manual_seed(0)
        shape = data().input_shape
        monitor, module = GeometryMonitor(), HSCL(encoder=MLP(shape, (24,)), num_classes=10)
        monitor.sample_size = 50
        trainer(tmp_path, monitor, OnlineLinearProbe(), max_epochs=1).fit(module, data())
        return repr((monitor.results, monitor.sample.z.tolist(), torch.rand(1)))  # NaN is NaN

    kept = run()
    for size in (0, 100_000):  # too small for any set; too small only for the training set
        monkeypatch.setattr(measurement_file, "KEPT_BYTES", size)
        assert run() == kept


def test_kept_features_stay_within_the_memory_budget(monkeypatch):
    monkeypatch.setattr(measurement_file, "KEPT_BYTES", 1000)

    def batches(count):
        features = {"encoder": torch.zeros(10, 2), "z": torch.zeros(10, 3)}  # z has 200 bytes with the labels
        return [Batch(features, torch.arange(10), None)] * count

    for count, complete in ((5, True), (6, False)):
        kept = measurement_file.Kept(["encoder", "z"])
        assert len(list(kept.passing(batches(count)))) == count
        assert kept.complete == complete
        assert len(kept.batches) == (count if complete else 0)
    narrow = measurement_file.Kept(["encoder"])
    assert len(list(narrow.passing(batches(6)))) == 6
    assert narrow.complete
    assert all(list(features) == ["encoder"] for features, *_ in narrow.batches)


class Listener(Callback):
    """Asks for a sample and records every measurement."""

    def __init__(self):
        self.heard = []

    def setup(self, trainer, pl_module, stage):
        for callback in trainer.callbacks:
            if isinstance(callback, GeometryMonitor):
                callback.sample_size = 50

    def on_geometry_measured(self, trainer, pl_module, monitor):
        stats, sample = monitor.statistics["train"], monitor.sample
        self.heard.append((trainer.global_step, monitor.results["train"]["nc1"], stats.num_samples, sample))


def test_callbacks_receive_each_measurement_with_statistics_and_a_sample(tmp_path):
    listener, monitor, module, data = Listener(), GeometryMonitor(every_n_epochs=2), model(), LatentClassDataModule()
    trainer(tmp_path, listener, monitor, max_epochs=5).fit(module, data)
    assert [step for step, *_ in listener.heard] == [24, 48, 60]
    _, nc1, samples, sample = listener.heard[-1]
    x, labels = dataset(data.geometry_dataloader())
    assert samples == len(x) == 1000
    assert nc1 == monitor.results["train"]["nc1"]
    with torch.no_grad():
        z = module.eval()(x)
    kept = torch.cat([torch.nonzero(labels == c).flatten()[:5] for c in range(10)]).sort().values
    assert torch.allclose(sample.z, z[kept], atol=1e-6)
    assert torch.equal(sample.labels, labels[kept])
    assert monitor.statistics["val"].num_samples == 200


def test_no_sample_is_kept_without_a_request(tmp_path):
    monitor = GeometryMonitor()
    trainer(tmp_path, monitor).fit(model(), LatentClassDataModule())
    assert monitor.sample is None


class Watched(MLP):
    """Counts its inputs in eval mode and in training mode."""

    def __init__(self):
        super().__init__((32,), (24,))
        self.seen = {True: 0, False: 0}

    def forward(self, x):
        self.seen[self.training] += len(x)
        return super().forward(x)


def test_an_epoch_without_a_measurement_costs_nothing(tmp_path, monkeypatch):
    def evaluated(*callbacks):
        encoder = Watched()
        trainer(tmp_path, *callbacks, max_epochs=5, num_sanity_val_steps=0).fit(
            HSCL(encoder=encoder, num_classes=10), LatentClassDataModule()
        )
        return encoder.seen[False]

    data = LatentClassDataModule()
    data.setup()
    first_batches = sum(len(next(iter(loader))[1]) for loader in (data.geometry_dataloader(), data.val_dataloader()))
    without = evaluated() + first_batches  # read before training
    measurement = 1000 + 200  # training and validation set
    assert evaluated(GeometryMonitor(every_n_epochs=100)) == without + measurement  # after the last epoch
    assert evaluated(GeometryMonitor(every_n_epochs=2)) == without + 3 * measurement  # epochs 2, 4 and the last
    monkeypatch.setattr(measurement_file, "KEPT_BYTES", 0)
    assert evaluated(GeometryMonitor(every_n_epochs=2)) == without + 6 * measurement  # each set is read twice


def test_measuring_does_not_change_training(tmp_path):
    class Dropping(MLP):
        def __init__(self):
            super().__init__((32,), (24,))
            self.frozen = nn.BatchNorm1d(24).eval()  # a submodule that its owner keeps in eval mode

        def forward(self, x):
            return self.frozen(nn.functional.dropout(super().forward(x), 0.1, self.training))

        def train(self, mode=True):
            super().train(mode)
            self.frozen.eval()
            return self

    def run(*callbacks):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        module = HSCL(encoder=Dropping(), num_classes=10)
        trainer(tmp_path, *callbacks, max_epochs=3).fit(module, LatentClassDataModule())
        modes = [m.training for m in module.modules()]
        return module.state_dict(), modes, torch.rand(2), random.random(), np.random.rand()

    with_monitor, without = run(GeometryMonitor()), run()
    assert all(torch.equal(with_monitor[0][key], without[0][key]) for key in without[0])
    assert with_monitor[1] == without[1]
    assert torch.equal(with_monitor[2], without[2])
    assert with_monitor[3:] == without[3:]


def test_train_and_eval_modes_are_restored_immediately(tmp_path):
    class Spy(GeometryMonitor):
        def on_train_epoch_end(self, trainer, pl_module):
            before = [m.training for m in pl_module.modules()]
            super().on_train_epoch_end(trainer, pl_module)
            self.kept = before == [m.training for m in pl_module.modules()] and any(before) and not all(before)

    module = model()
    module.encoder.layers[2].eval()
    spy = Spy()
    x, y = torch.randn(40, 32), torch.arange(10).repeat(4)
    trainer(tmp_path, spy, max_epochs=1).fit(module, DataLoader(TensorDataset(x, y), batch_size=20))
    assert spy.kept


def test_a_checkpoint_can_be_chosen_by_geometry(tmp_path):
    checkpoint = ModelCheckpoint(dirpath=tmp_path, monitor="geometry/val/nc1", filename="{epoch}")
    trainer(tmp_path, GeometryMonitor(), checkpoint, enable_checkpointing=True, max_epochs=3).fit(
        model(), LatentClassDataModule()
    )
    assert checkpoint.best_model_score > 0
    assert list(tmp_path.glob("*.ckpt"))


def test_every_logger_gets_the_values(tmp_path):
    logger = CSVLogger(tmp_path)
    trainer(tmp_path, GeometryMonitor(), logger=logger).fit(model(), LatentClassDataModule())
    header = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0]
    assert "geometry/train/nc1" in header
    assert "geometry/val/ncc_accuracy" in header


class TheirModule(LightningModule):
    """A third-party module: forward returns features, and there is no number of classes."""

    def __init__(self, width=5):
        super().__init__()
        self.layer = nn.Linear(32, width)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0].nan_to_num()).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_third_party_module_with_a_shuffled_loader_and_no_validation_is_measured(tmp_path):
    x, y = torch.randn(43, 32), torch.randint(3, (43,))
    monitor, module = GeometryMonitor(num_classes=3), TheirModule()
    loader = DataLoader(TensorDataset(x, y), batch_size=10, shuffle=True, drop_last=True)
    trainer(tmp_path, monitor).fit(module, loader)
    with torch.no_grad():
        expected = measure(module(x), y)  # every sample once, including those that training drops
    assert monitor.results["train"] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert set(monitor.results) == {"train"}


class WithOptimum(TheirModule):
    """A module that knows the minimum of its loss, from the first step on."""

    feature_dim = 5
    optimal_gram = None

    def training_step(self, batch, batch_idx):
        self.optimal_gram = GRAM
        return super().training_step(batch, batch_idx)


GRAM = torch.tensor([[1.0, -0.6, -0.7], [-0.6, 1.0, 0.2], [-0.7, 0.2, 1.0]], dtype=torch.float64)


def test_the_distance_to_the_minimum_of_the_loss_is_measured_where_it_is_known(tmp_path):
    x, y = torch.randn(43, 32), torch.arange(43) % 3
    held_out = DataLoader(TensorDataset(x[:9], y[:9] % 2), batch_size=9)
    loader = DataLoader(TensorDataset(x, y), batch_size=10)
    monitor, module = GeometryMonitor(num_classes=3), WithOptimum()
    module.validation_step = lambda batch, batch_idx: None
    fit = trainer(tmp_path, monitor)
    fit.fit(module, loader, held_out)
    with torch.no_grad():
        means = torch.stack([module(x[y == c]).double().mean(0) for c in range(3)])
    products = means @ means.T
    expected = (products / products.norm() - GRAM / GRAM.norm()).norm().item()
    assert monitor.results["train"]["distance_to_optimum"] == pytest.approx(expected, rel=1e-5)
    assert fit.callback_metrics["geometry/train/distance_to_optimum"] == pytest.approx(expected, rel=1e-5)
    assert math.isnan(monitor.results["val"]["distance_to_optimum"])  # without the third class
    assert monitor.own_ideals(module) == optimal_ideals(GRAM, 5)

    encoder = GeometryMonitor(num_classes=3, features="layer")
    trainer(tmp_path, encoder).fit(module, loader)
    assert "distance_to_optimum" not in encoder.results["train"]  # the minimum is that of the module's output
    assert encoder.own_ideals(module) == {}


def test_bad_input_is_refused(tmp_path):
    x, y = torch.randn(40, 32), torch.arange(10).repeat(4)

    def fit(x, y, module, monitor):
        loader = DataLoader(TensorDataset(x, y), batch_size=10)
        trainer(tmp_path, monitor, max_epochs=1).fit(module, loader)

    with pytest.raises(ValueError, match="num_classes: got none from the module or the data module"):
        fit(x, y, TheirModule(), GeometryMonitor())
    with pytest.raises(
        ValueError, match=r"geometry of the train set, batch 0: labels: got label 9, expected .* \[0, 5\)"
    ):
        fit(x, y, TheirModule(), GeometryMonitor(num_classes=5))
    with pytest.raises(ValueError, match="geometry of the train set, batch 0: labels: got torch.float32"):
        fit(x, y.float(), TheirModule(), GeometryMonitor(num_classes=10))
    bad = x.clone()
    bad[37] = torch.nan
    with pytest.raises(ValueError, match="geometry of the train set, batch 3: z: got nan in row 7"):
        fit(bad, y, TheirModule(), GeometryMonitor(num_classes=10))
    with pytest.raises(ValueError, match="num_classes: got 10 in the model, expected 7, the classes of the data"):
        trainer(tmp_path, GeometryMonitor()).fit(model(), LatentClassDataModule(num_classes=7))
    with pytest.raises(ValueError, match="every_n_epochs: got 0"):
        GeometryMonitor(every_n_epochs=0)


def test_a_monitor_keeps_nothing_from_an_earlier_fit(tmp_path):
    def run(monitor, classes, width, fn="fit"):
        torch.manual_seed(0)
        module = HSCL(encoder=MLP((32,), (24,)), num_classes=classes, feature_dim=width)
        data = LatentClassDataModule(num_classes=classes, samples_per_class=10, batch_size=2 * classes)
        getattr(trainer(tmp_path, monitor, max_epochs=1), fn)(module, data)
        return monitor

    monitor, fresh = run(GeometryMonitor(), 10, 9), run(GeometryMonitor(), 4, 2)
    run(monitor, 4, 2)
    assert monitor.num_classes == 4
    assert repr(monitor.results) == repr(fresh.results)  # NaN is NaN
    assert monitor.statistics["train"].means.shape == (4, 2)
    assert run(monitor, 6, 5, "validate").num_classes == 6
    assert run(monitor, 6, 5, "predict").results.keys() == {"train", "val"}  # these are still the latest
    with pytest.raises(ValueError, match="num_classes: got none from the module or the data module"):
        trainer(tmp_path, monitor).fit(TheirModule(), DataLoader(TensorDataset(torch.randn(4, 32), torch.arange(4))))
    asked = GeometryMonitor(num_classes=10)
    with pytest.raises(ValueError, match="label"):
        run(asked, 11, 5)
    assert asked.num_classes == 10


@pytest.mark.parametrize(
    ("options", "fresh"),
    [
        ({}, True),
        ({"check_val_every_n_epoch": 2}, False),
        ({"val_check_interval": 0.5}, True),
        ({"max_steps": 17}, False),
    ],
)
def test_a_measurement_does_not_include_a_loss_of_other_weights(tmp_path, options, fresh):
    monitor, module, data = GeometryMonitor(), model(), LatentClassDataModule()
    fit = trainer(tmp_path, monitor, **{"max_epochs": 3, **options})
    fit.fit(module, data)
    losses = monitor.losses(fit)
    assert "loss/train" in losses
    assert ("loss/val" in losses) == fresh
    assert "loss/val" in fit.callback_metrics  # of an earlier epoch
    held_out = monitor.results["val"]
    fit.validate(module, data, verbose=False)
    assert fresh == (losses.get("loss/val") == monitor.losses(fit)["loss/val"])
    assert monitor.results["val"] == held_out


def loader(count):
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, 1, 8, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.arange(count) % 10), batch_size=16)


class ShiftedOptimum(HSCL):
    optimal_gram = 0.5 * torch.eye(10, dtype=torch.float64) + 0.5


def _measure(rank, world_size, data):
    torch.manual_seed(0)
    sources = {"train_dataloaders": loader(101), "val_dataloaders": loader(33)}
    sources = {"datamodule": DigitsDataModule()} if data == "module" else sources
    still = functools.partial(torch.optim.SGD, lr=0.0)
    module = ShiftedOptimum(encoder=MLP((1, 8, 8), [12]), num_classes=10, optimizer=still)
    module.eval()  # without running statistics the features do not depend on the number of processes
    monitor, probe = GeometryMonitor(), OnlineLinearProbe(still)  # zero: nc3 is NaN
    options = {"devices": world_size, "strategy": "ddp", "precision": "64-true", "accelerator": "cpu"}
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "logger": False}
    Trainer(max_epochs=1, callbacks=[probe, monitor], **options, **quiet).fit(module, **sources)
    return monitor.results


@pytest.mark.slow
@pytest.mark.parametrize("data", ["module", "loaders"])
def test_several_processes_measure_the_same_as_one(gloo, data):
    (one,) = on_processes(1, _measure, 1, data)
    assert set(one) == {"train", "val"}
    assert {"nc1", "nc3", "nc4", "ncc_accuracy", "distance_to_optimum"} <= set(one["train"])
    for rank, several in enumerate(on_processes(3, _measure, 3, data)):
        for name in one:
            expected = pytest.approx(one[name], rel=1e-10, abs=1e-10, nan_ok=True)
            assert several[name] == expected, (rank, name)
