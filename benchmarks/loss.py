"""Time the exact HSCL loss, forward and backward, against other contrastive losses and a lower limit.

    pip install pytorch-metric-learning lightly
    python -m benchmarks.loss [--sizes 512 4096 16384] [--feature_dim 128] [--num_classes 100] [--rounds 7]
    python -m benchmarks.loss --competitors 2
    python -m benchmarks.loss --device cuda --precision tf32 --sizes 512 1024 2048 4096 8192 16384 65536

All are timed in alternation and reported as multiples of the floor of the same round, with the median over rounds,
because absolute times on a shared machine mean little. The floor is the time of the matrix products of plain automatic
differentiation, 2 N^2 d forward and 4 N^2 d backward, on a CPU in strips of 256 rows. The losses are:

    ours        HSCLLoss
    naive       the same, by automatic differentiation of its expression
    pml         SupConLoss of pytorch-metric-learning: no hardness, and its denominator includes the other positives
    lightly     NTXentLoss of lightly: no labels, N / 2 pairs of views
    paper       the method of the paper's public code, a loop over anchors that draws 256 negatives for each pair

Below each row is the work of our loss on the device: kernels, bytes moved, operations of its matrix products, the least
possible time (the roofline, from a copy and a product measured here), memory beyond the features, and the number of
host waits; more than one wait is an error.

With --competitors, as many other processes compute products with one thread each at the same time, as on a busy
machine.

For pairs of views without hardness all losses compute the same value, and this is checked first. A loss is left out if
it would take too long or too much memory, or is not installed.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from benchmarks import device as of_device
from benchmarks import results
from benchmarks.device import seconds
from benchmarks.work import Roofline, Work
from nc_lightning.geometry import unit_ball
from nc_lightning.losses import Exponential, HSCLLoss, InfoNCE, SCLLoss
from nc_lightning.losses.engines.autograd import general_loss
from nc_lightning.losses.pairs import label_pairs

BETA, TEMPERATURE = 5.0, 0.5
Loss = Callable[[Tensor, Tensor], Tensor]


def paper_loop(z: Tensor, labels: Tensor, beta: float, temperature: float = 1.0, num_negatives: int = 256) -> Tensor:
    """HSCL as in the paper's public code: a Python loop over anchors, with negatives drawn by NumPy.

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
    z = unit_ball(z)
    total = general_loss(z @ z.T, pairs, pairs.usable(), InfoNCE(), Exponential(BETA), TEMPERATURE, False)
    return total / len(pairs.usable()[0])


def pml(z: Tensor, labels: Tensor) -> Tensor:
    """Supervised contrastive loss of pytorch-metric-learning."""
    from pytorch_metric_learning.losses import SupConLoss  # noqa: PLC0415 - optional

    loss: Tensor = SupConLoss(temperature=TEMPERATURE)(z, labels)
    return loss


def lightly(z: Tensor, labels: Tensor) -> Tensor:
    """Contrastive loss of lightly; the second half of the rows holds other views of the first."""
    from lightly.loss import NTXentLoss  # noqa: PLC0415 - optional

    loss: Tensor = NTXentLoss(temperature=TEMPERATURE)(*z.chunk(2))
    return loss


def peers() -> dict[str, Loss]:
    """The other libraries that are installed."""
    known: dict[str, tuple[str, Loss]] = {"pml": ("pytorch_metric_learning", pml), "lightly": ("lightly", lightly)}
    return {name: loss for name, (package, loss) in known.items() if importlib.util.find_spec(package)}


def check_agreement(device: torch.device) -> None:
    """Raise unless all losses agree where they compute the same value."""
    z, labels = torch.randn(64, 8, device=device), torch.arange(32, device=device).repeat(2)
    ours = SCLLoss(temperature=TEMPERATURE, link=InfoNCE("sum"), normalization="unit_sphere")
    for peer in peers().values():
        torch.testing.assert_close(peer(z, labels), ours(z, labels))


def floor(z: Tensor) -> None:
    """Only the matrix products that plain automatic differentiation needs, in strips of about the fastest height."""
    gradient, height = torch.zeros_like(z), 256 if z.device.type == "cpu" else len(z)
    for start in range(0, len(z), height):
        rows = z[start : start + height]
        similarity = rows @ z.T
        gradient[start : start + height].addmm_(similarity, z)
        gradient.addmm_(similarity.T, rows)


