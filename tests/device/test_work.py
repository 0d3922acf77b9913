"""The counted work of the loss equals the table of docs/how-to/gpus.md, and the benchmarks run on any device."""

import importlib
import sys

import pytest
import torch

from benchmarks.work import Roofline, Work
from nc_lightning.geometry import unit_ball
from nc_lightning.losses import Exponential, HSCLLoss, InfoNCE
from nc_lightning.losses.engines.autograd import general_loss
from nc_lightning.losses.engines.sorted_batch import sort_batch
from nc_lightning.losses.pairs import label_pairs
from tests.pretend_device import NAME, Machine

SIZES = [512, 1024, 2048, 4096, 8192, 16384]
FEATURE_DIM, NUM_CLASSES, BETA, TEMPERATURE = 128, 100, 5.0, 0.5
H100 = Roofline(bytes=3.35e12, flops=67e12, launch=5e-6)
"""From the data sheet, float32 without tensor cores; the 5 microseconds per launch are an estimate."""


def naive(z, labels):
    """HSCL by automatic differentiation of its expression."""
    batch, pairs = sort_batch(labels, "other_classes", False), label_pairs(labels, "other_classes")
    usable = batch.pairs(slice(0, len(z)))
    z = unit_ball(z)
    total = general_loss(z @ z.T, pairs, usable, InfoNCE(), Exponential(BETA), TEMPERATURE, False)
    return total / batch.num_pairs


def work_of(loss, n):
    """Work of a forward and backward pass, and the peak of its memory beyond the features."""
    with Machine(values=False) as machine:
        z = torch.randn(n, FEATURE_DIM).to(NAME).requires_grad_()
        labels = (torch.arange(n) % NUM_CLASSES).to(NAME)
        before = machine.peak = machine.memory
        with Work(NAME) as work:
            loss(z, labels).backward()
    return work, machine.peak - before


def row(n):
    """A row of the table, by numbers."""
    ours, peak = work_of(HSCLLoss(beta=BETA, temperature=TEMPERATURE), n)
    peer, its_peak = work_of(naive, n)
    return [
        n,
        *(ours.kernels, peer.kernels),
        *(ours.bytes / 1e6, peer.bytes / 1e6),
        *(ours.flops / 1e9, peer.flops / 1e9),
        *(peak / 2**20, its_peak / 2**20),
        *(ours.least_seconds(H100) * 1e3, peer.least_seconds(H100) * 1e3),
    ]


@pytest.mark.parametrize("n", SIZES)
def test_the_table_in_the_docs_equals_the_counted_work(repository, n):
    lines = (repository / "docs" / "how-to" / "gpus.md").read_text().splitlines()
    (written,) = (line for line in lines if line.startswith(f"| {n:,} | "))
    numbers = [float(cell.replace(",", "")) for cell in written.strip("| ").split(" | ")]
    # Other versions of torch may run one kernel more or less.
    assert numbers == pytest.approx(row(n), rel=0.1, abs=0.006)


@pytest.mark.parametrize("n", SIZES)
def test_the_loss_moves_and_holds_less_than_automatic_differentiation(n):
    ours, peak = work_of(HSCLLoss(beta=BETA, temperature=TEMPERATURE), n)
    peer, its_peak = work_of(naive, n)
    assert ours.bytes < 0.6 * peer.bytes
    assert peak < 0.6 * its_peak
    assert ours.flops < 0.7 * peer.flops
    assert ours.least_seconds(H100) < 0.7 * peer.least_seconds(H100)


@pytest.mark.parametrize(
    ("benchmark", "arguments", "expected"),
    [
        (
            "loss",
            "--rounds 1 --sizes 520 --feature_dim 8 --precision bf16",
            "kernels",
        ),  # too large for the paper's loop
        ("loss_memory", "--only ours --sizes 64 --feature_dim 8", "0."),
        ("metrics", "--rounds 1 --samples 600 --feature_dim 4 --num_classes 3", "a pretend device"),
    ],
)
def test_benchmarks_run_on_any_device(monkeypatch, capsys, benchmark, arguments, expected):
    command = importlib.import_module(f"benchmarks.{benchmark}")
    monkeypatch.setattr(sys, "argv", [benchmark, *arguments.split(), "--device", NAME])
    if benchmark == "loss":
        monkeypatch.setattr("benchmarks.device.roofline", lambda device, dtype: H100)
    with Machine():
        command.main()
    assert expected in capsys.readouterr().out
