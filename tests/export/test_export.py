import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from nc_lightning.encoders import MLP, ResNet, SmallCNN, SmallResNet, TimmEncoder, TorchvisionEncoder
from nc_lightning.export import export
from nc_lightning.export.formats import FORMATS
from nc_lightning.io.checkpoints import read_checkpoint
from nc_lightning.reports.record import RunRecord
from tests.export.runs import IMAGES, expected, make_run

SHAPE = [3, 32, 32]
TIMM = {"name": "test_resnet", "input_shape": SHAPE}


def code_of(folder):
    """The Python block of a model card."""
    return re.search(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)[1]


def features_by_the_card(folder, monkeypatch, images=IMAGES):
    monkeypatch.chdir(folder)
    names = {}
    exec(code_of(folder), names)
    return torch.as_tensor(names["features"](images))


ENCODERS = {
    "MLP": (MLP, {"input_shape": SHAPE, "hidden_features": [16]}),
    "SmallCNN": (SmallCNN, {"input_shape": SHAPE, "width": 4}),
    "SmallResNet": (SmallResNet, {"input_shape": SHAPE, "widths": [4, 6]}),
    "ResNet of CIFAR": (ResNet, {"input_shape": SHAPE}),
    "ResNet of ImageNet": (ResNet, {"input_shape": SHAPE, "stem": "imagenet"}),
    "torchvision": (TorchvisionEncoder, {"name": "mobilenet_v3_small", "input_shape": SHAPE}),
    "timm": (TimmEncoder, TIMM),
}
LONG = pytest.mark.exhaustive


@pytest.mark.parametrize(
    "name", ["MLP", "SmallCNN", "SmallResNet", *(pytest.param(name, marks=LONG) for name in [*ENCODERS][3:])]
)
def test_weights_load_by_the_card_and_give_the_same_features(tmp_path, monkeypatch, name):
    run = make_run(tmp_path / "run", *ENCODERS[name])
    folder = export(run, "safetensors")
    assert folder == run / "encoder-safetensors"
    features = features_by_the_card(folder, monkeypatch)
    torch.testing.assert_close(features, expected(run), rtol=0, atol=1e-6)
    assert (features.std(0) > 0).any()
    assert "nc_lightning" not in code_of(folder)


def test_names_are_those_of_torchvision_and_timm(tmp_path):
    import timm
    from torchvision import models

    run = make_run(tmp_path / "a", ResNet, {"input_shape": SHAPE, "stem": "imagenet"})
    weights = load_file(export(run, "safetensors") / "model.safetensors")
    missing = models.get_model("resnet18").load_state_dict(weights, strict=False)
    assert missing == (["fc.weight", "fc.bias"], [])
    run = make_run(tmp_path / "b", TimmEncoder, TIMM)
    timm.create_model("test_resnet", num_classes=0).load_state_dict(
        load_file(export(run, "safetensors") / "model.safetensors")
    )


def test_other_channels_and_inputs_that_are_not_standardized(tmp_path, monkeypatch):
    args = {"name": "mobilenet_v3_small", "input_shape": [1, 32, 32]}
    run = make_run(tmp_path / "gray", TorchvisionEncoder, args, mean=None)
    gray = IMAGES[:, :1]
    features = features_by_the_card(export(run, "safetensors"), monkeypatch, gray)
    torch.testing.assert_close(features, expected(run, gray), rtol=0, atol=1e-6)


def test_timm_loads_its_folder_with_our_preprocessing(tmp_path):
    import timm

    folder = export(make_run(tmp_path / "run", TimmEncoder, TIMM), "timm")
    config = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert config["mean"] == pytest.approx([0.5, 0.4, 0.3])
    assert config["std"] == pytest.approx([0.2, 0.25, 0.3])
    assert (config["input_size"], config["num_classes"]) == (SHAPE, 0)
    if tuple(map(int, timm.__version__.split(".")[:3])) >= (1, 0, 16):
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        x = (IMAGES - torch.tensor(config["mean"]).view(-1, 1, 1)) / torch.tensor(config["std"]).view(-1, 1, 1)
        with torch.no_grad():
            torch.testing.assert_close(model(x), expected(tmp_path / "run"), rtol=0, atol=1e-6)


