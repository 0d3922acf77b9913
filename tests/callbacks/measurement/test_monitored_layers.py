"""Measures of named layers are those of the layers' features, from the forward passes that measure z."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, WeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe
from nc_lightning.callbacks.measurement import passes
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP, ProjectionHead
from nc_lightning.geometry import measure
from nc_lightning.strategies import FSDP2Strategy
from tests.on_processes import on_processes

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
LAYERS = ["projector.0", "encoder"]
OF_OUTPUT = {"nc3", "nc4", "distance_to_optimum"}


def data():
    return LatentClassDataModule(num_classes=4, input_dim=8, samples_per_class=11, batch_size=8, noise=1.0)


def model():
    torch.manual_seed(0)
    return HSCL(encoder=MLP((8,), (12, 6)), num_classes=4, projector=ProjectionHead)


def run(command, module, monitor, *callbacks, given=None, **options):
    trainer = Trainer(callbacks=[*callbacks, monitor], accelerator="cpu", **{"max_epochs": 1, **QUIET, **options})
    keywords = {} if command == "fit" else {"verbose": False}
    getattr(trainer, command)(module, given or data(), **keywords)
    return trainer


def by_hand(module, layer):
    """Return the features and labels of both sets, layer by layer, without hooks."""
    source = data()
    source.setup()
    module = module.eval().cpu()
    features = {}
    for name, loader in (("train", source.geometry_dataloader()), ("val", source.val_dataloader())):
        parts = []
        for x, y in loader:
            h = module.encoder(x.double() if next(module.parameters()).dtype == torch.float64 else x)
            parts.append((h if layer == "encoder" else module.projector[0](h), y))
        features[name] = torch.cat([z for z, _ in parts]).detach(), torch.cat([y for _, y in parts])
    return features


def check_against_measure(values, module, tolerance):
    """Compare values by logged key with those of features computed by hand."""
    for layer in LAYERS:
        features = by_hand(module, layer)
        for name, (z, labels) in features.items():
            expected = measure(z, labels, 4)
            if name == "val":  # held-out samples are classified by the class means of the training set
                means = torch.stack([features["train"][0][features["train"][1] == c].mean(0) for c in range(4)])
                nearest = torch.stack([((means - row) ** 2).sum(1).argmin() for row in z])
                expected["ncc_accuracy"] = float((nearest == labels).double().mean())
            prefix = f"geometry/{layer}/{name}/"
            found = {key.removeprefix(prefix): float(v) for key, v in values.items() if key.startswith(prefix)}
            assert found.keys() == expected.keys() - OF_OUTPUT
            assert found == pytest.approx({key: expected[key] for key in found}, rel=tolerance, abs=tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kept", [10**9, 0])
def test_values_of_a_layer_are_those_of_its_features(monkeypatch, kept):
    monkeypatch.setattr(passes, "KEPT_BYTES", kept)
    module, monitor = model(), GeometryMonitor(layers=LAYERS)
    trainer = run("fit", module, monitor, OnlineLinearProbe())
    assert list(monitor.by_layer) == ["encoder", "projector.0", "z"]  # in the order of execution
    assert monitor.feature_dims == {"encoder": 6, "projector.0": 512, "z": 3}
    assert monitor.results is monitor.by_layer["z"]
    assert OF_OUTPUT & monitor.results["train"].keys() == {"nc3", "nc4"}
    check_against_measure(trainer.callback_metrics, module, 1e-4)


@pytest.mark.filterwarnings("ignore")
def test_layers_change_no_value_of_the_output_and_need_no_pass_of_their_own():
    class Counted(HSCL):
        calls = 0

        def forward(self, x):
            self.calls += not self.training
            return super().forward(x)

    def measured(layers):
        torch.manual_seed(0)
        module = Counted(encoder=MLP((8,), (12, 6)), num_classes=4, projector=ProjectionHead)
        monitor = GeometryMonitor(layers=layers)
        run("fit", module, monitor)
        return monitor.results, module.calls

    assert measured(LAYERS) == measured([])


def _two(rank, world_size, keeps):
    passes.KEPT_BYTES = keeps[rank]
    measured = []
    for strategy, module, precision in (("ddp", model().double(), "64-true"), (FSDP2Strategy(), model(), "32-true")):
        monitor = GeometryMonitor(layers=LAYERS)
        run("validate", module, monitor, devices=world_size, strategy=strategy, precision=precision)
        measured.append(monitor.by_key())
    return measured


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_have_the_values_of_all_features(gloo):
    for replicated, sharded in on_processes(2, _two, 2, (0, 10**9)):
        check_against_measure(replicated, model().double(), 1e-8)
        check_against_measure(sharded, model(), 1e-4)


@pytest.mark.filterwarnings("ignore")
def test_layers_are_those_of_the_averaged_weights():
    averaging, module, monitor = WeightAveraging(), model(), GeometryMonitor(layers=LAYERS)
    trainer = run("fit", module, monitor, averaging, max_epochs=2)
    check_against_measure(trainer.callback_metrics, averaging._average_model.module, 1e-4)


class Untrained(LightningModule):
    """Compiled in part; `calls` is the number of calls that ran uncompiled."""

    def __init__(self, whole):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))
        self.projector = nn.Linear(5, 3)
        if not whole:
            self.encoder.compile(backend="eager")

    def forward(self, x):
        return self.projector(self.encoder(x))

    def validation_step(self, batch, batch_idx):
        return self(batch[0]).sum()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("features", [None, "encoder.0"])
def test_layers_inside_of_compiled_modules_are_measured(whole, features):
    torch.manual_seed(0)
    module, x, y = Untrained(whole), torch.randn(60, 8), torch.arange(60) % 4
    given = torch.compile(module, backend="eager") if whole else module
    loaders, compiled = DataLoader(TensorDataset(x, y), 30), given(x)
    run("validate", given, GeometryMonitor(num_classes=4), given=loaders)  # compiles without a hook
    monitor = GeometryMonitor(num_classes=4, layers=["encoder.0", "encoder"], features=features)
    run("validate", given, monitor, given=loaders)
    for layer, z in (("encoder.0", module.encoder[0](x)), ("encoder", module.encoder(x)), ("z", compiled)):
        z = module.encoder[0](x) if layer == "z" and features else z
        expected = measure(z.detach(), y, 4)
        assert monitor.by_layer[layer]["val"]["nc1"] == pytest.approx(expected["nc1"], rel=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_layers_of_a_set_without_labels_have_its_spectrum():
    module, x = Untrained(True), torch.randn(60, 8)
    monitor = GeometryMonitor(num_classes=4, layers=["encoder"])
    run("validate", module, monitor, given=DataLoader(TensorDataset(x, torch.full((60,), -1)), 30))
    assert "nc1" not in monitor.by_layer["encoder"]["val"]
    assert monitor.by_layer["encoder"]["val"]["rankme"] > 1


@pytest.mark.filterwarnings("ignore")
def test_early_stopping_watches_a_layer():
    stopping = EarlyStopping("geometry/encoder/train/nc1", patience=1, min_delta=1e9)
    trainer = run("fit", model(), GeometryMonitor(every_n_epochs=2, layers=["encoder"]), stopping, max_epochs=9)
    assert trainer.current_epoch == 4  # two measurements
    for key, near in {"encoder/train/nc3": "encoder/train/.*", "projector/train/nc1": "encoder/train/nc1"}.items():
        key = f"geometry/{key}"
        with pytest.raises(ValueError, match=f"^EarlyStopping: got monitor {key!r}, expected .* geometry/{near}, "):
            run("fit", model(), GeometryMonitor(layers=["encoder"]), EarlyStopping(key))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["encodr"], "layers: got 'encodr', expected z or a submodule of HSCL, such as encoder, "),
        ("encoder,,projector", "layers: got 'encoder,,projector', expected different names, separated by commas"),
        ("encoder,z", "layers: got 'z', the output of the module, which is measured in any case"),
        (["z"], "layers: got 'z', the output of the module, which is measured in any case"),
        (["loss"], "geometry of the train set, batch 0: layers: got 'loss', which the forward pass of HSCL runs 0"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_bad_layers_are_refused_before_training(layers, message):
    module = model()
    module.training_step = lambda batch, batch_idx: pytest.fail("a step was trained")
    with pytest.raises(ValueError, match=f"^{message}[^\n]*$"):
        run("fit", module, GeometryMonitor(layers=layers), num_sanity_val_steps=0)


@pytest.mark.filterwarnings("ignore")
def test_a_layer_too_wide_or_not_finite_is_named(monkeypatch):
    monkeypatch.setattr(passes, "WIDEST", 5)
    with pytest.raises(ValueError, match="^geometry of the train set, batch 0, layer encoder: got 6 dimensions, exp"):
        run("fit", model(), GeometryMonitor(layers=["encoder"]))
    monkeypatch.undo()
    broken = Untrained(True)
    nn.init.constant_(broken.encoder[2].weight, torch.inf)
    broken.projector = nn.Identity()
    broken.forward = lambda x: torch.nan_to_num(broken.encoder(x))
    x, y = torch.randn(60, 8), torch.arange(60) % 4
    with pytest.raises(ValueError, match="^geometry of the val set, batch 0, layer encoder: z: got "):
        run(
            "validate",
            broken,
            GeometryMonitor(num_classes=4, layers=["encoder"]),
            given=DataLoader(TensorDataset(x, y), 30),
        )
