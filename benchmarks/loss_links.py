"""Time and memory of losses with other links and hardenings, and with drawn negatives; on a CPU, Linux only.

    python -m benchmarks.loss_links [--size 2048] [--feature_dim 128] [--num_classes 100] [--rounds 5]

Each is compared with plain automatic differentiation of the same loss over the whole matrix of similarities, in
alternation. Times are multiples of the floor of `benchmarks/loss.py` in the same round, as medians and ranges over
rounds. MiB are the peak in a process of its own beyond the features, forward and backward.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch

from benchmarks import results
from benchmarks.device import name_of, seconds
from benchmarks.loss import BETA, TEMPERATURE, batch, floor, forward_backward
from benchmarks.loss_memory import peak_of
from nc_lightning.losses import ContrastiveLoss, HSCLLoss, HUCLLoss, Logistic, Polynomial, Threshold, Triplet
from nc_lightning.losses.engines import tile_sizes
from nc_lightning.losses.hardening import ValueThreshold

LOSSES: dict[str, Callable[[], ContrastiveLoss]] = {
    "InfoNCE, exponential": lambda: HSCLLoss(BETA, TEMPERATURE),
    "InfoNCE, polynomial": lambda: HSCLLoss(temperature=TEMPERATURE, hardening=Polynomial(BETA)),
    "InfoNCE, value threshold": lambda: HSCLLoss(temperature=TEMPERATURE, hardening=ValueThreshold(0.1)),
    "InfoNCE, threshold": lambda: HSCLLoss(temperature=TEMPERATURE, hardening=Threshold(0.1)),
    "InfoNCE, debiased, unsupervised": lambda: HUCLLoss(BETA, TEMPERATURE, tau_plus=0.01),
    "triplet": lambda: HSCLLoss(BETA, TEMPERATURE, link=Triplet()),
    "logistic": lambda: HSCLLoss(BETA, TEMPERATURE, link=Logistic()),
    "InfoNCE, 64 negatives drawn per pair": lambda: HSCLLoss(BETA, TEMPERATURE, num_negatives=64),
}


@contextmanager
def whole_matrix() -> Iterator[None]:
    """Compute losses by plain automatic differentiation, all anchors at once."""
    at_once = tile_sizes.CPU._replace(row_block=2**62)
    with patch.object(tile_sizes, "CPU", at_once), patch.object(ContrastiveLoss, "_is_tiled", lambda *_: False):
        yield


def call_of(name: str, whole: bool, n: int, feature_dim: int, num_classes: int) -> Callable[[], None]:
    """Return a call of a loss, forward and backward."""
    call = forward_backward(LOSSES[name](), *batch(n, feature_dim, num_classes))
    if not whole:
        return call

    def at_once() -> None:
        with whole_matrix():
            call()

    return at_once


def extra_mebibytes(name: str, whole: bool, sizes: tuple[int, int, int]) -> float:
    """Peak memory during one call in this process, minus the memory before."""
    call_of(name, whole, 64, sizes[1], 4)()
    return peak_of(call_of(name, whole, *sizes))


def main() -> None:
    """Print one row for each loss."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--feature_dim", type=int, default=128)
    parser.add_argument("--num_classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    results.add_argument(parser)
    parser.add_argument("--only", help="print the memory of one loss, measured in this process")
    parser.add_argument("--whole", action="store_true", help="with --only: by plain automatic differentiation")
    arguments = parser.parse_args()
    sizes = (arguments.size, arguments.feature_dim, arguments.num_classes)
    if arguments.only:
        print(extra_mebibytes(arguments.only, arguments.whole, sizes))
        return
    z, table, cpu = batch(*sizes)[0], [], torch.device("cpu")
    for name in LOSSES:
        calls = {"floor": lambda: floor(z), "ours": call_of(name, False, *sizes), "whole": call_of(name, True, *sizes)}
        rounds = [{key: seconds(call, cpu) for key, call in calls.items()} for _ in range(arguments.rounds + 1)][1:]
        row: dict[str, float | str | None] = {"loss": name}
        for key, title in {"ours": "ours", "whole": "whole matrix"}.items():
            row[title] = results.spread([each[key] / each["floor"] for each in rounds], digits=1)
        command = [sys.executable, "-m", "benchmarks.loss_links", "--only", name, "--size", str(sizes[0])]
        command += ["--feature_dim", str(sizes[1]), "--num_classes", str(sizes[2])]
        for whole, title in {"": "ours, MiB", "--whole": "whole matrix, MiB"}.items():
            run = subprocess.run([*command, *whole.split()], check=True, capture_output=True, text=True)
            row[title] = round(float(run.stdout))
        print(", ".join(f"{key} {value}" for key, value in row.items()))
        table.append(row)
    results.write(arguments.json, name_of(cpu), table)


if __name__ == "__main__":
    main()
