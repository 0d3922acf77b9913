"""Computation on the CPU and on the pretend device, and a comparison of both."""

import torch

from tests.pretend_device import NAME, Machine


def on_both(make, *inputs, gradient=True, float64=True):
    """Return what ``make()(*inputs)`` gives on the CPU and on the device, as lists of tensors, and the machine.

    Args:
        make: Makes the function, once for each device.
        inputs: Moved to the device where they are tensors.
        gradient: Whether to add the gradient of the first input, for a function that returns a number.
        float64: Whether the device has float64.
    """
    results = []
    for device in ("cpu", NAME):
        torch.manual_seed(0)
        with Machine(float64) as machine:
            moved = [x.to(device) if isinstance(x, torch.Tensor) else x for x in inputs]
            if gradient:
                moved[0] = moved[0].detach().requires_grad_()
            machine.phase = "call"
            result = make()(*moved)
            if gradient:
                result.backward()
                result = [result.detach(), moved[0].grad]
            machine.phase = ""
            result = list(result.values()) if isinstance(result, dict) else result
            result = result if isinstance(result, (list, tuple)) else [result]
            assert not gradient or result[1].device.type == device
            results.append([torch.as_tensor(r).cpu() for r in result])
    return results, machine


def same_on_both(make, *inputs, **options):
    """Assert that both devices give the same up to rounding; return the machine."""
    (cpu, device), machine = on_both(make, *inputs, **options)
    for a, b in zip(cpu, device, strict=True):
        torch.testing.assert_close(b, a, rtol=2e-6 if options.get("float64", True) else 1e-4, atol=1e-6, equal_nan=True)
    return machine
