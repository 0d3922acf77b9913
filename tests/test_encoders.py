import copy
import os

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from nc_lightning.cli import main
from nc_lightning.encoders import MLP, ProjectionHead, ResNet, SmallCNN, SmallResNet, TimmEncoder, TorchvisionEncoder
from nc_lightning.encoders.width import width_of


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (MLP((1, 8, 16), (32, 20)), (1, 8, 16)),
        (MLP([5], [7]), (5,)),
        (SmallCNN((3, 9, 7), width=4), (3, 9, 7)),
        (SmallResNet((3, 9, 7), widths=[4, 6]), (3, 9, 7)),
        (SmallResNet((1, 8, 8), widths=[4], patch=1), (1, 8, 8)),
        (ResNet((3, 16, 16), 18), (3, 16, 16)),
        (ResNet((1, 16, 16), 34), (1, 16, 16)),
        (ResNet((3, 33, 33), 50, stem="imagenet"), (3, 33, 33)),
        (TorchvisionEncoder("mobilenet_v3_small"), (3, 32, 32)),
        (TorchvisionEncoder("vgg11_bn"), (3, 32, 32)),
        (TorchvisionEncoder("mobilenet_v3_small", input_shape=(1, 8, 8)), (1, 8, 8)),
        (TorchvisionEncoder("regnet_y_400mf", input_shape=(4, 32, 40)), (4, 32, 40)),
        (TimmEncoder("resnet10t", (1, 32, 32)), (1, 32, 32)),
        (TimmEncoder("vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8}), (3, 32, 32)),
    ],
)
def test_out_features_is_correct(encoder, shape):
    assert encoder(torch.randn(2, *shape)).shape == (2, encoder.out_features)


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU()), (3, 2, 2)),
        (nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten()), (2, 9, 9)),
        (nn.Sequential(nn.Conv1d(2, 5, 3), nn.AdaptiveMaxPool1d(2), nn.Flatten()), (2, 20)),
        (timm.create_model("resnet10t", num_classes=0), (3, 32, 32)),
        (timm.create_model("mobilenetv3_small_050", num_classes=0), (3, 32, 32)),  # its num_features is not its width
    ],
)
def test_a_width_that_no_attribute_tells_is_that_of_the_output(encoder, shape):
    encoder[-1].eval() if isinstance(encoder, nn.Sequential) else encoder.eval()
    modes, state = [part.training for part in encoder.modules()], copy.deepcopy(encoder.state_dict())
    width = width_of(encoder)
    assert [part.training for part in encoder.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in encoder.state_dict().items())
    assert encoder(torch.zeros(2, *shape)).shape == (2, width)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (nn.Flatten(), "got Flatten without an integer out_features, expected one"),
        (nn.Sequential(nn.LazyLinear(3)), "got Sequential without an integer out_features, expected one"),
        (nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten()), "is not .N, d. with one d for every image size"),
        (nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)), r"a trial input of shape \(1, 3\) fails"),
        (nn.Sequential(nn.Conv2d(1, 3, 3)), "is not .N, d."),
        (timm.create_model("resnet10t"), "of timm with a classifier, .* num_classes=0"),
        (models.resnet18(), "of torchvision with a classifier, .* encoder.fc = torch.nn.Identity"),
    ],
)
def test_a_width_that_is_unknown_is_refused(encoder, message):
    with pytest.raises(ValueError, match=f"^encoder: .*{message}"):
        width_of(encoder)


def test_the_stem_for_small_images_keeps_their_resolution():
    def before_the_blocks(stem):
        layers = ResNet((3, 32, 32), stem=stem).layers
        return layers.maxpool(layers.conv1(torch.zeros(1, 3, 32, 32))).shape[2:]

    assert before_the_blocks("cifar") == (32, 32)
    assert before_the_blocks("imagenet") == (8, 8)


def test_each_block_after_the_first_halves_the_resolution():
    _, _, _, first, second, third, *_ = layers = SmallResNet((3, 32, 32), widths=[4, 6, 8]).layers
    x = layers[:3](torch.rand(2, 3, 32, 32))
    assert x.shape == (2, 4, 8, 8)
    assert [(x := block(x)).shape[1:] for block in (first, second, third)] == [(4, 8, 8), (6, 4, 4), (8, 2, 2)]


def test_the_projector_has_no_bias_before_its_batch_norm():
    head = ProjectionHead(16, 9)
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None


