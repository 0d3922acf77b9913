"""Predict memory and time for many classes, dimensions, samples and processes from constants measured here.

    python -m benchmarks.scale [--rounds 3] [--divide 1]

Each part runs at a few sizes, in a process of its own with one thread: CPU seconds are the median over rounds, memory
is the peak of a call beyond what was resident before, with an allocator that returns what is freed. A model of the
part, in powers of the sizes N, C and d, is fitted to the relative errors, and compared with a larger size that was
not fitted; m is the smaller of C and d, and B the numbers in a block of pairs of classes. With ``--json FILE``,
constants and traffic are written to files next to it. What processes receive is counted by
`benchmarks.counted_processes`.
"""

import argparse
import ctypes
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls

from benchmarks import results
from benchmarks.counted_processes import counted
from benchmarks.loss_memory import resident
from nc_lightning import plots
from nc_lightning.callbacks.measurement.passes import _add_up, _of_all_processes
from nc_lightning.callbacks.online_knn import KNNReader
from nc_lightning.data import ClassBalancedBatchSampler
from nc_lightning.geometry import CenterDistances, ClassStatistics, class_mean_spectrum, statistics_measures
from nc_lightning.geometry.blocks import NUMBERS_AT_ONCE
from nc_lightning.losses import HSCLLoss

M_MMAP_THRESHOLD = -3
"""Number of an option of glibc: the size from which memory is returned once it is freed."""
BATCH = 1024
"""Samples in a batch of a measurement."""
SHAPES = [(c, d) for c in (1000, 21841) for d in (999, 2048)]
IMAGES = 1_281_167
"""Samples of a measurement: the training set of ImageNet."""


class Sizes(NamedTuple):
    """Samples N, classes C and dimensions d."""

    n: int
    c: int
    d: int


