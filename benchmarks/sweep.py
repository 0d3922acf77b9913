"""Cells an hour of `nc-sweep`, and of `nc-train` in a loop of the shell.

    python -m benchmarks.sweep [--trainings tiny short] [--cells 12 2] [--rounds 3]

Both run the same trainings, one at a time and in alternation, and must measure the same to the last digit. The time is
that of the whole command, so that a sweep of few cells pays more for its own start. `tiny` is three epochs of
`hscl.yaml`, `short` is `paper/short.yaml`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import device, results
from nc_lightning.sweeps.plan import read_plan

TRAININGS: dict[str, dict[str, Any]] = {
    "tiny": {"objective": "hscl.yaml", "all": {"trainer.max_epochs": 3}},
    "short": {"objective": "hscl.yaml", "overlays": "paper/short.yaml"},
}
_SWEEP = "from nc_lightning.sweeps.command import main; main(['plan.yaml', '--output=sweep'])"


def seconds(command: list[str], folder: Path) -> float:
    """Run a command in a folder, and return how long it took."""
    checkout = str(Path(__file__).parent.parent)
    start = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": checkout}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.perf_counter() - start


def measured(folder: Path) -> list[Any]:
    """Return what each run below a folder has measured, by the names of the runs."""
    records = sorted(folder.rglob("report.json"), key=lambda path: path.parent.name)
    return [json.loads(path.read_text())["history"] for path in records]


def one_round(training: str, cells: int) -> dict[str, float]:
    """Run the cells both ways; return the seconds a cell of each.

    Raises:
        ValueError: If a cell has measured something else than the same training in the loop.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plan.yaml").write_text(yaml.safe_dump({**TRAININGS[training], "seeds": list(range(cells))}))
        swept = seconds([sys.executable, "-c", _SWEEP], folder)
        looped = 0.0
        for cell in read_plan(str(folder / "plan.yaml"), []).cells:
            own = ["--trainer.enable_model_summary=false", f"--name={cell.name}", "--trainer.default_root_dir=loop"]
            looped += seconds([sys.executable, "-m", "nc_lightning", "fit", *cell.arguments, *own], folder)
        if measured(folder / "sweep") != measured(folder / "loop") or not measured(folder / "loop"):
            raise ValueError(f"{training}: the sweep and the loop have measured different values")
    return {"nc-sweep": swept / cells, "nc-train": looped / cells}


def main() -> None:
    """Print a row for each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", nargs="+", choices=list(TRAININGS), default=list(TRAININGS))
    parser.add_argument("--cells", nargs="+", type=int, default=[12, 2], help="cells of each training")
    parser.add_argument("--rounds", type=int, default=3)
    results.add_argument(parser)
    arguments = parser.parse_args()
    rows: list[dict[str, float | str | None]] = []
    for training, cells in zip(arguments.trainings, arguments.cells, strict=True):
        rounds = [one_round(training, cells) for _ in range(arguments.rounds)]
        hourly = {f"{name}: cells an hour": 3600 / statistics.median(r[name] for r in rounds) for name in rounds[0]}
        ratio = results.spread([r["nc-train"] / r["nc-sweep"] for r in rounds])
        row = {name: round(value, 1) for name, value in hourly.items()}
        rows.append({"training": training, "cells": cells, **row, "nc-sweep / nc-train": ratio})
        print(", ".join(f"{key}: {value}" for key, value in rows[-1].items()), flush=True)
    results.write(arguments.json, device.name_of(torch.device("cpu")), rows)


if __name__ == "__main__":
    main()
