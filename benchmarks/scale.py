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
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls

from benchmarks import results
from benchmarks.counted_processes import counted
from benchmarks.loss_memory import peak_of
from benchmarks.scale_parts import PARTS, Part, Sizes
from nc_lightning.callbacks.measurement.passes import _add_up, _of_all_processes
from nc_lightning.callbacks.online_knn import KNNReader
from nc_lightning.geometry import ClassStatistics
from nc_lightning.losses import HSCLLoss

M_MMAP_THRESHOLD = -3
"""Number of an option of glibc: the size from which memory is returned once it is freed."""
SHAPES = [(c, d) for c in (1000, 21841) for d in (999, 2048)]
IMAGES = 1_281_167
"""Samples of a measurement: the training set of ImageNet."""


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
    return statistics.median(times), peak_of(run) * 2**20


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

    small = 8  # features of fewer dimensions take as many collectives: their bytes are scaled
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
    for name, size in (("train", 64), ("val", n)):
        reader.update(name, {"z": torch.randn(size, small)}, torch.arange(size) % 8)
    count("k-NN, k = 20", reader.compute)
    row["k-NN, k = 20"] += 4 * (samples - n) * (d - small) / 2**20
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
        # The allocator decides its memory, which the model misses.
        row["hardness, N = 65,536"] = f"{predicted('hardness', Sizes(65536, c, d))[0]:.3g} s"
        row["balanced batches, an epoch of ImageNet"] = both(*predicted("batches", Sizes(IMAGES, c, d)))
        passes = [predicted(name, Sizes(IMAGES, c, d)) for name in ("first pass", "second pass")]
        row["monitor, passes over ImageNet"] = both(sum(s for s, _ in passes), sum(m for _, m in passes))
        of_measures = [predicted(name, Sizes(2, c, d)) for name in ("spectra", "pairs")]
        row["monitor, measures"] = both(sum(s for s, _ in of_measures), max(m for _, m in of_measures))
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