ALONE = """
import importlib.abc, pathlib, re, sys

class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("nc_lightning", "lightning", "pytorch_lightning"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
try:
    import nc_lightning
except ModuleNotFoundError:
    pass
else:
    sys.exit("nc_lightning is not hidden")
import os
import numpy as np
import torch
images = np.load(sys.argv[1])
for folder in sys.argv[2:]:
    os.chdir(folder)
    names = {}
    exec(re.search(r"^```python\\n(.*?)^```", open("README.md").read(), re.MULTILINE | re.DOTALL)[1], names)
    given = images if "onnxruntime" in names else torch.from_numpy(images)
    np.save("features.npy", np.asarray(names["features"](given)))
    assert names["features"](given[:1]).shape[0] == 1
"""


MANY = [(name, "safetensors") for name in ENCODERS] + [
    *(("timm", format) for format in FORMATS),
    *((name, format) for name in ("SmallCNN", "ResNet of CIFAR", "torchvision") for format in ("pt2", "onnx")),
]
FEW = [("timm", "safetensors"), ("SmallCNN", "safetensors"), ("SmallCNN", "pt2")]


@pytest.mark.slow
@pytest.mark.parametrize("cases", [pytest.param(FEW, id="few"), pytest.param(MANY, id="all", marks=LONG)])
def test_each_format_loads_where_the_package_is_not_installed(tmp_path, cases):
    runs = {name: make_run(tmp_path / name.replace(" ", ""), *ENCODERS[name]) for name in dict(cases)}
    exported = [(name, export(runs[name], format)) for name, format in cases]
    np.save(tmp_path / "images.npy", IMAGES.numpy())
    (tmp_path / "alone.py").write_text(ALONE)
    command = [sys.executable, tmp_path / "alone.py", tmp_path / "images.npy", *(folder for _, folder in exported)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name, folder in exported:
        features = torch.from_numpy(np.load(folder / "features.npy"))
        wanted = expected(runs[name])
        # ONNX Runtime sums in another order: in float32, torch itself is 8e-7 from the exact features of a ResNet.
        tolerance = 1e-6 * max(1.0, float(wanted.abs().max())) if folder.name == "encoder-onnx" else 1e-6
        torch.testing.assert_close(features, wanted, rtol=0, atol=tolerance, msg=str(folder))


class Own(nn.Module):
    """An encoder of a user, with Python control flow that depends on the values."""

    def __init__(self, input_shape, branches=False):
        super().__init__()
        self.flat, self.layer, self.branches = nn.Flatten(), nn.Linear(int(np.prod(input_shape)), 8), branches
        self.out_features = 8

    def forward(self, x):
        h = self.layer(self.flat(x))
        return -h if self.branches and x.sum() > 0 else h


@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=LONG)])
def test_an_encoder_that_cannot_be_traced(tmp_path, format, capfd):
    place = f"{Own.__module__}.Own"
    sys.modules[Own.__module__].Own = Own
    run = make_run(tmp_path / "run", Own, {"input_shape": SHAPE, "branches": True}, place)
    with pytest.raises(
        ValueError, match=rf"^format: got '{format}' for the encoder Own, which cannot be traced \("
    ) as raised:
        export(run, format)
    assert str(raised.value).endswith("; the way for any encoder is safetensors")
    assert str(raised.value).isprintable()
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in sorted(run.iterdir())] == ["checkpoints", "config.yaml"]
    folder = export(run, "safetensors")
    assert set(load_file(folder / "model.safetensors")) == {"layer.weight", "layer.bias"}
    assert f"model = ...  # your encoder, {place}" in code_of(folder)


