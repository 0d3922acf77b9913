"""CPU seconds of starting: the help of every command, versions, an import, and nc-measure on a file of features.

    python -m benchmarks.startup [--baseline REF] [--rounds 3] [--samples 50000] [--feature_dim 512]

Every call is a process of its own. With `--baseline`, the same calls run at that commit too, in alternation, from a
temporary checkout in the same environment. CPU seconds are user and system time of the process and its children. The
last column names the heavy packages that a call has loaded.
"""

import argparse
import math
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import results

HEAVY = ("torch", "lightning", "torchmetrics", "torchvision", "matplotlib")
"""Packages that take long to import."""
_COMMAND = """\
import atexit, importlib, sys
atexit.register(lambda: print("LOADED", *(name for name in {heavy} if name in sys.modules)))
sys.argv[0] = "{command}"
importlib.import_module("{module}").{function}()
"""
_IMPORT = 'import sys, nc_lightning; print("LOADED", *(name for name in {heavy} if name in sys.modules))'


def calls(checkout: Path, features: Path) -> dict[str, list[str]]:
    """Return the arguments of Python for each call, by the console scripts of a checkout."""
    scripts = re.findall(r'^(nc-\w+) = "([\w.]+):(\w+)"', (checkout / "pyproject.toml").read_text(), re.MULTILINE)
    entries = {command: (module, function) for command, module, function in scripts}
    lines = [
        *("nc-train --help", "nc-measure --help", "nc-report --help", "nc-sweep --help", "nc-train --version"),
        *("nc-train fit --help", "nc-train fit --model.help HSCL", f"nc-measure {features}"),
    ]
    made = {}
    for line in lines:
        command, *arguments = line.split()
        module, function = entries[command]
        code = _COMMAND.format(heavy=HEAVY, command=command, module=module, function=function)
        made[line.replace(str(features), "FEATURES.npz")] = ["-c", code, *arguments]
    return {**made, "import nc_lightning": ["-c", _IMPORT.format(heavy=HEAVY)]}


def cpu_seconds(arguments: list[str], checkout: Path, folder: Path) -> tuple[float, str]:
    """Run Python on a checkout; return CPU seconds, NaN if it fails, and the heavy packages that it has loaded."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if run.returncode != 0:
        return math.nan, ""
    loaded = next(line for line in run.stdout.splitlines() if line.startswith("LOADED"))
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ", ".join(loaded.split()[1:])


@contextmanager
def checkouts(baseline: str | None) -> Iterator[dict[str, Path]]:
    """Yield the folders of this version and, if there is one, of the baseline, which is removed at the end."""
    here = Path(__file__).parent.parent
    if baseline is None:
        yield {"now": here}
        return
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "baseline"
        subprocess.run(["git", "clone", "--quiet", "--shared", "--no-checkout", here, there], check=True)
        subprocess.run(["git", "-C", there, "checkout", "--quiet", "--detach", baseline], check=True)
        yield {"now": here, "baseline": there}


def main() -> None:
    """Print the CPU seconds of each call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", metavar="REF", help="commit to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--feature_dim", type=int, default=512)
    results.add_argument(parser)
    arguments = parser.parse_args()
    table: list[dict[str, float | str | None]] = []
    with tempfile.TemporaryDirectory() as folder, checkouts(arguments.baseline) as versions:
        features = Path(folder) / "features.npz"
        rng = np.random.default_rng(0)
        z = rng.standard_normal((arguments.samples, arguments.feature_dim), dtype=np.float32)
        np.savez(features, features=z, labels=np.arange(arguments.samples) % 100)
        of_version = {version: calls(checkout, features) for version, checkout in versions.items()}
        for name in of_version["now"]:
            seconds: dict[str, list[float]] = {version: [] for version in versions}
            loaded = ""
            for _ in range(arguments.rounds):
                for version, checkout in versions.items():
                    took, packages = cpu_seconds(of_version[version][name], checkout, Path(folder))
                    seconds[version].append(took)
                    loaded = packages if version == "now" else loaded
            row: dict[str, float | str | None] = {"call": name}
            for version, each in seconds.items():
                median = statistics.median(each)
                row[f"CPU seconds, {version}"] = None if math.isnan(median) else round(median, 2)
            row["loads"] = loaded or "nothing heavy"
            print("  ".join(f"{value}" for value in row.values()))
            table.append(row)
    results.write(arguments.json, f"{os.cpu_count()} CPU cores", table)


if __name__ == "__main__":
    main()
