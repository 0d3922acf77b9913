"""Writes the features of ``nc-train predict`` to a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from nc_lightning.files import unused_path


class PredictionWriter(BasePredictionWriter):
    """Write ``features`` (N, d) and ``labels`` (N,) of all predictions into ``predictions.npz`` in the run's folder.

    An existing file is left alone; the new one then has a number.

    Attributes:
        path: The file that was written last, or None.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")
        self.path: Path | None = None

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Write one file for the whole data set."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = unused_path(folder / "predictions.npz")
        features, labels = (torch.cat([p[key] for p in predictions]).cpu().numpy() for key in ("features", "labels"))
        np.savez(self.path, features=features, labels=labels)
        rank_zero_info(f"features {features.shape} and labels {labels.shape}: {self.path}")
