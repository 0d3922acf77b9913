"""Time the exact HSCL loss, forward and backward, beside the paper's loop over anchors, in the same run.

    python benchmarks/loss.py [--rounds 7] [--threads 2]

The two are timed in turns, round by round, and the ratio of each round is reported with its median: absolute times of
a shared machine mean little.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nc_lightning.geometry import unit_ball
from nc_lightning.losses import HSCLLoss


def paper_loop(z: Tensor, labels: Tensor, beta: float, num_negatives: int = 256) -> Tensor:
    """HSCL by the method of the paper's public code: a Python loop over anchors, negatives drawn by NumPy.

    For each anchor, ``num_negatives`` negatives are drawn for each of its positives from the hardened weights, and the
    pair's loss is -log(e^{s+} / (e^{s+} + mean e^{s-})). An anchor is its own positive there.
    """
    z = unit_ball(z)
    total, count = z.new_zeros(()), 0
    for i in range(len(z)):
        similarity = z @ z[i]
        positive = torch.nonzero(labels == labels[i]).squeeze(1)
        negative = torch.nonzero(labels != labels[i]).squeeze(1)
        weights = torch.softmax(beta * similarity[negative].detach(), 0).double().numpy()
        drawn = np.random.choice(negative.numpy(), len(positive) * num_negatives, p=weights / weights.sum())
        hard = similarity[torch.from_numpy(drawn)].view(len(positive), num_negatives).exp().mean(1)
        easy = similarity[positive].exp()
        total = total - (easy / (easy + hard)).log().sum()
        count += len(positive)
    return total / count


def seconds(loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, labels: Tensor, repeats: int) -> float:
    """Median seconds of one forward and backward pass."""
    times = []
    for _ in range(repeats):
        leaf = z.clone().requires_grad_()
        start = time.perf_counter()
        loss(leaf, labels).backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Print one row per batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=[512])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    feature_dim, num_classes, beta = 99, 100, 5.0
    exact = HSCLLoss(beta=beta)
    print(f"d = {feature_dim}, C = {num_classes}, beta = {beta}, float32, {arguments.threads} threads")
    print(f"{'N':>6} {'exact ms':>9} {'loop ms':>9} {'loop / exact: median':>21} {'min':>6} {'max':>6}")
    for n in arguments.sizes:
        torch.manual_seed(0)
        z, labels = torch.randn(n, feature_dim), torch.randint(num_classes, (n,))
        seconds(exact, z, labels, 5)
        rounds = []
        for _ in range(arguments.rounds):
            ours = seconds(exact, z, labels, 25)
            loop = seconds(lambda z, y: paper_loop(z, y, beta), z, labels, 1)
            rounds.append((ours, loop))
        ratios = sorted(loop / ours for ours, loop in rounds)
        ours, loop = (statistics.median(column) * 1e3 for column in zip(*rounds, strict=True))
        print(
            f"{n:>6} {ours:>9.2f} {loop:>9.1f} {statistics.median(ratios):>21.1f} {ratios[0]:>6.1f} {ratios[-1]:>6.1f}"
        )


if __name__ == "__main__":
    main()
