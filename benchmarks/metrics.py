"""Time all geometry measures of 50,000 features in batches against two passes and against a lower limit.

    python -m benchmarks.metrics [--samples 50000] [--feature_dim 512] [--num_classes 100] [--rounds 5] [--device cuda]

All are timed in alternation, and the median over rounds of the ratio to ours is reported. The features are in memory as
float32 and are read in batches of 512.

    ours       NeuralCollapse: one update for each batch, then compute
    two-pass   the method of public toolkits: class means in a first pass, covariances in a second one, sample by
               sample of each class in float64; then only NC1, with the pseudo-inverse, and NC2
    product    only the product of the scatter: one float64 product of each batch with itself, and its conversion
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import device as of_device
from benchmarks import results
from nc_lightning.metrics import NeuralCollapse

BATCH = 512


def ours(z: Tensor, labels: Tensor, num_classes: int) -> dict[str, Tensor]:
    """Every measure, in one pass."""
    metric = NeuralCollapse(num_classes, z.shape[1]).to(z.device)
    for rows, y in zip(z.split(BATCH), labels.split(BATCH), strict=True):
        metric.update(rows, y)
    values: dict[str, Tensor] = metric.compute()
    return values


def two_pass(z: Tensor, labels: Tensor, num_classes: int) -> dict[str, Tensor]:
    """NC1 and NC2 as public toolkits compute them: means, then covariances class by class, then a pseudo-inverse."""
    d = z.shape[1]
    wide: Any = {"dtype": torch.float64, "device": z.device}
    sums, counts = torch.zeros(num_classes, d, **wide), torch.zeros(num_classes, **wide)
    for rows, y in zip(z.split(BATCH), labels.split(BATCH), strict=True):
        for c in y.unique():
            sums[c] += rows[y == c].double().sum(0)
            counts[c] += (y == c).sum()
    means = sums / counts[:, None]
    within = torch.zeros(d, d, **wide)
    for rows, y in zip(z.split(BATCH), labels.split(BATCH), strict=True):
        for c in y.unique():
            centered = rows[y == c].double() - means[c]
            within += centered.T @ centered
    within /= len(z)
    centered = means - means.mean(0)
    between = centered.T @ centered / num_classes
    nc1 = (within @ torch.linalg.pinv(between, rtol=1e-5, hermitian=True)).trace() / num_classes
    norms = centered.norm(dim=1)
    cosines = torch.nn.functional.normalize(centered) @ torch.nn.functional.normalize(centered).T
    off = cosines[~torch.eye(num_classes, dtype=torch.bool, device=z.device)]
    return {"nc1_pinv": nc1, "nc2_equinorm": norms.std(correction=0) / norms.mean(), "nc2_equiangular": off.std()}


def product(z: Tensor, labels: Tensor, num_classes: int) -> None:
    """The matrix product that the scatter needs."""
    scatter = torch.zeros(z.shape[1], z.shape[1], dtype=torch.float64, device=z.device)
    for rows in z.split(BATCH):
        wide = rows.double()
        scatter.addmm_(wide.T, wide)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--feature_dim", type=int, default=512)
    parser.add_argument("--num_classes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    of_device.add_arguments(parser, precision=False)
    results.add_argument(parser)
    arguments = parser.parse_args()
    device = arguments.device
    torch.manual_seed(0)
    labels = torch.randint(arguments.num_classes, (arguments.samples,))
    z = torch.randn(arguments.num_classes, arguments.feature_dim)[labels]
    z += 0.1 * torch.randn(arguments.samples, arguments.feature_dim)
    z, labels = z.to(device), labels.to(device)
    calls: dict[str, Callable[[Tensor, Tensor, int], object]]
    calls = {"ours": ours, "two-pass": two_pass, "product": product}
    expected, actual = two_pass(z, labels, arguments.num_classes), ours(z, labels, arguments.num_classes)
    torch.testing.assert_close(actual["nc1_pinv"].cpu(), expected["nc1_pinv"].cpu(), rtol=1e-8, atol=0)
    rounds = []
    for _ in range(arguments.rounds):
        seconds = {}
        for name, call in calls.items():
            run = partial(call, z, labels, arguments.num_classes)
            seconds[name] = of_device.seconds(run, device, at_least=0)
        rounds.append(seconds)
    size = f"{arguments.samples} x {arguments.feature_dim}, C = {arguments.num_classes}"
    print(f"{size}, {of_device.name_of(device)}")
    table = []
    for name, over in (("two-pass", "ours"), ("ours", "product")):
        ratio = results.spread([r[name] / r[over] for r in rounds])
        print(f"{name} / {over}: {ratio}")
        table.append({"ratio": f"{name} / {over}", "median (range)": ratio})
    print(f"ours: {statistics.median(r['ours'] for r in rounds):.2f} s")
    results.write(arguments.json, of_device.name_of(device), table)


if __name__ == "__main__":
    main()
