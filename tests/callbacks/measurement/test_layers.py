"""Features of several layers are those that the layers compute, from one forward pass."""

import pytest
import torch
from jsonargparse import ArgumentParser
from torch import nn

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, OnlineKNN
from nc_lightning.callbacks.measurement.layers import layer_features
from nc_lightning.callbacks.prediction_writer import PredictionWriter
from nc_lightning.encoders import ProjectionHead, SmallCNN


class Tokens(nn.Module):
    """Returns tokens (N, T, d) in a dict, and works in place afterwards."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(4, 6)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return {"features": self.relu(self.embed(x)).mean(1)}


@pytest.mark.parametrize("callback", [GeometryMonitor, OnlineKNN, PredictionWriter])
@pytest.mark.parametrize("given", ["encoder,resize.0", " encoder, resize.0", '["encoder", "resize.0"]'])
def test_layers_are_a_list_or_separated_by_commas_on_the_command_line(callback, given):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(callback, "callback")
    made = parser.instantiate_classes(parser.parse_args(["--callback.layers", given]))
    assert made.callback.layers == ("encoder", "resize.0")


def test_features_of_named_layers_are_those_the_layers_return():
    model = HSCL(encoder=SmallCNN((3, 16, 16)), num_classes=10, projector=ProjectionHead).eval()
    x = torch.randn(5, 3, 16, 16)
    conv = next(name for name, part in model.encoder.named_modules() if isinstance(part, nn.Conv2d))
    found = layer_features(model, x, ["encoder", "z", f"encoder.{conv}"])
    assert torch.equal(found["encoder"], model.encoder(x))
    assert torch.equal(found["z"], model(x))
    assert list(found) == ["encoder", "z", f"encoder.{conv}"]
    first = model.encoder.get_submodule(conv)(x)
    assert torch.allclose(found[f"encoder.{conv}"], torch.stack([image.mean((1, 2)) for image in first]), atol=1e-6)
    assert not any(part._forward_hooks for part in model.modules())


def test_tokens_are_averaged_before_a_layer_in_place_changes_them():
    model, x = Tokens(), torch.randn(3, 7, 4)
    found = layer_features(model, x, "embed,z")
    assert torch.allclose(found["embed"], model.embed(x).mean(1))
    assert torch.equal(found["z"], model(x)["features"])


def test_a_layer_called_z_is_the_layer():
    model = nn.ModuleDict({"z": nn.Linear(2, 3)})
    model.forward = lambda x: model["z"](x) * 0
    assert layer_features(model, torch.ones(2, 2), ["z"])["z"].abs().sum() > 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (["encodr"], "layers: got 'encodr', expected z or a submodule of HSCL, such as encoder"),
        (["encoder", "encoder"], r"layers: got .'encoder', 'encoder'., expected different names"),
        (["loss"], "layers: got 'loss', which the forward pass of HSCL runs 0 times, expected once"),
    ],
)
def test_bad_layers_are_refused_with_one_line(layers, message):
    model = HSCL(encoder=SmallCNN((3, 16, 16)), num_classes=10)
    with pytest.raises(ValueError, match="^" + message):
        layer_features(model, torch.randn(2, 3, 16, 16), layers)
    assert not any(part._forward_hooks for part in model.modules())
