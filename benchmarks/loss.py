"""Time the exact HSCL loss, forward and backward, beside others of its kind and beside what it cannot do without.

    pip install pytorch-metric-learning lightly
    python benchmarks/loss.py [--sizes 512 4096 16384] [--feature_dim 128] [--num_classes 100] [--rounds 7]

All are timed in turns, round by round, and reported as multiples of the floor of the same round, with the median over
rounds: absolute times of a shared machine mean little. The floor is the matrix products of plain automatic
differentiation, 2 N^2 d forward and 4 N^2 d backward, in strips of 256 rows. Beside it:

    ours        HSCLLoss
    naive       the same by automatic differentiation of its expression
    pml         SupConLoss of pytorch-metric-learning: no hardness, and the other positives are in its denominator
    lightly     NTXentLoss of lightly: no labels, N / 2 pairs of views
    paper       the method of the paper's public code, a loop over anchors that draws 256 negatives for each pair

Where all compute the same, for pairs of views without hardness, they are first seen to agree. Some are left out where
they would take too long or too much memory, or are not installed.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from nc_lightning.geometry import unit_ball
from nc_lightning.losses import Exponential, HSCLLoss, InfoNCE, SCLLoss
from nc_lightning.losses.general import general_loss
from nc_lightning.losses.pairs import label_pairs

BETA, TEMPERATURE = 5.0, 0.5
Loss = Callable[[Tensor, Tensor], Tensor]


def paper_loop(z: Tensor, labels: Tensor, beta: float, temperature: float = 1.0, num_negatives: int = 256) -> Tensor:
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
        weights = torch.softmax(beta * similarity[negative].detach(), 0).double().cpu().numpy()
        drawn = np.random.choice(negative.cpu().numpy(), len(positive) * num_negatives, p=weights / weights.sum())
        logits = similarity / temperature
        hard = logits[torch.from_numpy(drawn)].view(len(positive), num_negatives).exp().mean(1)
        easy = logits[positive].exp()
        total = total - (easy / (easy + hard)).log().sum()
        count += len(positive)
    return total / count


def naive(z: Tensor, labels: Tensor) -> Tensor:
    """The exact loss by automatic differentiation of its expression."""
    pairs = label_pairs(labels, "other_classes")
    total = general_loss(unit_ball(z), pairs, pairs.usable(), InfoNCE(), Exponential(BETA), TEMPERATURE, False)
    return total / len(pairs.usable()[0])


def pml(z: Tensor, labels: Tensor) -> Tensor:
    """Supervised contrastive loss of pytorch-metric-learning."""
    from pytorch_metric_learning.losses import SupConLoss

    loss: Tensor = SupConLoss(temperature=TEMPERATURE)(z, labels)
    return loss


def lightly(z: Tensor, labels: Tensor) -> Tensor:
    """Contrastive loss of lightly, for which the second half of the rows are other views of the first."""
    from lightly.loss import NTXentLoss

    loss: Tensor = NTXentLoss(temperature=TEMPERATURE)(*z.chunk(2))
    return loss


def peers() -> dict[str, Loss]:
    """The other libraries that are installed."""
    known: dict[str, tuple[str, Loss]] = {"pml": ("pytorch_metric_learning", pml), "lightly": ("lightly", lightly)}
    return {name: loss for name, (package, loss) in known.items() if importlib.util.find_spec(package)}


def check_agreement() -> None:
    """Raise unless all are equal where they compute the same."""
    z, labels = torch.randn(64, 8), torch.arange(32).repeat(2)
    ours = SCLLoss(temperature=TEMPERATURE, link=InfoNCE("sum"), normalization="unit_sphere")
    for peer in peers().values():
        torch.testing.assert_close(peer(z, labels), ours(z, labels))


def floor(z: Tensor) -> None:
    """The matrix products that plain automatic differentiation needs, and nothing else."""
    gradient = torch.zeros_like(z)
    for rows in torch.arange(len(z)).split(256):
        start, stop = int(rows[0]), int(rows[-1]) + 1
        similarity = z[start:stop] @ z.T
        gradient[start:stop].addmm_(similarity, z)
        gradient.addmm_(similarity.T, z[start:stop])


def seconds(call: Callable[[], object], at_least: float = 0.05) -> float:
    """Median seconds of a call, repeated for at least as long as said."""
    times: list[float] = []
    while sum(times) < at_least:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def forward_backward(loss: Loss, z: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a call that does both passes on a fresh leaf."""

    def call() -> None:
        leaf = z.clone().requires_grad_()
        loss(leaf, labels).backward()

    return call


def contenders(n: int) -> dict[str, Loss]:
    """What is compared at a batch size, ours first."""
    losses: dict[str, Loss] = {"ours": HSCLLoss(beta=BETA, temperature=TEMPERATURE)}
    if n <= 16384:
        losses |= {"naive": naive, **peers()}
    if n <= 512:
        losses["paper"] = lambda z, labels: paper_loop(z, labels, BETA, TEMPERATURE)
    return losses


def batch(n: int, feature_dim: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Random features on the unit sphere, and random labels."""
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(n, feature_dim)), torch.randint(num_classes, (n,))


def _ratio(rounds: list[dict[str, float]], others: list[str]) -> str:
    ratios = sorted(min(r[name] for name in others) / r["ours"] for r in rounds)
    return f"{statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})"


def main() -> None:
    """Print one row for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--feature_dim", type=int, default=128)
    parser.add_argument("--num_classes", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    check_agreement()
    print(
        f"d = {arguments.feature_dim}, C = {arguments.num_classes}, beta = {BETA}, temperature = {TEMPERATURE}, "
        f"float32, {arguments.threads} threads, float32 matmul precision {torch.get_float32_matmul_precision()!r}"
    )
    print(f"{'N':>6} {'floor ms':>9}   multiples of the floor: median (min to max)")
    for n in arguments.sizes:
        z, labels = batch(n, arguments.feature_dim, arguments.num_classes)
        calls = {name: forward_backward(loss, z, labels) for name, loss in contenders(n).items()}
        calls = {"floor": lambda z=z: floor(z), **calls}  # type: ignore[misc]
        rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(arguments.rounds + 1)][1:]
        row = [f"{n:>6} {statistics.median(r['floor'] for r in rounds) * 1e3:>9.2f}  "]
        for name in list(calls)[1:]:
            ratios = sorted(r[name] / r["floor"] for r in rounds)
            row.append(f"{name} {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        others = [name for name in calls if name not in ("floor", "ours", "paper")]
        if others:
            row.append(f"fastest of {', '.join(others)} / ours {_ratio(rounds, others)}")
        if "paper" in calls:
            row.append(f"paper / ours {_ratio(rounds, ['paper'])}")
        print("  ".join(row))


if __name__ == "__main__":
    main()
