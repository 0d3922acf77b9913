"""Train, measure and report 10,000 classes in 512 dimensions here, and compare the peak of memory with a prediction.

    python -m benchmarks.many_classes [--classes 10000] [--feature_dim 512] [--epochs 1]

It runs `nc-train fit` on the synthetic latent classes, ten samples of each, in balanced batches of 512 of the classes.
CPU seconds are those of all threads. Each prediction is what is resident once everything is imported, plus the arrays
that a part holds: inputs, classifier with optimizer, class statistics, kept features, and blocks. The measures of
statistics are a part of the measurement of both sets.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.loss_memory import resident
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe, TensorBoardDashboard
from nc_lightning.callbacks.measurement import passes, second_pass
from nc_lightning.cli import main as nc_train
from nc_lightning.data import LatentClassDataModule
from nc_lightning.losses import HSCLLoss

Measured = dict[str, tuple[float, float]]
"""CPU seconds of each part, and the peak of resident MiB until its end."""


def timed(owner: Any, name: str, part: str, found: Measured) -> None:
    """Add the CPU seconds of each call of a function to those of a part."""
    original: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        try:
            return original(*args, **kwargs)
        finally:
            seconds = found.get(part, (0.0, 0.0))[0] + time.process_time() - start
            found[part] = seconds, resident("VmHWM")

    setattr(owner, name, call)


def predictions(classes: int, feature_dim: int, samples: int, base: float) -> dict[str, float]:
    """Return the peak of resident MiB that each part needs."""
    c, d = classes, feature_dim
    inputs, held = 4 * d * samples, 8 * (c * d + d * d)
    data = 1.4 * inputs  # validation and test have a fifth of the training samples
    probe = 16 * c * d + 3 * 4 * 2**22  # weight, gradient, two moments of Adam; logits of a block of samples
    kept = 2 * min(passes.KEPT_BYTES, inputs)
    peaks = {
        "data": data + 2 * inputs,  # prototypes of the samples, and noise
        "probe": data + probe,
        "measurement of both sets": data + probe + kept + 2 * held + 62 * c * d + 4 * 8 * 2**22,
        "figures and report": data + probe + 2 * held + 62 * c * d + 4 * 8 * 2**22,
    }
    so_far = itertools.accumulate(peaks.values(), max)
    return {part: base + extra / 2**20 for part, extra in zip(peaks, so_far, strict=True)}


def main() -> None:
    """Print CPU seconds, and memory measured and predicted, of each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=10_000)
    parser.add_argument("--feature_dim", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=1)
    results.add_argument(parser)
    args = parser.parse_args()
    found: Measured = {}
    timed(LatentClassDataModule, "make_splits", "data", found)
    timed(HSCLLoss, "forward", "loss", found)
    timed(HSCLLoss, "compute", "loss", found)
    timed(OnlineLinearProbe, "on_train_batch_end", "probe", found)
    timed(GeometryMonitor, "_measure", "measurement of both sets", found)
    timed(second_pass, "statistics_measures", "measures of statistics", found)
    timed(TensorBoardDashboard, "_draw", "figures and report", found)
    timed(TensorBoardDashboard, "_write_report", "figures and report", found)
    torch.ones(2, 2) @ torch.ones(2, 2)
    base, target = resident("VmRSS"), args.json and args.json.resolve()
    some = min(512, args.classes)
    options = {
        "data": "LatentClassDataModule",
        "data.num_classes": args.classes,
        "data.input_dim": args.feature_dim,
        "data.samples_per_class": 10,
        "data.batch_size": 2 * some,
        "data.classes_per_batch": some,
        "model.encoder": "MLP",
        "model.feature_dim": args.feature_dim,
        "trainer.max_epochs": args.epochs,
        "trainer.accelerator": "cpu",
    }
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        nc_train(["fit", "--config", "hscl.yaml", *(f"--{key}={value}" for key, value in options.items())])
        assert list(Path(folder).rglob("report.html"))
        os.chdir("/")
    found["all of it"] = time.process_time() - start, resident("VmHWM")
    expected = predictions(args.classes, args.feature_dim, 10 * args.classes, base)
    expected["all of it"] = max(expected.values())
    table = [
        {
            "part": part,
            "CPU seconds": round(seconds, 1),
            "peak of memory so far, MiB": round(peak),
            "predicted": round(expected[part]) if part in expected else None,
        }
        for part, (seconds, peak) in found.items()
    ]
    for row in table:
        print("; ".join(f"{key}: {value}" for key, value in row.items()))
    results.write(target, f"{torch.get_num_threads()} CPU threads, {round(base)} MiB before the run", table)


if __name__ == "__main__":
    main()
