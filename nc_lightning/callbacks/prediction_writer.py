"""Writes the features of ``nc-train predict`` to files."""

import itertools
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info
from lightning.pytorch.utilities.data import extract_batch_size
from torch import Tensor

from nc_lightning.batch import read_batch, set_name
from nc_lightning.callbacks.measurement.layers import OUTPUT, caught_layers, check_layers, features_of_call
from nc_lightning.callbacks.sources import run_folder
from nc_lightning.checks import separated_names
from nc_lightning.data.base import SPLITS
from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.io.atomic import atomic_write, errors_of, short_path
from nc_lightning.io.feature_writers import check_format, check_texts, write_arrays
from nc_lightning.io.part_files import INDICES, Array, Part, PartFiles, assemble, mapped_texts
from nc_lightning.private_apis.lightning import attached_datamodule

_OTHER_ARRAYS = ("labels", INDICES, "paths", "class_names")


class PredictionWriter(BasePredictionWriter):
    """Write features of all predictions to a file for each set, without keeping them in memory.

    A file has the features (N, d) of each layer under its name, ``labels`` (N,), ``indices`` (N,) in the data set and,
    if the data module knows them, ``class_names`` (C,) and the ``paths`` (N,) of inputs in files. Rows are in the order
    of the data set, also with several processes, and include each sample once. An existing file is kept; the new one
    gets a numeric suffix. Batches go to temporary files in the folder of the result; if the prediction stops before its
    end, nothing remains.

    Pass ``return_predictions=False`` to `Trainer.predict`: otherwise Lightning keeps all predictions to return them.

    Args:
        splits: Splits of the data module to predict, ``train``, ``val`` and ``test``, as a list or separated by commas;
            the name of the split is added to that of its file. None for the data module's own ``predict_dataloader``.
        layers: Names of submodules such as ``encoder`` or ``projector.0``, and ``z`` for the features that the module's
            ``predict_step`` returns; as a list or separated by commas.
        path: New file, ``.npz``, ``.safetensors`` or ``.parquet``; None for ``predictions.npz`` in ``log_dir``.

    Attributes:
        written: Path of each file written last, by the name of its set.

    Raises:
        ValueError: If there is no such split, layer or format, or the data module has no splits.
        ModuleNotFoundError: If the format needs a package that is not installed.
        OSError: If a file cannot be written, or processes do not share the folder.

    Example:
        >>> PredictionWriter(splits="train,val", layers="encoder,z", path="features.parquet").layers
        ('encoder', 'z')
    """

    def __init__(
        self,
        splits: Sequence[str] | str | None = None,
        layers: Sequence[str] | str = OUTPUT,
        path: str | None = None,
    ) -> None:
        super().__init__(write_interval="batch")
        self.splits = None if splits is None else separated_names("predict.splits", splits)
        self.layers = separated_names("predict.layers", layers)
        for split in self.splits or []:
            if split not in SPLITS:
                raise ValueError(f"predict.splits: got {split!r}, expected some of {', '.join(SPLITS)}")
        for layer in self.layers:
            if layer in _OTHER_ARRAYS:
                raise ValueError(f"predict.layers: got {layer!r}, the name of another array, expected a layer")
        self._path = None if path is None else Path(path).expanduser()
        self.written: dict[str, Path] = {}
        self._files: PartFiles | None = None
        self._in_batch = ExitStack()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the settings before a prediction, and let the data module return the splits."""
        super().setup(trainer, pl_module, stage)
        if stage != "predict":
            return
        if self._path is not None:
            check_format("predict.path", self._path)
        check_layers("predict.layers", pl_module, self.layers)
        data = attached_datamodule(trainer)
        if hasattr(data, "predict_splits"):
            data.predict_splits = self.splits
        elif self.splits is not None:
            got = "loaders" if data is None else f"{type(data).__name__}, which has no predict_splits"
            raise ValueError(
                f"predict.splits: got {','.join(self.splits)} for {got}, expected a data module of nc_lightning.data; "
                "leave splits out to predict its predict_dataloader"
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make a folder for the batches, which all processes share."""
        self._loaders = CombinedLoader(trainer.predict_dataloaders, "sequential").flattened
        count = range(len(self._loaders))
        # The loaders of one split, or of none, are numbered; data modules here have one loader for each split.
        self._sets = self.splits or [set_name("predict", i) for i in count]
        self._target = run_folder(trainer) / "predictions.npz" if self._path is None else self._path
        for loader in self._loaders:
            check_texts("predict.path", self._target, _paths(loader) or [])
        with errors_of("predict.path", self._target):
            made = ""
            if trainer.is_global_zero:
                self._target.parent.mkdir(parents=True, exist_ok=True)
                made = tempfile.mkdtemp(".parts", f".{self._target.stem}-", self._target.parent)
        self._files = PartFiles(Path(trainer.strategy.broadcast(made)), trainer.global_rank)
        if not all(all_gather_objects(self._files.folder.is_dir())):
            raise OSError(
                f"predict.path: got {str(self._target.parent)!r}, which the processes do not share, expected a folder "
                "that all of them can write to"
            )

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Catch the output of the layers."""
        caught = caught_layers(pl_module, self.layers, _num_samples(batch))
        self._caught: Mapping[str, list[Tensor]] = self._in_batch.enter_context(caught)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Append a batch to the files of this process."""
        self._in_batch.close()
        count = _num_samples(batch)
        features = features_of_call(pl_module, self._caught, prediction, self.layers, count)
        arrays = {name: _to_numpy(layer) for name, layer in features.items()}
        labels = _labels(prediction, batch)
        if labels is not None:
            arrays["labels"] = labels.cpu().numpy()
        loader = self._loaders[dataloader_idx]
        own_indices = getattr(loader, INDICES, None)
        arrays[INDICES] = _of_views(own_indices(batch_idx) if callable(own_indices) else batch_indices, count)
        trainer.predict_loop.current_batch_indices = []  # Lightning leaves them there for loaders without indices
        with errors_of("predict.path", self._target):
            self._open_files().append(self._sets[dataloader_idx], arrays)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Assemble the batches of all processes in the order of the data set."""
        files = self._open_files()
        with errors_of("predict.path", self._target):
            files.close()
        shares = all_gather_objects(files.parts)
        written: dict[str, Path] = {}
        if trainer.is_global_zero:
            shapes: list[str] = []
            names = getattr(attached_datamodule(trainer), "class_names", None)
            sets = [name for name in self._sets if any(name in share for share in shares)]
            targets = _unused(self._target, [self._suffix(name) for name in sets])
            with errors_of("predict.path", self._target), ExitStack() as at_once:
                for name, target in zip(sets, targets, strict=True):
                    half = at_once.enter_context(atomic_write(target))
                    arrays = self._assembled(name, [share.get(name, {}) for share in shares], files.folder)
                    write_arrays(half, target.suffix, arrays, names)
                    written[name] = target
                    shapes.append(", ".join(f"{key} {array.shape}" for key, array in arrays.items()))
            self.announce([f"{shape}: {short_path(path)}" for shape, path in zip(shapes, targets, strict=True)])
        self.written = trainer.strategy.broadcast(written)  # the other processes wait
        self._remove_parts()

    def announce(self, lines: Sequence[str]) -> None:
        """Log the arrays and the path of each file that was written."""
        for line in lines:
            rank_zero_info(line)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the temporary files, if the prediction did not end, and the hooks."""
        self._in_batch.close()
        self._remove_parts()
        data = attached_datamodule(trainer)
        if stage == "predict" and hasattr(data, "predict_splits"):
            data.predict_splits = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the temporary files and the hooks."""
        self.teardown(trainer, pl_module, str(trainer.state.stage))

    def _assembled(self, name: str, shares: Sequence[Mapping[str, Part]], parts: Path) -> dict[str, Array]:
        number = self._sets.index(name)
        folder = parts / f"set-{number}"
        folder.mkdir()
        arrays = assemble(shares, folder)
        paths = _paths(self._loaders[number])
        if paths is not None:
            arrays["paths"] = mapped_texts(paths, arrays[INDICES], folder / "paths")
        return arrays

    def _suffix(self, name: str) -> str:
        """Return what the name of a set adds to that of its file; nothing for the one of ``predict_dataloader``."""
        return f"_{name}" if self.splits is not None else name.removeprefix("predict")

    def _open_files(self) -> PartFiles:
        if self._files is None:
            raise RuntimeError("PredictionWriter: got a batch before the start of the prediction")
        return self._files

    def _remove_parts(self) -> None:
        if self._files is not None:
            with suppress(OSError):  # what is buffered may not fit on a full disk
                self._files.close()
            shutil.rmtree(self._files.folder, ignore_errors=True)
            self._files = None


def _unused(target: Path, suffixes: Sequence[str]) -> list[Path]:
    """Return a free path for each suffix, all with the same number if any of the plain names is taken."""
    stems = itertools.chain([target.stem], (f"{target.stem}-{n}" for n in itertools.count(1)))
    candidates = ([target.with_stem(stem + suffix) for suffix in suffixes] for stem in stems)
    return next(paths for paths in candidates if not any(path.exists() for path in paths))


def _num_samples(batch: Any) -> int:
    """Return the number of rows that the module computes for a batch, those of all views."""
    try:
        views, labels = read_batch(batch)
    except ValueError:  # a format of a user's own module
        return int(extract_batch_size(batch))
    return len(views) * len(labels)


def _labels(prediction: Any, batch: Any) -> Tensor | None:
    """Return the labels in the output of ``predict_step`` or else in the batch."""
    if isinstance(prediction, Mapping) and isinstance(prediction.get("labels"), Tensor):
        labels: Tensor = prediction["labels"]
        return labels
    try:
        views, labels = read_batch(batch)
    except ValueError:
        return None
    return labels.repeat(len(views))


def _of_views(indices: Sequence[int] | None, count: int) -> Array:
    """Return the indices of each row of a batch, view after view; -1 if they are unknown."""
    if not indices or count % len(indices):
        return np.full(count, -1)
    return np.tile(np.asarray(indices, dtype=np.int64), count // len(indices))


def _paths(loader: Any) -> Sequence[Path] | None:
    """Return the files of the inputs of a loader of `nc_lightning.data`."""
    return getattr(getattr(loader, "images", None), "paths", None)


def _to_numpy(features: Tensor) -> Array:
    """Convert features to float32, or float64 if they are; numpy has no bfloat16."""
    features = features if features.dtype == torch.float64 else features.float()
    return features.cpu().numpy()