def test_every_parameter_gets_a_gradient():
    for module, x in (
        (MLP((4,)), torch.randn(8, 4)),
        (SmallCNN((1, 8, 8)), torch.randn(8, 1, 8, 8)),
        (SmallResNet((1, 32, 32), widths=[4, 6]), torch.randn(8, 1, 32, 32)),
        (ProjectionHead(4, 3), torch.randn(8, 4)),
    ):
        module(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP((4,), ()), "hidden_features: got no layer"),
        (lambda: MLP((4,), (0,)), "hidden_features: got 0"),
        (lambda: MLP((0,), (4,)), "input_shape: got 0"),
        (lambda: SmallCNN((8, 8)), r"input_shape: got \(8, 8\), expected \(channels, height, width\)"),
        (lambda: SmallCNN((1, 8, 8), width=0), "width: got 0"),
        (lambda: SmallResNet((8, 8)), r"input_shape: got \(8, 8\), expected \(channels, height, width\)"),
        (lambda: SmallResNet((3, 32, 32), widths=()), "widths: got no block"),
        (lambda: SmallResNet((3, 32, 32), widths=(8, 0)), "widths: got 0"),
        (lambda: SmallResNet((3, 32, 32), patch=0), "patch: got 0"),
        (lambda: SmallResNet((3, 2, 9), patch=4), r"patch: got 4 for images \(3, 2, 9\), expected at most"),
        (lambda: ProjectionHead(4, 0), "out_features: got 0"),
        (lambda: ResNet((8, 8)), r"input_shape: got \(8, 8\), expected"),
        (lambda: ResNet(depth=19), "depth: got 19, expected one of 18, 34, 50"),
        (lambda: TorchvisionEncoder("resnet19"), "name: got 'resnet19', expected one of torchvision"),
        (lambda: TorchvisionEncoder("resnet81"), r"list_models\(\); did you mean resnet18\?$"),
        (lambda: TorchvisionEncoder("squeezenet1_0"), "name: got 'squeezenet1_0', which does not end in one linear"),
        (lambda: TorchvisionEncoder("googlenet"), "name: got 'googlenet', which does not end in one linear"),
        (
            lambda: TorchvisionEncoder("resnet18", "NOSUCH"),
            "weights: got 'NOSUCH', expected one of DEFAULT, IMAGENET1K_V1",
        ),
        (lambda: TorchvisionEncoder("resnet18", "ResNet50_Weights.DEFAULT"), "weights: got 'ResNet50_Weights.DEFAULT'"),
        (
            lambda: TorchvisionEncoder("densenet121", input_shape=(1, 8, 8)),
            r"name: got 'densenet121' for images \(1, 8, 8\): Given",
        ),
        (lambda: TorchvisionEncoder("resnet18", input_shape=(8, 8)), r"input_shape: got \(8, 8\), expected"),
        (
            lambda: TimmEncoder("resnet10t", options={"global_pool": ""}),
            r"name: got 'resnet10t' for images .3, 32, 32.: its output has shape \(1, 512, 1, 1\), expected features",
        ),
        (lambda: TimmEncoder("resnet10t", options={"features_only": True}), "name: got 'resnet10t' for images"),
        (lambda: TimmEncoder("resnet81"), r"name: got 'resnet81', expected one of timm.*; did you mean resnet18\?$"),
        (lambda: TimmEncoder("vit_tiny_patch16_224"), "name: got 'vit_tiny_patch16_224' for images .3, 32, 32.: Input"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gray_images_are_converted_to_gray_rgb():
    gray = torch.rand(2, 1, 32, 32)
    torch.manual_seed(1)
    color = TorchvisionEncoder("resnet18").eval()
    torch.manual_seed(1)
    ours = TorchvisionEncoder("resnet18", input_shape=(1, 32, 32)).eval()
    assert ours.layers.conv1.weight.shape[1] == 1
    assert torch.allclose(ours(gray), color(gray.expand(-1, 3, -1, -1)), atol=1e-5)
    assert TorchvisionEncoder("resnet18", input_shape=(3, 32, 32)).training


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch):
    def fail(*_, **__):
        raise OSError("no network\nhere")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    with pytest.raises(
        OSError, match="weights: got 'DEFAULT', which cannot be downloaded: no network here; put the file"
    ):
        TorchvisionEncoder("resnet18", "DEFAULT")


class NoArguments(nn.Module):
    out_features = 64

    def forward(self, x):
        return x.flatten(1)


class OtherArguments(NoArguments):
    def __init__(self, scale: float = 2.0):
        super().__init__()
        self.scale = scale


FIT = ["fit", "--config", "hscl.yaml", "--trainer.fast_dev_run", "1", "--trainer.enable_progress_bar", "false"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["NoArguments", "OtherArguments"])
def test_custom_encoders_need_no_input_shape(in_tmp, monkeypatch, name):
    cli = main([*FIT, f"--model.encoder=tests.test_encoders.{name}"])
    assert type(cli.model.encoder).__name__ == name
    assert "input_shape" not in cli.model.hparams["encoder"].get("init_args", {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MLP", "SmallCNN", "TorchvisionEncoder"])
def test_encoders_with_an_input_shape_argument_receive_it(in_tmp, name):
    options = ["--model.encoder.name=mobilenet_v3_small"] if name == "TorchvisionEncoder" else []
    cli = main([*FIT, f"--model.encoder=nc_lightning.encoders.{name}", *options])
    assert cli.model.hparams["encoder"]["class_path"] == f"nc_lightning.encoders.{name}"
    assert cli.model.hparams["encoder"]["init_args"]["input_shape"] == [1, 8, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["TorchvisionEncoder", "name=densenet121"], "name: got 'densenet121' for images (1, 8, 8): Given input size"),
        (["TorchvisionEncoder", "name=resnet18", "weights=NOSUCH"], "weights: got 'NOSUCH', expected one of DEFAULT"),
        (
            ["TimmEncoder", "name=resnet10t", "options={global_pool: ''}"],
            "its output has shape (1, 512, 1, 1), expected",
        ),
    ],
)
def test_encoders_are_refused_in_one_line(in_tmp, refusal, options, message):
    name, *settings = options
    arguments = [
        f"--model.encoder=nc_lightning.encoders.{name}",
        *(f"--model.encoder.{setting}" for setting in settings),
    ]
    assert message in refusal(main, [*FIT, *arguments])
