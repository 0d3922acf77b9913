"""What the dashboard costs: the default training with it and without it, and one set of figures.

python benchmarks/dashboard.py [--rounds 7] [--classes 100]

Both trainings are whole processes, as `make train` starts them, in alternation; the ratio is of one round, so that a
busy machine slows both.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.callbacks.feature_sample import FeatureSample
from nc_lightning.callbacks.geometry_figures import geometry_figures
from nc_lightning.geometry import ClassStatistics, unit_ball
from nc_lightning.losses import HSCLLoss

TRAIN = """
import sys
from nc_lightning import cli
if sys.argv.pop(1) == "without":
    class Plain(cli.ContrastiveCLI):
        def instantiate_trainer(self, **kwargs):
            parser = self._parser(self.subcommand)
            parser.callback_keys = [key for key in parser.callback_keys if key != "dashboard"]
            return super().instantiate_trainer(**kwargs)
    cli.ContrastiveCLI = Plain
cli.main()
"""


def training_seconds(dashboard: str, epochs: int | None) -> tuple[float, int]:
    """Wall time of a training, start of Python included, and the bytes of its event file."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TRAIN, dashboard, "fit", "--config", "hscl.yaml"]
        command += [f"--trainer.default_root_dir={folder}"]
        command += [] if epochs is None else [f"--trainer.max_epochs={epochs}"]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        seconds = time.perf_counter() - start
        (events,) = Path(folder).rglob("events.out*")
        assert len(list(Path(folder).rglob("report.html"))) == (dashboard == "with")
        return seconds, events.stat().st_size


def figure_set_seconds(classes: int) -> float:
    """Time to draw all figures of a measurement of 100 samples a class in C - 1 dimensions."""
    labels = torch.arange(classes).repeat(100)
    z = unit_ball(torch.randn(len(labels), classes - 1))
    monitor = GeometryMonitor()
    monitor.statistics = {name: ClassStatistics(classes, classes - 1).update(z, labels) for name in ("train", "val")}
    monitor.sample = FeatureSample(classes, 2000)
    monitor.sample.update(z, labels, z)
    paths = {name: [(1 / n, 1.0 + n) for n in range(1, 41)] for name in ("train", "val")}
    start = time.perf_counter()
    figures = geometry_figures(monitor, HSCLLoss(10.0), paths)
    seconds = time.perf_counter() - start
    assert len(figures) == 5
    return seconds


def main() -> None:
    """Print medians and ranges."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--epochs", type=int, help="instead of those of the config")
    options = parser.parse_args()
    sets = sorted(figure_set_seconds(options.classes) for _ in range(options.rounds + 1))
    print(f"a set of figures, C = {options.classes}: {statistics.median(sets):.2f} s (at most {sets[-1]:.2f})")
    training_seconds("with", 1)  # fills caches of files
    ratios = []
    for number in range(options.rounds):
        order = ("with", "without") if number % 2 else ("without", "with")
        seconds = {dashboard: training_seconds(dashboard, options.epochs) for dashboard in order}
        ratios.append(seconds["with"][0] / seconds["without"][0])
        print(f"with {seconds['with'][0]:.1f} s, without {seconds['without'][0]:.1f} s, ratio {ratios[-1]:.3f}")
        size = seconds["with"][1]
    low, high = min(ratios), max(ratios)
    print(f"training with dashboard / without: {statistics.median(ratios):.3f} ({low:.3f} to {high:.3f})")
    print(f"event file with the dashboard: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
