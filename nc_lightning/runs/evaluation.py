"""Evaluate the frozen features of a trained module with the protocols of `nc_lightning.evaluation`."""

import copy
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from nc_lightning.callbacks import PredictionWriter
from nc_lightning.callbacks.measurement.layers import OUTPUT, check_layers
from nc_lightning.checks import one_line, separated_names
from nc_lightning.data.base import LabeledDataModule
from nc_lightning.evaluation import evaluate_features

LAYERS = ("encoder", OUTPUT)
"""Layers that are evaluated by default: what the encoder gives to other tasks, and what the loss was trained on."""


class Features(NamedTuple):
    """Features (N, d) by layer and labels (N,) of one set, on the CPU."""

    layers: dict[str, Tensor]
    labels: Tensor


class RunEvaluation(NamedTuple):
    """Results of the protocols on the features of several layers.

    Attributes:
        layers: Values by layer and name, see `nc_lightning.evaluation.evaluate_features`.
        train_size: Number of training samples.
        test_size: Number of test samples.
        notes: What was left out, one line each.
    """

    layers: dict[str, dict[str, float]]
    train_size: int
    test_size: int
    notes: list[str]


def evaluate(module: LightningModule, data: LightningDataModule, layers: Sequence[str] | str = LAYERS) -> RunEvaluation:
    """Evaluate the features of a module in eval mode: fit each protocol to the training set, score it on the test set.

    Images are standardized as in training of the module, and not augmented. The classes need not be those of training.

    Args:
        module: Trained module, such as that of `load`.
        data: Data module of the training, or another one. One that is not of `nc_lightning.data` is evaluated on its
            ``geometry_dataloader()``, or else its ``train_dataloader()`` as it is, and its ``test_dataloader()``, or
            else its ``val_dataloader()``.
        layers: Names of submodules such as ``encoder`` or ``projector.0``, and ``z`` for the output of the module, as a
            list or separated by commas.

    Raises:
        ValueError: If there is no such layer, the module cannot read the data, a feature is not finite, or there are
            less than two classes.
    """
    layers = separated_names("layers", layers)
    check_layers("layers", module, layers)
    train, test = frozen_features(module, data, layers)
    num_classes = getattr(data, "num_classes", None) or int(torch.cat([train.labels, test.labels]).max()) + 1
    results, notes = dict[str, dict[str, float]](), dict[str, None]()
    for layer in layers:
        try:
            found = evaluate_features(
                (train.layers[layer], train.labels), (test.layers[layer], test.labels), num_classes
            )
        except ValueError as error:
            raise ValueError(f"features of {layer!r}: {error}") from error
        results[layer] = found.values
        notes |= dict.fromkeys(found.notes)
    return RunEvaluation(results, len(train.labels), len(test.labels), list(notes))


def frozen_features(
    module: LightningModule,
    data: LightningDataModule,
    layers: Sequence[str],
    splits: tuple[str, str] = ("train", "test"),
) -> tuple[Features, Features]:
    """Compute the features of two splits of a data module as ``nc-train predict`` does.

    Args:
        module: Module in eval mode.
        data: Data module, see `evaluate`.
        layers: Names of the layers.
        splits: Splits; only those of data modules of `nc_lightning.data` can be others.

    Raises:
        ValueError: If there is no such layer, or the module cannot read the data.
    """
    ours = isinstance(data, LabeledDataModule)
    objective: Any = module
    names = getattr(module, "class_names", None)
    with tempfile.TemporaryDirectory() as folder:
        writer = _QuietWriter(splits if ours else None, layers, str(Path(folder, "features.npz")))
        off: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        trainer = Trainer(devices=1, default_root_dir=folder, callbacks=[writer], **off)
        objective.class_names = None  # those of other data may differ
        try:
            trainer.predict(module, datamodule=data if ours else _with_loaders(data), return_predictions=False)
        except RuntimeError as error:
            shape = getattr(data, "input_shape", None)
            inputs = "" if shape is None else f" with inputs {tuple(shape)}"
            raise ValueError(
                f"data: got {type(data).__name__}{inputs}, which {type(module).__name__} cannot read: {one_line(error)}"
            ) from error
        finally:
            objective.class_names = names
        first, second = writer.written.values()
        return _read(first, layers), _read(second, layers)


def _with_loaders(data: LightningDataModule) -> LightningDataModule:
    """Return a copy of a user's data module that predicts its training and test set."""
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    train = getattr(data, "geometry_dataloader", data.train_dataloader)()
    tested = is_overridden("test_dataloader", data, LightningDataModule)
    held_out = data.test_dataloader() if tested else data.val_dataloader()
    predicting = copy.copy(data)
    predicting.predict_dataloader = lambda: [train, held_out]  # type: ignore[method-assign]
    return predicting


class _QuietWriter(PredictionWriter):
    """Write files that are read at once and removed."""

    def announce(self, lines: Sequence[str]) -> None:
        """Do not tell of them."""


def _read(path: Path, layers: Sequence[str]) -> Features:
    with np.load(path, allow_pickle=False) as file:
        labels = torch.from_numpy(file["labels"])
        return Features({layer: torch.from_numpy(file[layer]) for layer in layers}, labels)
