"""Cost of the dashboard: the default training with and without it, and the time of one set of figures.

python -m benchmarks.dashboard [--rounds 7] [--classes 100]

Both trainings are whole processes, as `make train` starts them, in alternation. The ratio is taken within a round, so
that a busy machine slows both. Because the time of a process varies by more than the cost of the dashboard, the time
inside the dashboard is also measured, as a share of the rest of the same process.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import results
from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.callbacks.dashboard.figures import geometry_figures
from nc_lightning.callbacks.measurement.feature_sample import FeatureSample
from nc_lightning.geometry import ClassStatistics, unit_ball
from nc_lightning.losses import HSCLLoss
from nc_lightning.plots import to_png

TRAIN = """
import sys, time
start, inside = time.perf_counter(), []
from nc_lightning.cli import train as cli
from nc_lightning.callbacks import TensorBoardDashboard

def timed(hook):
    def call(*args, **kwargs):
        begin = time.perf_counter()
        try:
            return hook(*args, **kwargs)
        finally:
            inside.append(time.perf_counter() - begin)
    return call

for name in ("setup", "on_fit_start", "on_geometry_measured", "on_train_epoch_start", "on_fit_end"):
    setattr(TensorBoardDashboard, name, timed(getattr(TensorBoardDashboard, name)))
if sys.argv.pop(1) == "without":
    class Plain(cli.ContrastiveCLI):
        def instantiate_trainer(self, **kwargs):
            parser = self._parser(self.subcommand)
            parser.callback_keys = [key for key in parser.callback_keys if key != "dashboard"]
            return super().instantiate_trainer(**kwargs)
    cli.ContrastiveCLI = Plain
cli.main()
print("inside", sum(inside) / (time.perf_counter() - start - sum(inside)))
"""


def train(dashboard: str, epochs: int | None) -> tuple[float, float, int]:
    """Return wall time including the start of Python, share inside the dashboard, and bytes of events."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", TRAIN, dashboard, "fit", "--config", "hscl.yaml"]
        command += [f"--trainer.default_root_dir={folder}"]
        command += [] if epochs is None else [f"--trainer.max_epochs={epochs}"]
        start = time.perf_counter()
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        seconds = time.perf_counter() - start
        (events,) = Path(folder).rglob("events.out*")
        assert len(list(Path(folder).rglob("report.html"))) == (dashboard == "with")
        return seconds, float(run.stdout.split("inside")[1]), events.stat().st_size


def figure_set_seconds(classes: int) -> float:
    """Time to draw all figures of a measurement with 100 samples per class in C - 1 dimensions."""
    labels = torch.arange(classes).repeat(100)
    z = unit_ball(torch.randn(len(labels), classes - 1))
    monitor = GeometryMonitor()
    monitor.statistics = {name: ClassStatistics(classes, classes - 1).update(z, labels) for name in ("train", "val")}
    monitor.sample = FeatureSample(classes, 2000)
    monitor.sample.update(z, labels, z)
    paths = {name: [(1 / n, 1.0 + n) for n in range(1, 41)] for name in ("train", "val")}
    start = time.perf_counter()
    figures = [to_png(figure) for figure in geometry_figures(monitor, HSCLLoss(10.0), paths).values()]
    seconds = time.perf_counter() - start
    assert len(figures) == 5
    return seconds


def main() -> None:
    """Print medians and ranges."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--epochs", type=int, help="instead of those of the config")
    results.add_argument(parser)
    options = parser.parse_args()
    sets = sorted(figure_set_seconds(options.classes) for _ in range(options.rounds + 1))
    print(f"a set of figures, C = {options.classes}: {statistics.median(sets):.2f} s (at most {sets[-1]:.2f})")
    table = [{"what": f"seconds for a set of figures, C = {options.classes}", "median (range)": results.spread(sets)}]
    train("with", 1)  # fills the file caches
    ratios, shares = [], []
    for number in range(options.rounds):
        order = ("with", "without") if number % 2 else ("without", "with")
        runs = {dashboard: train(dashboard, options.epochs) for dashboard in order}
        ratios.append(runs["with"][0] / runs["without"][0])
        shares.append(runs["with"][1])
        print(f"with {runs['with'][0]:.1f} s, without {runs['without'][0]:.1f} s, inside {shares[-1]:.1%} of the rest")
        size = runs["with"][2]
    for what, values in (("training with dashboard / without", ratios), ("inside of the dashboard / the rest", shares)):
        print(f"{what}: {results.spread(values, digits=3)}")
        table.append({"what": what, "median (range)": results.spread(values, digits=3)})
    print(f"event file with the dashboard: {size / 1000:.0f} kB")
    table.append({"what": "kB of the event file", "median (range)": f"{size / 1000:.0f}"})
    results.write(options.json, f"{torch.get_num_threads()} CPU threads", table)


if __name__ == "__main__":
    main()
