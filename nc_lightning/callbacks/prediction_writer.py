"""Writes the features of ``nc-train predict`` to a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from nc_lightning.batch import set_name
from nc_lightning.callbacks.sources import run_folder
from nc_lightning.files import unused_path
from nc_lightning.processes import of_all_processes


class PredictionWriter(BasePredictionWriter):
    """Write ``features`` (N, d) and ``labels`` (N,) of all predictions into ``predictions.npz`` in the run's folder.

    Those of a second loader are ``features_1`` and ``labels_1``, and so on.

    An existing file is left alone; the new one then has a number. Several processes predict every W-th sample each, as
    Lightning and the data modules here deal them out, and write one file.

    Attributes:
        path: The file that was written last, or None.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")
        self.path: Path | None = None

    def write_on_epoch_end(
        self, trainer: Trainer, pl_module: LightningModule, predictions: Sequence[Any], batch_indices: Sequence[Any]
    ) -> None:
        """Write one file for the whole data set, in its order."""
        several = len(predictions) > 0 and isinstance(predictions[0], list)
        own = {
            set_name(key, i): torch.cat([p[key] for p in loader]).cpu()
            for i, loader in enumerate(predictions if several else [predictions])
            for key in ("features", "labels")
        }
        shares = of_all_processes(own)
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.path = unused_path(folder / "predictions.npz")
        arrays = {key: _interleave([share[key] for share in shares]).numpy() for key in own}
        np.savez(self.path, **arrays)  # type: ignore[arg-type]
        rank_zero_info(f"{' and '.join(f'{key} {array.shape}' for key, array in arrays.items())}: {self.path}")


def _interleave(shares: list[Tensor]) -> Tensor:
    """Put together rows of which share r has those at r, r + W, r + 2 W and so on."""
    whole = shares[0].new_empty(sum(map(len, shares)), *shares[0].shape[1:])
    for rank, share in enumerate(shares):
        whole[rank :: len(shares)] = share
    return whole
