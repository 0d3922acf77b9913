"""The pretend device itself: it refuses what a GPU refuses and counts waits and launches."""

import pytest
import torch
from torch.utils import backend_registration

from tests.pretend_device import HOOK, NAME, Generator, Machine


@pytest.fixture
def _pretend():
    """Replace the fixture of the other tests: this file must fail, not skip, when the hook is missing."""


def test_torch_has_the_hook():
    assert hasattr(backend_registration, HOOK), (
        f"torch {torch.__version__} has no torch.utils.backend_registration.{HOOK}: nothing in tests/device runs, and "
        "nothing shows what breaks on GPUs. Find what has taken its place, and use it in tests/pretend_device.py"
    )


def test_values_are_real():
    with Machine():
        x = torch.arange(3.0).to(NAME).requires_grad_()
        assert x.device == torch.device(NAME, 0)
        x.square().sum().backward()
        assert x.grad.tolist() == [0.0, 2.0, 4.0]


def test_operations_on_both_devices_are_refused():
    with Machine(), pytest.raises(RuntimeError, match="same device, found pretend:0 and cpu"):
        torch.ones(2).to(NAME) + torch.ones(2)


def test_a_number_may_stay_on_the_cpu():
    with Machine():
        assert (torch.ones(2).to(NAME) + torch.tensor(1.0)).tolist() == [2.0, 2.0]


@pytest.mark.parametrize(("of", "place"), [("cpu", NAME), (NAME, "cpu")])
def test_generators_of_the_other_device_are_refused(of, place):
    with Machine(), pytest.raises(RuntimeError, match="expected a generator of"):
        torch.rand(2, device=place, generator=Generator(of))


def test_losses_work_on_a_device_without_float64():
    with Machine(float64=False), pytest.raises(TypeError, match="does not support float64"):
        torch.ones(2).to(NAME).double()


@pytest.mark.parametrize(
    ("what", "wait"),
    [
        (lambda x: x.sum().item(), "item"),
        (lambda x: x.cpu(), "to the CPU"),
        (lambda x: torch.tensor([1.0], device=x.device), "from the CPU"),
        (lambda x: x[x > 0], "index by mask"),
        (lambda x: torch.nonzero(x), "nonzero"),
        (lambda x: x[torch.tensor([0])], "index from the CPU"),
        (lambda x: x.copy_(torch.zeros(2)), "copy"),
        (lambda x: x.copy_(torch.zeros(2), non_blocking=True), None),
        (lambda x: torch.ones(2**15).to(NAME, non_blocking=True), "from memory that is not pinned"),
        (lambda x: torch.ones(2**15).pin_memory().to(NAME, non_blocking=True), None),
        (lambda x: x.masked_fill(x > 0, 0.0), None),
        (lambda x: torch.full((2,), 1.0, device=x.device), None),
    ],
)
def test_synchronizations_are_counted(what, wait):
    with Machine() as machine:
        x = torch.ones(2).to(NAME)
        machine.phase = "call"
        what(x)
    assert {kind for kind, _ in machine.waits_in("call")} == ({wait} if wait else set())


def test_launches_are_counted():
    with Machine() as machine:
        x = torch.ones(2, 2).to(NAME)
        machine.phase = "call"
        (x @ x).t().add_(1)
    assert machine.launches_in("call") == 2


def test_without_values_only_integers_are_computed():
    with Machine(values=False) as machine:
        x = torch.ones(4, 3).to(NAME)
        labels = torch.arange(4).to(NAME)
        machine.phase = "call"
        product = (x @ x.T).masked_fill(labels[:, None] == labels, 0.0)
        assert product.shape == (4, 4)
        assert product.held.is_meta
        assert labels.sum().item() == 6
        with pytest.raises(RuntimeError, match="meta"):
            product.sum().item()
    assert machine.launches_in("call") == 5