def forward_backward(loss: Loss, z: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a call that runs both passes on a fresh leaf tensor."""

    def call() -> None:
        leaf = z.clone().requires_grad_()
        loss(leaf, labels).backward()

    return call


def contenders(n: int) -> dict[str, Loss]:
    """The losses compared at a batch size, ours first."""
    losses: dict[str, Loss] = {"ours": HSCLLoss(beta=BETA, temperature=TEMPERATURE)}
    if n <= 16384:
        losses |= {"naive": naive, **peers()}
    if n <= 512:
        losses["paper"] = lambda z, labels: paper_loop(z, labels, BETA, TEMPERATURE)
    return losses


def empty_row(n: int) -> dict[str, float | str | None]:
    """A row of a result file, with a place for every loss that may be compared."""
    return {"N": n} | dict.fromkeys(("ours", "naive", "pml", "lightly", "paper"))


def batch(n: int, feature_dim: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Random features on the unit sphere, and random labels."""
    torch.manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(n, feature_dim)), torch.randint(num_classes, (n,))


def work_of(call: Callable[[], None], device: torch.device, limits: Roofline, took: float) -> str:
    """Describe the work of a call on the device, and raise if the host waits more than once."""
    with Work(device) as work:
        call()
    least = work.least_seconds(limits)
    row = f"       {work.kernels} kernels, {work.bytes / 1e6:.1f} MB, {work.flops / 1e9:.2f} GFLOP"
    row += f"; roofline {least * 1e3:.3f} ms, ours {took / least:.1f} times that"
    if device.type == "cpu":
        return row
    waited = of_device.waits(call, device)
    if waited is not None and waited > 1:
        raise RuntimeError(f"loss: the host waits {waited} times for the device, expected once")
    extra = of_device.extra_memory(call, device)
    return f"{row}; {'unknown' if extra is None else f'{extra / 2**20:.0f} MiB'}; waits {waited}"


@contextmanager
def competing(processes: int) -> Iterator[None]:
    """Let other processes compute products, with one thread each."""
    code = "import torch; torch.set_num_threads(1); x = torch.ones(512, 512) / 512\nwhile True: x = x @ x"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    time.sleep(10 * bool(others))  # until all have started
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def _ratio(rounds: list[dict[str, float]], others: list[str]) -> str:
    return results.spread([min(r[name] for name in others) / r["ours"] for r in rounds], digits=1)


def main() -> None:
    """Print one row for each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--feature_dim", type=int, default=128)
    parser.add_argument("--num_classes", type=int, default=100)
    parser.add_argument("--competitors", type=int, default=0, help="processes that compute something else")
    of_device.add_arguments(parser)
    results.add_argument(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    check_agreement(device)
    dtype = of_device.dtype_of(arguments.precision)
    limits = of_device.roofline(device, dtype)
    print(
        f"d = {arguments.feature_dim}, C = {arguments.num_classes}, beta = {BETA}, temperature = {TEMPERATURE}, "
        f"{arguments.precision}, {of_device.name_of(device)}, torch {torch.__version__}: "
        f"{limits.bytes / 1e9:.0f} GB/s, {limits.flops / 1e12:.2f} TFLOP/s"
    )
    print(f"{'N':>6} {'floor ms':>9}   multiples of the floor: median (min to max)")
    table: list[dict[str, float | str | None]] = []
    for n in arguments.sizes:
        z, labels = batch(n, arguments.feature_dim, arguments.num_classes)
        z, labels = z.to(device, dtype), labels.to(device)
        calls = {name: forward_backward(loss, z, labels) for name, loss in contenders(n).items()}
        calls = {"floor": lambda z=z: floor(z), **calls}  # type: ignore[misc]
        with competing(arguments.competitors):
            rounds = [
                {name: seconds(call, device) for name, call in calls.items()} for _ in range(arguments.rounds + 1)
            ]
        rounds = rounds[1:]
        row = [f"{n:>6} {statistics.median(r['floor'] for r in rounds) * 1e3:>9.2f}  "]
        cells = empty_row(n) | dict.fromkeys(("fastest / ours", "paper / ours"))
        for name in list(calls)[1:]:
            cells[name] = results.spread([r[name] / r["floor"] for r in rounds])
            row.append(f"{name} {cells[name]}")
        table.append(cells)
        others = [name for name in calls if name not in ("floor", "ours", "paper")]
        if others:
            cells["fastest / ours"] = _ratio(rounds, others)
            row.append(f"fastest of {', '.join(others)} / ours {cells['fastest / ours']}")
        if "paper" in calls:
            cells["paper / ours"] = _ratio(rounds, ["paper"])
            row.append(f"paper / ours {cells['paper / ours']}")
        print("  ".join(row))
        print(work_of(calls["ours"], device, limits, statistics.median(r["ours"] for r in rounds)))
    results.write(arguments.json, of_device.name_of(device), table)


if __name__ == "__main__":
    main()
