import pytest
import torch

from nc_lightning.encoders import MLP, ProjectionHead, SmallCNN


@pytest.mark.parametrize(
    ("encoder", "shape"),
    [(MLP((1, 8, 16), (32, 20)), (1, 8, 16)), (MLP([5], [7]), (5,)), (SmallCNN((3, 9, 7), width=4), (3, 9, 7))],
)
def test_out_features_is_true(encoder, shape):
    assert encoder(torch.randn(2, *shape)).shape == (2, encoder.out_features)


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
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
