"""Train SCL and HSCL with one recipe, and plot the cosines of their class means side by side with the ideal.

python examples/compare_geometry.py cosines.png [SETTING ...]

The runs are lightning_logs/scl and lightning_logs/hscl.
"""

import sys
from pathlib import Path
from typing import Any

from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.cli import main as nc_train
from nc_lightning.plots import cosines_figure, to_png


def main(picture: str, *settings: str) -> dict[str, float]:
    """Save the picture, and return the effective rank that each objective reached."""
    if Path(picture).exists():
        raise SystemExit(f"{picture} exists: name a new file")
    statistics, ranks = {}, {}
    for name in ("SCL", "HSCL"):
        run = name.lower()
        configs = ["--config", f"{run}.yaml", "--config", "digit_pairs.yaml"]
        trainer: Any = nc_train(["fit", *configs, "--name", run, *settings]).trainer
        monitor = next(callback for callback in trainer.callbacks if isinstance(callback, GeometryMonitor))
        statistics[name] = monitor.statistics["train"]
        ranks[name] = monitor.results["train"]["effective_rank"]
    Path(picture).write_bytes(to_png(cosines_figure(statistics)))
    return ranks


if __name__ == "__main__":
    main(*sys.argv[1:])
