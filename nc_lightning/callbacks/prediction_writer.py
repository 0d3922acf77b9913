"""Writes the features of ``nc-train predict`` to a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info

from nc_lightning.batch import set_name
from nc_lightning.callbacks.sources import run_folder
from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.io.atomic import unused_path
from nc_lightning.private_apis.lightning import attached_datamodule

Array = np.ndarray[Any, Any]


class PredictionWriter(BasePredictionWriter):
    """Write ``features`` (N, d) and ``labels`` (N,) of all predictions to ``predictions.npz`` in the run's folder.

    A second loader adds ``features_1`` and ``labels_1``, and so on. If the data module knows them, ``class_names`` (C,)
    and, for inputs in files, their ``paths`` (N,) are included.

    An existing file is kept; the new one gets a numeric suffix. Of W processes, each predicts every W-th sample, as
    Lightning and the data modules here distribute them; together they write one file.

    Attributes:
        path: Path of the file written last, or None.
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
            set_name(key, i): torch.cat([p[key] for p in loader]).cpu().numpy()
            for i, loader in enumerate(predictions if several else [predictions])
            for key in ("features", "labels")
        }
        shares = all_gather_objects((own, None if several else _paths(trainer, len(predictions))))
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.path = unused_path(folder / "predictions.npz")
        arrays: dict[str, Any] = {key: _interleave([share[key] for share, _ in shares]) for key in own}
        written = " and ".join(f"{key} {array.shape}" for key, array in arrays.items())
        names = getattr(attached_datamodule(trainer), "class_names", None)
        if names is not None:
            arrays["class_names"] = np.array(names)
        paths = [np.array(paths) for _, paths in shares if paths]
        if paths and sum(map(len, paths)) == len(arrays["labels"]):
            arrays["paths"] = _interleave(paths)
        np.savez(self.path, **arrays)
        rank_zero_info(f"{written}: {self.path}")


def _paths(trainer: Trainer, num_batches: int) -> list[str] | None:
    paths = getattr(trainer.predict_dataloaders, "paths", None)
    of_batches = paths(num_batches) if callable(paths) else None
    return None if of_batches is None else [str(path) for path in of_batches]


def _interleave(shares: list[Array]) -> Array:
    """Interleave W shares of the rows: share r holds rows r, r + W, r + 2 W and so on."""
    longest = max(shares, key=lambda share: share.dtype.itemsize)  # an array of strings is as wide as its longest one
    whole = np.empty((sum(map(len, shares)), *longest.shape[1:]), longest.dtype)
    for rank, share in enumerate(shares):
        whole[rank :: len(shares)] = share
    return whole
