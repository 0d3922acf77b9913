"""The online k-NN accuracy is that of a slow reference on the features of both sets."""

import math

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, OnlineKNN, online_knn
from nc_lightning.callbacks.measurement import passes
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from tests.on_processes import on_processes

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def model():
    torch.manual_seed(0)
    return HSCL(encoder=MLP((8,), (32,)), num_classes=4)


def data():
    return LatentClassDataModule(num_classes=4, input_dim=8, samples_per_class=15, batch_size=8, noise=2.0)


def run(command, module, *callbacks, given=None, **options):
    trainer = Trainer(callbacks=list(callbacks), accelerator="cpu", **{"max_epochs": 1, **QUIET, **options})
    keywords = {} if command == "fit" else {"verbose": False}
    getattr(trainer, command)(module, given or data(), **keywords)
    return trainer


def reference(module, layer, k, held_out="val_dataloader"):
    """Return the accuracy by loops over queries and neighbors."""
    source = data()
    source.setup()
    module = module.eval().double()
    sets = []
    for loader in (source.geometry_dataloader(), getattr(source, held_out)()):
        with torch.no_grad():
            batches = [((module if layer == "z" else module.encoder)(x.double()), y) for x, y in loader]
        sets.append([(z / z.norm(), int(y)) for zs, ys in batches for z, y in zip(zs, ys, strict=True)])
    bank, queries = sets
    correct = 0
    for z, label in queries:
        nearest = sorted(((float(z @ other), y) for other, y in bank), reverse=True)[:k]
        votes = {c: sum(math.exp(s / 0.07) for s, y in nearest if y == c) for c in range(4)}
        correct += max(votes, key=votes.get) == label
    return correct / len(queries)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("k", [1, 7, 10**6])
def test_the_accuracy_is_that_of_the_reference(monkeypatch, k):
    monkeypatch.setattr(passes, "KEPT_BYTES", 0)  # the features are those of the first of two passes
    monkeypatch.setattr(online_knn, "QUERIES", 5)
    module = model().double()
    trainer = run("fit", module, OnlineKNN(k=k), GeometryMonitor(), precision="64-true")
    assert trainer.callback_metrics["knn/val"].item() == pytest.approx(reference(module, "z", k))
    assert trainer.callback_metrics["knn/encoder/val"].item() == pytest.approx(reference(module, "encoder", k))


@pytest.mark.filterwarnings("ignore")
def test_the_test_set_has_an_accuracy():
    module = model().double()
    trainer = run("test", module, GeometryMonitor(), OnlineKNN(k=3, layers=["z"]), precision="64-true")
    values = {key: v.item() for key, v in trainer.callback_metrics.items() if key.startswith("knn/")}
    assert values == {"knn/test": pytest.approx(reference(module, "z", 3, "test_dataloader"))}


@pytest.mark.filterwarnings("ignore")
def test_values_are_as_rare_as_asked_and_watchers_wait_for_them():
    epochs = []

    class Stopping(EarlyStopping):
        def _run_early_stopping_check(self, trainer):
            if self.monitor in trainer.callback_metrics:
                epochs.append(trainer.current_epoch + 1)
            super()._run_early_stopping_check(trainer)

    callbacks = [OnlineKNN(every_n_epochs=3), GeometryMonitor(every_n_epochs=2), Stopping("knn/val", patience=99)]
    trainer = run("fit", model(), *callbacks, max_epochs=9)
    assert epochs == [2, 6, 9]  # measured at 2, 4, 6, 8 and 9
    assert "knn/val" in trainer.callback_metrics
    with pytest.raises(ValueError, match="^EarlyStopping: got monitor 'knn/train', expected knn/encoder/val or"):
        run("fit", model(), OnlineKNN(), GeometryMonitor(), EarlyStopping("knn/train"))


def _accuracies(rank, world_size):
    online_knn.QUERIES = 3
    callbacks = [GeometryMonitor(), OnlineKNN(k=5)]
    options = {"devices": world_size, "strategy": "ddp", "precision": "64-true"}
    trainer = run("validate", model().double(), *callbacks, **options)
    return {key: v.item() for key, v in trainer.callback_metrics.items() if key.startswith("knn/")}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_have_the_accuracy_of_one(gloo):
    module = model()
    expected = {f"knn/{key}val": reference(module, layer, 5) for key, layer in (("", "z"), ("encoder/", "encoder"))}
    for values in on_processes(2, _accuracies, 2):
        assert values == pytest.approx(expected)


class Theirs(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 5)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.0)


def loaders(train_labels, val_labels):
    torch.manual_seed(0)
    sets = (TensorDataset(torch.randn(len(y), 8), y) for y in (train_labels, val_labels))
    return [DataLoader(each, 10) for each in sets]


def fit_theirs(train_labels, val_labels, **options):
    train, val = loaders(train_labels, val_labels)
    trainer = Trainer(
        max_epochs=1, callbacks=[GeometryMonitor(num_classes=4), OnlineKNN(layers=["z"], **options)], **QUIET
    )
    trainer.fit(Theirs(), train, val)
    return trainer.callback_metrics


@pytest.mark.filterwarnings("ignore:.*")
def test_a_small_or_unlabeled_training_set_and_absent_classes():
    y = torch.arange(40) % 4
    with pytest.warns(UserWarning, match="^OnlineKNN: got k = 50, expected at most 40; all training samples vote$"):
        fit_theirs(y, y, k=50)
    with pytest.warns(UserWarning, match="^OnlineKNN: got no training samples with labels, so that there are no neigh"):
        assert not any(key.startswith("knn/") for key in fit_theirs(torch.full((40,), -1), y))
    assert fit_theirs(y % 2, y.clamp(min=2))["knn/val"] == 0
    assert "knn/val" not in fit_theirs(y, torch.full((40,), -1))


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (lambda: [OnlineKNN()], "OnlineKNN: got no GeometryMonitor among the callbacks, expected one whose features"),
        (
            lambda: [OnlineKNN(layers=["encodr"]), GeometryMonitor()],
            "OnlineKNN: layers: got 'encodr', expected z or",
        ),
        (lambda: [OnlineKNN(layers="z,z")], "layers: got 'z,z', expected different names, separated by commas"),
        (lambda: [OnlineKNN(k=0)], "k: got 0, expected"),
        (lambda: [OnlineKNN(temperature=0)], "temperature: got 0, expected"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_arguments_are_refused_with_one_line(callbacks, message):
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        run("fit", model(), *callbacks())
