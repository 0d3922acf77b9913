"""Measure the memory that a contrastive loss takes, forward and backward, beyond its features; on a CPU, Linux only.

    pip install pytorch-metric-learning lightly
    python -m benchmarks.loss_memory [--sizes 4096 16384 65536] [--feature_dim 128] [--num_classes 100]
    python -m benchmarks.loss_memory --device cuda --precision bf16

Each loss of `benchmarks/loss.py` runs in its own process, after a small batch has allocated what the loss always needs.
The result is the peak of resident memory in one forward and backward pass, minus the memory before; it includes the
gradient of the features. A GPU counts its own allocations.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import device as of_device
from benchmarks import results
from benchmarks.loss import batch, contenders, empty_row, forward_backward


def extra_mebibytes(
    name: str, n: int, feature_dim: int, num_classes: int, device: torch.device, dtype: torch.dtype
) -> float:
    """Peak memory during one call, minus the memory before."""
    loss = contenders(n)[name]

    def moved(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return z.to(device, dtype), labels.to(device)

    forward_backward(loss, *moved(*batch(64, feature_dim, 4)))()
    z, labels = moved(*batch(n, feature_dim, num_classes))
    leaf = z.requires_grad_()
    if device.type != "cpu":
        extra = of_device.extra_memory(lambda: loss(leaf, labels).backward(), device)
        return float("nan") if extra is None else extra / 2**20
    return peak_of(lambda: loss(leaf, labels).backward())


def peak_of(call: Callable[[], object]) -> float:
    """MiB of the peak of resident memory during a call, minus the memory before; on Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the resident memory
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(key: str) -> float:
    """MiB of a line of the process status, such as VmRSS, or VmHWM for its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) / 1024


def main() -> None:
    """Print one row for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 16384, 65536])
    parser.add_argument("--feature_dim", type=int, default=128)
    parser.add_argument("--num_classes", type=int, default=100)
    of_device.add_arguments(parser)
    results.add_argument(parser)
    parser.add_argument("--only", help="print the number of one loss, at one size, measured in this process")
    arguments = parser.parse_args()
    shape = (arguments.feature_dim, arguments.num_classes)
    device, dtype = arguments.device, of_device.dtype_of(arguments.precision)
    if arguments.only:
        print(extra_mebibytes(arguments.only, arguments.sizes[0], *shape, device, dtype))
        return
    print(f"MiB beyond the features, forward and backward, {arguments.precision}, {of_device.name_of(device)}")
    table = []
    for n in arguments.sizes:
        row = empty_row(n)
        for name in contenders(n):
            size = f"--sizes {n} --feature_dim {shape[0]} --num_classes {shape[1]}"
            size += f" --device {device} --precision {arguments.precision}"
            command = [sys.executable, "-m", "benchmarks.loss_memory", "--only", name, *size.split()]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            row[name] = round(float(run.stdout))
        print(f"{n:>6}  " + "  ".join(f"{name} {row[name]}" for name in contenders(n)))
        table.append(row)
    results.write(arguments.json, of_device.name_of(device), table)


if __name__ == "__main__":
    main()
