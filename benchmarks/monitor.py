"""Cost of a geometry measurement in epochs of training, with features kept and with two passes over a set.

    python -m benchmarks.monitor [--images 1000] [--rounds 3] [--views 1]

HSCL with `SmallCNN` on random 32x32 images is trained for three epochs in alternation, and measured after each epoch;
the first one is not counted. The result is the median over rounds of the time of a measurement of the training set and
of a held-out set of a quarter of its size, divided by the time of the epoch before it.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer

from benchmarks import results
from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.callbacks.measurement import passes as measurement
from nc_lightning.data import ArrayDataModule, SimCLR
from nc_lightning.encoders import SmallCNN


class Timed(GeometryMonitor):
    """Records the time of each measurement in epochs."""

    def __init__(self) -> None:
        super().__init__()
        self.ratios: list[float] = []
        self.start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the start of an epoch."""
        super().on_train_epoch_start(trainer, pl_module)
        self.start = time.perf_counter()

    def _measure(self, *args: Any) -> None:
        epoch = time.perf_counter() - self.start
        start = time.perf_counter()
        super()._measure(*args)
        self.ratios.append((time.perf_counter() - start) / epoch)


def ratio(path: Path, views: int) -> float:
    """Return the median ratio of a training."""
    augmentation = SimCLR() if views > 1 else None
    data = ArrayDataModule(path=str(path), batch_size=250, views=views, augmentation=augmentation)
    monitor = Timed()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=3,
        callbacks=[monitor],
        num_sanity_val_steps=0,
        check_val_every_n_epoch=9,
        **quiet,  # type: ignore
    )
    trainer.fit(HSCL(encoder=SmallCNN((3, 32, 32)), num_classes=10), data)
    return statistics.median(monitor.ratios[1:])


def main() -> None:
    """Print a line for each variant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--views", type=int, default=1)
    results.add_argument(parser)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (args.images, 32, 32, 3), dtype=np.uint8), np.arange(args.images) % 10
    held_out = args.images // 4
    ways = {"kept": measurement.KEPT_BYTES, "two passes": 0}
    rounds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        np.savez(path, x_train=images, y_train=labels, x_test=images[:held_out], y_test=labels[:held_out])
        for _ in range(args.rounds):
            for name, size in ways.items():
                measurement.KEPT_BYTES = size
                rounds[name].append(ratio(path, args.views))
    print(f"{args.images} images 32x32, views {args.views}, {torch.get_num_threads()} CPU threads")
    spreads = {name: results.spread(ratios) for name, ratios in rounds.items()}
    for name, spread in spreads.items():
        print(f"{name:>10}: a measurement takes {spread} epochs")
    table = [{"features": name, "epochs of training per measurement": spread} for name, spread in spreads.items()]
    results.write(args.json, f"{torch.get_num_threads()} CPU threads", table)


if __name__ == "__main__":
    main()
