import pytest
import torch

from nc_lightning.encoders import MLP, ProjectionHead, ResNet, SmallCNN, TimmEncoder, TorchvisionEncoder


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [
        (MLP((1, 8, 16), (32, 20)), (1, 8, 16)),
        (MLP([5], [7]), (5,)),
        (SmallCNN((3, 9, 7), width=4), (3, 9, 7)),
        (ResNet((3, 16, 16), 18), (3, 16, 16)),
        (ResNet((1, 16, 16), 34), (1, 16, 16)),
        (ResNet((3, 33, 33), 50, stem="imagenet"), (3, 33, 33)),
        (TorchvisionEncoder("mobilenet_v3_small"), (3, 32, 32)),
        (TorchvisionEncoder("vgg11_bn"), (3, 32, 32)),
        (TimmEncoder("resnet10t", (1, 32, 32)), (1, 32, 32)),
        (TimmEncoder("vit_tiny_patch16_224", options={"img_size": 32, "patch_size": 8}), (3, 32, 32)),
    ],
)
def test_out_features_is_true(encoder, shape):
    assert encoder(torch.randn(2, *shape)).shape == (2, encoder.out_features)


def test_the_stem_for_small_images_keeps_their_resolution():
    def before_the_blocks(stem):
        layers = ResNet((3, 32, 32), stem=stem).layers
        return layers.maxpool(layers.conv1(torch.zeros(1, 3, 32, 32))).shape[2:]

    assert before_the_blocks("cifar") == (32, 32)
    assert before_the_blocks("imagenet") == (8, 8)


def test_the_projector_has_no_bias_before_its_batch_norm():
    head = ProjectionHead(16, 9)
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None


def test_every_parameter_gets_a_gradient():
    for module, x in (
        (MLP((4,)), torch.randn(8, 4)),
        (SmallCNN((1, 8, 8)), torch.randn(8, 1, 8, 8)),
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
        (lambda: ProjectionHead(4, 0), "out_features: got 0"),
        (lambda: ResNet((8, 8)), r"input_shape: got \(8, 8\), expected"),
        (lambda: ResNet(depth=19), "depth: got 19, expected one of 18, 34, 50"),
        (lambda: TorchvisionEncoder("resnet19"), "name: got 'resnet19', expected one of torchvision"),
        (lambda: TorchvisionEncoder("squeezenet1_0"), "name: got 'squeezenet1_0', which does not end in one linear"),
        (lambda: TorchvisionEncoder("googlenet"), "name: got 'googlenet', which does not end in one linear"),
        (lambda: TimmEncoder("resnet19"), "name: got 'resnet19' for images .*Unknown model"),
        (lambda: TimmEncoder("vit_tiny_patch16_224"), "name: got 'vit_tiny_patch16_224' for images .3, 32, 32.: Input"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