def test_a_graph_that_differs_from_the_encoder_is_refused(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", MLP, {"input_shape": SHAPE, "hidden_features": [4]})
    whole = torch.export.export

    def wrong(module, *args, **kwargs):
        module.encoder.layers[1].weight.add_(1)
        return whole(module, *args, **kwargs)

    monkeypatch.setattr(torch.export, "export", wrong)
    monkeypatch.setattr("nc_lightning.export.encoder.TrainedEncoder.standardized", copied_encoder)
    with pytest.raises(ValueError, match=r"cannot be traced \(it computes other features than the encoder\)"):
        export(run, "pt2")
    assert not list(run.glob("*pt2*"))


def copied_encoder(self):
    import copy

    from nc_lightning.export import StandardizedEncoder

    return StandardizedEncoder(copy.deepcopy(self.encoder), self.preprocess.mean, self.preprocess.std).eval()


@pytest.fixture
def small(tmp_path):
    return make_run(tmp_path / "run", MLP, {"input_shape": SHAPE, "hidden_features": [4]})


@pytest.mark.parametrize(("epoch", "text"), [(0, "1 epoch, by"), (4, "5 epochs, by")])
def test_the_card_counts_epochs(small, epoch, text):
    path = small / "checkpoints" / "last.ckpt"
    torch.save({**read_checkpoint(path), "epoch": epoch}, path)
    assert f"| trained | {text} nc_lightning" in (export(small, "safetensors") / "README.md").read_text()


def test_the_card_has_geometry_accuracy_and_configuration_without_folders(small):
    config = (small / "config.yaml").read_text()
    (small / "config.yaml").write_text(config + "  root: /home/me/images\n")
    history = [{"epoch": 1.0, "geometry/train/nc1": 0.25, "geometry/val/nc1": 0.5}]
    RunRecord("mine", 10, 9, history=history, evaluation={"encoder": {"ncm": 0.75}}).write(small / "report.json")
    folder = export(small, "safetensors")
    card = (folder / "README.md").read_text()
    for text in (
        "# Encoder MLP, trained with HSCL",
        "| input | 3 x 32 x 32, in [0, 1], then standardized with mean 0.5, 0.4, 0.3 and std 0.2, 0.25, 0.3 |",
        "| nc1 | 0.25 | 0.5 | 0 |",
        "| nearest class mean | 0.7500 |",
        "root: images",
        "# license: add yours",
    ):
        assert text in card
    assert "/home/me" not in card
    assert json.loads((folder / "preprocessing.json").read_text())["input_shape"] == SHAPE


def test_a_checkpoint_without_an_epoch_is_refused(small):
    path = small / "checkpoints" / "last.ckpt"
    torch.save({key: value for key, value in read_checkpoint(path).items() if key != "epoch"}, path)
    with pytest.raises(
        ValueError, match=r"^run: got '.*last\.ckpt', which has no epoch, expected a checkpoint of nc-t"
    ):
        export(small, "safetensors")


def test_formats_that_do_not_fit(small, monkeypatch):
    with pytest.raises(ValueError, match=r"^format: got 'h5', expected one of safetensors, timm, pt2, onnx$"):
        export(small, "h5")
    with pytest.raises(ValueError, match=r"^format: got 'timm' for the encoder MLP, expected a run with TimmEncoder"):
        export(small, "timm")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"^format: got 'onnx', which needs onnx\w+; install it by pip install 'nc-l"):
        export(small, "onnx")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match=r"^format: got 'safetensors', which needs safetensors; install it by pip"):
        export(small, "safetensors")
    assert sorted(path.name for path in small.iterdir()) == ["checkpoints", "config.yaml"]


def test_a_graph_needs_the_shape_of_an_input(tmp_path):
    run = make_run(tmp_path / "run", TorchvisionEncoder, {"name": "mobilenet_v3_small"})
    (run / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"^format: got one that needs the shape of an input"):
        export(run, "pt2")


def test_weights_are_not_downloaded_to_be_replaced(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", TorchvisionEncoder, {"name": "mobilenet_v3_small"})
    path = run / "checkpoints" / "last.ckpt"
    checkpoint = read_checkpoint(path)
    checkpoint["hyper_parameters"]["encoder"]["init_args"]["weights"] = "DEFAULT"
    torch.save(checkpoint, path)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", None)
    export(run, "safetensors")


def test_formats_of_the_command_are_those_of_the_function():
    from nc_lightning.cli.commands import EXPORT_FORMATS

    assert tuple(FORMATS) == EXPORT_FORMATS