def features(sizes: Sizes) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random unit vectors (N, d), and labels that repeat the classes."""
    z = torch.nn.functional.normalize(torch.randn(sizes.n, sizes.d))
    return z, torch.arange(sizes.n) % sizes.c


def class_statistics(sizes: Sizes) -> ClassStatistics:
    """Return statistics of two samples of each class, in batches."""
    stats = ClassStatistics(sizes.c, sizes.d)
    for labels in torch.arange(2 * sizes.c).split(BATCH):
        stats.update(torch.randn(len(labels), sizes.d), labels % sizes.c)
    return stats


def loss(sizes: Sizes) -> Callable[[], object]:
    """Return one forward and backward pass of HSCL."""
    (z, labels), compute = features(sizes), HSCLLoss(beta=5.0)
    return lambda: compute(z.clone().requires_grad_(), labels).backward()


def hardness(sizes: Sizes) -> Callable[[], object]:
    """Return the statistics of negatives that `HardNegativeSampler` logs."""
    (z, labels), compute = features(sizes), HSCLLoss(beta=5.0)
    return lambda: compute.negative_statistics(z, labels)


def batches(sizes: Sizes) -> Callable[[], object]:
    """Return the drawing of an epoch of balanced batches with a tenth of the classes."""
    some = max(2, sizes.c // 10)
    sampler = ClassBalancedBatchSampler(torch.arange(sizes.n) % sizes.c, 2 * some, classes_per_batch=some)
    return lambda: sampler.draw(sampler.generator())


def first_pass(sizes: Sizes) -> Callable[[], object]:
    """Return the class statistics of a set."""
    z, labels = features(sizes)

    def run() -> None:
        stats = ClassStatistics(sizes.c, sizes.d)
        for rows, of_rows in zip(z.split(BATCH), labels.split(BATCH), strict=True):
            stats.update(rows, of_rows)

    return run


def second_pass(sizes: Sizes) -> Callable[[], object]:
    """Return the distances of a set to the class centers."""
    stats, (z, labels) = class_statistics(sizes), features(sizes)

    def run() -> None:
        to_centers = CenterDistances(stats)
        for rows, of_rows in zip(z.split(BATCH), labels.split(BATCH), strict=True):
            to_centers.update(rows, of_rows)

    return run


def measures(sizes: Sizes) -> Callable[[], object]:
    """Return all measures of class statistics."""
    stats = class_statistics(sizes)

    def run() -> None:
        stats.memo.clear()
        statistics_measures(stats)

    return run


def figures(sizes: Sizes) -> Callable[[], object]:
    """Return the drawing of figures from statistics that have been measured."""
    stats = class_statistics(sizes)
    class_mean_spectrum(stats)
    draw = (plots.cosines_figure, plots.spectrum_figure, plots.plane_figure)
    return lambda: [plots.to_png(figure(stats)) for figure in draw]


class Part(NamedTuple):
    """A part of a run: how its time and memory grow, and the sizes that it is measured at, the last one as a check."""

    make: Callable[[Sizes], Callable[[], object]]
    seconds: str
    numbers: str
    sizes: list[Sizes]

    def terms(self, model: str, sizes: Sizes) -> list[float]:
        """Return the value of each term of a model."""
        n, c, d = sizes
        names: dict[str, Any] = {"N": n, "C": c, "d": d, "m": min(c, d), "B": min(c * c, NUMBERS_AT_ONCE)}
        return [float(eval(term.replace(" ", "*"), names)) for term in model.split(" + ")]


def of(*sizes: tuple[int, int, int]) -> list[Sizes]:
    """Return the sizes of a part."""
    return [Sizes(*each) for each in sizes]


PAIRS = of((2048, 512, 128), (2048, 512, 512), (4096, 1024, 128), (4096, 1024, 512), (8192, 2048, 256))
PARTS = {
    "loss": Part(loss, "N N d + N N", "N d + N + 1", PAIRS),
    "hardness": Part(hardness, "N N d + N N", "N + 1", PAIRS),
    "batches": Part(
        batches,
        "N + C",
        "N + C + 1",
        of((100_000, 1000, 1), (100_000, 10_000, 1), (1_000_000, 1000, 1), (1_000_000, 20_000, 1)),
    ),
    "first pass": Part(
        first_pass,
        "N d d + N d",
        "C d + d d + 1",
        of((8192, 1000, 128), (8192, 1000, 512), (8192, 4000, 512), (8192, 1000, 1024), (16384, 4000, 1024)),
    ),
    "second pass": Part(
        second_pass,
        "N C d + N C",
        "C d + 1",
        of((2048, 1000, 128), (2048, 1000, 512), (2048, 4000, 128), (2048, 4000, 512), (4096, 8000, 512)),
    ),
    "measures": Part(
        measures,
        "C C d + C C + C d m + d d d",
        "C d + d d + B",
        of((2, 1000, 128), (2, 1000, 512), (2, 3000, 128), (2, 3000, 512), (2, 500, 1024), (2, 5000, 768)),
    ),
    "figures": Part(
        figures,
        "C d + C + 1",
        "C d + 1",
        of((2, 1000, 128), (2, 4000, 128), (2, 1000, 512), (2, 4000, 512), (2, 8000, 512)),
    ),
}


def measure(name: str, sizes: Sizes, rounds: int) -> tuple[float, float]:
    """Return CPU seconds and peak bytes of a part, in this process."""
    torch.set_num_threads(1)
    part = PARTS[name]
    part.make(Sizes(64, 4, 4))()  # what it always needs
    run = part.make(sizes)
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    c = ctypes.CDLL(None)
    c.mallopt(M_MMAP_THRESHOLD, 2**16)
    c.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the resident memory
    before = resident("VmRSS")
    run()
    return statistics.median(times), (resident("VmHWM") - before) * 2**20


def fit(part: Part, model: str, measured: list[float]) -> tuple[np.ndarray[Any, Any], float]:
    """Return the constants >= 0 of a model, and its relative error at the size that is not fitted."""
    terms = np.array([part.terms(model, sizes) for sizes in part.sizes])
    weights = 1 / np.maximum(measured, 1e-9)
    constants, _ = nnls(terms[:-1] * weights[:-1, None], np.ones(len(terms) - 1))
    return constants, float(terms[-1] @ constants * weights[-1] - 1)


def shown(model: str, constants: np.ndarray[Any, Any], factor: float) -> str:
    """Return a model with its constants."""
    terms = [(c * factor, term) for c, term in zip(constants, model.split(" + "), strict=True) if c > 0]
    return " + ".join(f"{c:.2g} {term}" for c, term in terms)


def traffic_of(world_size: int, samples: int) -> dict[str, float]:
    """Return MiB that a process receives: at C = 21,841 and d = 2,048, and N samples in all batches of a step."""
    n, c, d = samples // world_size, 21841, 2048
    row: dict[str, float] = {"processes W": world_size}

    def count(name: str, run: Callable[[], object]) -> None:
        with counted(world_size) as traffic:
            run()
        row[name] = traffic.total / 2**20

    small = 64  # features of fewer dimensions take as many collectives: their bytes are scaled
    z, labels = torch.randn(n, small), torch.arange(n) % 64

    def of_loss() -> None:
        HSCLLoss(beta=5.0)(z.requires_grad_(), labels).backward()

    count("loss, a step", of_loss)
    row["loss, a step"] += 4 * (samples - n) * (d - small) / 2**20
    stats = ClassStatistics(c, d)
    counts = [torch.zeros(c) for _ in range(6)]

    def of_monitor() -> None:
        _of_all_processes(stats, torch.device("cpu"))
        _add_up(*counts)

    count("monitor, a set", of_monitor)
    reader = KNNReader(("z",), 20, 0.07, print)
    for name in ("train", "val"):
        reader.update(name, {"z": torch.randn(64, d)}, torch.arange(64) % 8)
    count("k-NN, 64 queries a process", reader.compute)
    return row


def main() -> None:
    """Print constants, predictions and traffic."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--divide", type=int, default=1, help="measure at sizes divided by this number")
    results.add_argument(parser)
    args = parser.parse_args()
    context = multiprocessing.get_context("fork")  # before this process has used a thread of torch
    constants: list[dict[str, Any]] = []
    models: dict[str, tuple[Part, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = {}
    for name, part in PARTS.items():
        part = part._replace(sizes=[Sizes(*(max(2, x // args.divide) for x in sizes)) for sizes in part.sizes])
        measured = []
        for sizes in part.sizes:
            with context.Pool(1) as pool:
                measured.append(pool.apply(measure, (name, sizes, args.rounds)))
        seconds, memory = (list(column) for column in zip(*measured, strict=True))
        (of_time, time_error), (of_memory, memory_error) = (
            fit(part, part.seconds, seconds),
            fit(part, part.numbers, memory),
        )
        models[name] = part, of_time, of_memory
        constants.append(
            {
                "part": name,
                "CPU ns": shown(part.seconds, of_time, 1e9),
                "error": f"{time_error:+.0%}",
                "bytes": shown(part.numbers, of_memory, 1),
                "error of bytes": f"{memory_error:+.0%}",
                "checked at N, C, d": ", ".join(f"{x:,}" for x in part.sizes[-1]),
            }
        )
        print(*constants[-1].values(), sep=" | ", flush=True)

    def predicted(name: str, sizes: Sizes) -> tuple[float, float]:
        part, of_time, of_memory = models[name]
        seconds = float(np.dot(part.terms(part.seconds, sizes), of_time))
        return seconds, float(np.dot(part.terms(part.numbers, sizes), of_memory)) / 2**20

    table: list[dict[str, Any]] = []
    for c, d in SHAPES:
        row: dict[str, Any] = {"C": c, "d": d}
        for n in (4096, 65536):
            row[f"loss, N = {n:,}"] = both(*predicted("loss", Sizes(n, c, d)))
        row["hardness, N = 65,536"] = both(*predicted("hardness", Sizes(65536, c, d)))
        row["balanced batches, an epoch of ImageNet"] = both(*predicted("batches", Sizes(IMAGES, c, d)))
        passes = [predicted(name, Sizes(IMAGES, c, d)) for name in ("first pass", "second pass")]
        row["monitor, passes over ImageNet"] = both(sum(s for s, _ in passes), sum(m for _, m in passes))
        row["monitor, measures"] = both(*predicted("measures", Sizes(2, c, d)))
        row["figures"] = both(*predicted("figures", Sizes(2, c, d)))
        table.append(row)
    for row in table:
        print("; ".join(f"{key}: {value}" for key, value in row.items()))
    traffic = [traffic_of(world_size, 65536 // args.divide) for world_size in (8, 64, 1024)]
    for received in traffic:
        print("; ".join(f"{key}: {value:.4g}" for key, value in received.items()))
    machine = "one CPU thread"
    results.write(args.json, machine, table)
    if args.json:
        results.write(args.json.with_stem(f"{args.json.stem}_constants"), machine, constants)
        results.write(args.json.with_stem(f"{args.json.stem}_traffic"), "a simulation", traffic)


def both(seconds: float, mebibytes: float) -> str:
    """Return seconds and MiB in a cell of a table."""
    return f"{seconds:.3g} s, {mebibytes:,.0f} MiB"


if __name__ == "__main__":
    main()
