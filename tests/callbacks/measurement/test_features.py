"""The monitor finds features and classifier in modules of all kinds and refuses others before training."""

import dataclasses
import warnings
from collections import OrderedDict, namedtuple

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe
from nc_lightning.callbacks.measurement.features import one_tensor
from nc_lightning.encoders import MLP
from nc_lightning.geometry import CenterDistances, ClassStatistics, measure, nc3, nc4_mismatches

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
X = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(48) % 4
LOADER = DataLoader(TensorDataset(X, Y), 20)


class Classifier(LightningModule):
    """A third-party module: its forward pass returns logits, and its weights never change."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5))
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(5, 4)
        self.steps = 0

    def forward(self, x):
        h = self.act(self.encoder(x))
        return self.fc(self.pool(h[:, :, None, None]).flatten(1))

    def training_step(self, batch, batch_idx):
        self.steps += 1
        return (self.fc.weight * 0).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(monitor, module=None, train=LOADER, val=None, callbacks=(), **options):
    torch.manual_seed(0)
    module = Classifier() if module is None else module
    trainer = Trainer(callbacks=[monitor, *callbacks], **{**QUIET, "max_epochs": 1, **options})
    trainer.fit(module, train, val)
    return monitor.results["train"], module


def same(results, z):
    expected = measure(z.detach(), Y)
    assert {key: results[key] for key in expected} == pytest.approx(expected, rel=1e-5, abs=1e-9, nan_ok=True)


MEANT = {
    "output of a layer": ({"features": "encoder"}, lambda m: m.encoder(X)),
    "before what works in place": ({"features": "encoder.2"}, lambda m: m.encoder(X)),
    "after it": ({"features": "act"}, lambda m: m.encoder(X).relu()),
    "maps of one pixel": ({"features": "pool"}, lambda m: m.encoder(X).relu()),
    "input of the classifier": ({"classifier": "fc"}, lambda m: m.encoder(X).relu()),
    "callable": ({"features": lambda m, x: m.encoder[:2](x)}, lambda m: m.encoder[:2](X)),
    "callable to a tuple": ({"features": lambda m, x: (m.encoder(x), None)}, lambda m: m.encoder(X)),
}


@pytest.mark.filterwarnings("ignore:.*logging interval")
@pytest.mark.parametrize("name", MEANT)
def test_the_named_features_are_measured(name):
    options, expected = MEANT[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*look like logits")
        results, module = fit(GeometryMonitor(num_classes=4, **options))
    same(results, expected(module))


def test_a_module_may_be_given_instead_of_its_name():
    module = Classifier()
    results, _ = fit(GeometryMonitor(num_classes=4, features=module.encoder, classifier=module.fc), module)
    same(results, module.encoder(X))
    assert {"nc3", "nc4"} <= results.keys()


@pytest.mark.parametrize("features", [None, "encoder"])
def test_nc3_and_nc4_use_the_named_classifier(features):
    monitor = GeometryMonitor(num_classes=4, features=features, classifier="fc")
    module = Classifier()
    # A probe would have the same number of columns, but is another classifier.
    module.training_step = lambda batch, batch_idx: {
        "loss": (module.fc.weight * 0).sum(),
        "z": module.encoder(batch[0]).detach(),
        "labels": batch[1],
    }
    results, _ = fit(monitor, module, val=LOADER, callbacks=[OnlineLinearProbe(num_classes=4)])
    z = (module.encoder(X) if features else module.encoder(X).relu()).detach()
    stats = ClassStatistics(4, 5).update(z, Y)
    expected = {
        "nc3": float(nc3(stats, module.fc.weight)),
        "nc4": float(nc4_mismatches(z, module.fc.weight, module.fc.bias, CenterDistances(stats)).double().mean()),
    }
    assert {key: results[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert monitor.results["val"].keys() == results.keys()


Named = namedtuple("Named", "recon z")


@dataclasses.dataclass
class Holder:
    logits: torch.Tensor
    embedding: torch.Tensor


class Output(OrderedDict):
    """An output in the style of transformers: a dict whose values are also attributes."""


Z, WIDE, TOKENS = torch.randn(3, 5), torch.randn(3, 9), torch.randn(3, 7, 5)
OUTPUTS = {
    "tensor": Z,
    "tuple": (Z, None, TOKENS),
    "list": [TOKENS, Z],
    "dict": {"logits": WIDE, "features": Z},
    "dict of maps": {"logits": WIDE, "features": Z[:, :, None, None]},
    "named tuple": Named(WIDE, Z),
    "dataclass": Holder(WIDE, Z),
    "transformers": Output(last_hidden_state=TOKENS, pooler_output=Z, attentions=(TOKENS,)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_features_are_found_in_an_output_that_holds_only_one_candidate(name):
    assert torch.equal(one_tensor(OUTPUTS[name], 3), Z)


UNCLEAR = {
    "two": (
        (Z, WIDE),
        r"features: got a tuple \(0: \(3, 5\), 1: \(3, 9\)\), expected one tensor \(N, d\); give ",
    ),
    "two names": ({"z": Z, "features": WIDE}, r"features: got a dict \(z: \(3, 5\), features: \(3, 9\)\)"),
    "tokens": ({"last_hidden_state": TOKENS}, r"features: got a dict \(last_hidden_state: \(3, 7, 5\)\)"),
    "none": (None, r"features: got a NoneType \(no tensor\)"),
    "number": (3.0, r"features: got a float \(no tensor\)"),
}


@pytest.mark.parametrize("name", UNCLEAR)
def test_ambiguous_outputs_are_refused_in_one_line(name):
    output, message = UNCLEAR[name]
    with pytest.raises(ValueError, match=message):
        one_tensor(output, 3)


def test_a_module_that_returns_logits_is_warned_about_once():
    with pytest.warns(UserWarning, match="GeometryMonitor: got 4 columns for 4 classes from Classifier") as warned:
        fit(GeometryMonitor(num_classes=4), val=LOADER, max_epochs=3)
    (line,) = [str(w.message) for w in warned if "look like logits" in str(w.message)]
    assert "classifier='fc'" in line
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*look like logits")
        objective = HSCL(encoder=MLP((8,), (5,)), num_classes=4, feature_dim=4)
        fit(GeometryMonitor(), objective)


class Twice(Classifier):
    def forward(self, x):
        return super().forward(x) + self.act(self.encoder(x)).mean()


class Unused(Classifier):
    def __init__(self):
        super().__init__()
        self.unused = nn.Linear(5, 4)


class Tuple(Classifier):
    def forward(self, x):
        return self.encoder(x), super().forward(x)


BAD = TensorDataset(X, torch.eye(4)[Y] * 0.9 + 0.025)
REFUSED = {
    "no such layer": (
        {"features": "backbone"},
        {},
        "features: got 'backbone', expected the name of a submodule of C",
    ),
    "no such classifier": ({"classifier": "head"}, {}, "classifier: got 'head', .* such as encoder, act, pool, fc$"),
    "no weight": ({"classifier": "act"}, {}, "classifier: got 'act', a ReLU without weight"),
    "other features": (
        {"features": "encoder.0", "classifier": "fc"},
        {},
        r"got 'fc' .* \(4, 5\), expected \(4, 6\)",
    ),
    "other classes": ({"classifier": "encoder.2"}, {}, r"classifier: got 'encoder.2' .* \(5, 6\), expected \(4, 6\)"),
    "a layer that runs twice": ({"features": "encoder"}, {"module": Twice}, "features: got 'encoder', .* runs 2 times"),
    "a layer that does not run": (
        {"features": "unused"},
        {"module": Unused},
        "features: got 'unused', which the forward pass of Unused runs 0 times, expected once; give features=, a call",
    ),
    "two tensors": (
        {},
        {"module": Tuple},
        r"features: got a tuple \(0: \(\d+, 5\), 1: \(\d+, 4\)\), .* give f",
    ),
    "soft labels in training": ({}, {"train": DataLoader(BAD, 10)}, r"the train set, batch 0: labels: got soft labels"),
    "soft labels in validation": ({}, {"val": DataLoader(BAD, 10)}, r"the val set, batch 0: labels: got soft labels"),
    "labels of other classes": (
        {},
        {"val": DataLoader(TensorDataset(X, Y + 1), 10)},
        "val set, batch 0: labels: got",
    ),
    "inputs of another shape": (
        {"features": lambda m, x: x},
        {"val": DataLoader(TensorDataset(X[:, None], Y), 10)},
        r"the val set, batch 0: z: got shape \(10, 1, 8\)",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("sanity", [0, 2])
@pytest.mark.parametrize("name", REFUSED)
def test_unmeasurable_outputs_are_refused_before_the_first_step(name, sanity):
    options, given, message = REFUSED[name]
    module = given.get("module", Classifier)()
    module.steps = 0
    others = {key: value for key, value in given.items() if key != "module"}
    monitor = GeometryMonitor(every_n_epochs=100, num_classes=4, **options)
    with pytest.raises(ValueError, match=message) as error:
        fit(monitor, module, num_sanity_val_steps=sanity, max_epochs=1000, **others)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(("geometry of the ", "classifier: got "))
    assert module.steps == 0


@pytest.mark.filterwarnings("ignore")
def test_batches_of_a_custom_form_can_be_unpacked():
    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return 48

        def __getitem__(self, index):
            return {"id": index, "signal": X[index], "fine": Y[index], "coarse": Y[index] // 2}

    loader = DataLoader(Rows(), 20)
    with pytest.raises(ValueError, match="keys id, signal, fine, coarse, expected one of image, .*; give batch="):
        fit(GeometryMonitor(num_classes=4, features="encoder"), train=loader)
    batch = lambda b: (b["signal"], b["fine"])  # noqa: E731
    results, module = fit(GeometryMonitor(num_classes=4, features="encoder", batch=batch), train=loader, val=loader)
    same(results, module.encoder(X))
    usual = DataLoader(
        [{"pixel_values": x, "labels": nn.functional.one_hot(y, 4)} for x, y in zip(X, Y, strict=True)], 20
    )
    results, module = fit(GeometryMonitor(num_classes=4, features="encoder"), train=usual, val=usual)
    same(results, module.encoder(X))
