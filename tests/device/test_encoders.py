"""Every encoder and head equals its CPU result on the device, forward and backward, without a host wait."""

import copy

import pytest
import torch

from nc_lightning import encoders
from nc_lightning.encoders import MLP, ProjectionHead, ResNet, SmallCNN, SmallResNet, TimmEncoder, TorchvisionEncoder
from tests.pretend_device import NAME, Machine

MADE = {
    "MLP": (lambda: MLP((1, 8, 8), [16, 12]), (1, 8, 8)),
    "SmallCNN": (lambda: SmallCNN((3, 8, 8), width=4), (3, 8, 8)),
    "SmallResNet": (lambda: SmallResNet((3, 8, 8), widths=[4, 6]), (3, 8, 8)),
    "ResNet": (lambda: ResNet((3, 16, 16)), (3, 16, 16)),
    "ResNet, imagenet": (lambda: ResNet((1, 33, 33), stem="imagenet"), (1, 33, 33)),
    "TorchvisionEncoder": (lambda: TorchvisionEncoder("mobilenet_v3_small"), (3, 32, 32)),
    "TimmEncoder": (lambda: TimmEncoder("resnet10t", (1, 32, 32)), (1, 32, 32)),
    "ProjectionHead": (lambda: ProjectionHead(16, 5, 8), (16,)),
}
MODULES = {name for name, value in vars(encoders).items() if getattr(value, "__module__", "") == encoders.__name__}


def test_every_encoder_is_tested_on_the_device():
    assert {name for name in MODULES if name[0].isupper()} <= {*MADE}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MADE)
def test_encoders_give_the_values_of_the_cpu_without_synchronization(name, training):
    make, shape = MADE[name]
    torch.manual_seed(0)
    network = make().train(training)
    on_cpu, x = copy.deepcopy(network), torch.rand(4, *shape)
    torch.manual_seed(1)  # of dropout
    expected = on_cpu(x)
    expected.square().sum().backward()
    with Machine() as machine:
        network, x = network.to(NAME), x.to(NAME)
        torch.manual_seed(1)
        machine.phase = "step"
        z = network(x)
        z.square().sum().backward()
        machine.phase = ""
        torch.testing.assert_close(z.detach().cpu(), expected.detach(), rtol=0, atol=1e-6)
        for (key, p), q in zip(network.named_parameters(), on_cpu.parameters(), strict=True):
            torch.testing.assert_close(p.grad.cpu(), q.grad, rtol=1e-5, atol=1e-5 * float(q.grad.abs().max()), msg=key)
        for p, q in zip(network.buffers(), on_cpu.buffers(), strict=True):
            torch.testing.assert_close(p.cpu(), q, rtol=0, atol=1e-6)
    assert machine.waits_in("step") == {}
