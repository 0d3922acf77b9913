"""Lookups for callbacks: the number of classes, the data module, folders, other callbacks."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from nc_lightning.io.run_folder import Trainer as OwnTrainer
from nc_lightning.private_apis.lightning import attached_datamodule, attached_trainer, loaders_in_use


def is_named(instance: object, *names: str) -> bool:
    """Return whether the class of an object, or one of its bases, has one of these names.

    The packages ``lightning`` and ``pytorch_lightning`` define the same classes twice; `isinstance` would accept one.

    Example:
        >>> from lightning.pytorch.callbacks import EarlyStopping
        >>> is_named(EarlyStopping("loss/val"), "EarlyStopping", "ModelCheckpoint")
        True
    """
    return any(cls.__name__ in names for cls in type(instance).__mro__)


def find_num_classes(given: int | None, trainer: Trainer, module: LightningModule, callback: str) -> int:
    """Return the given number of classes, or else that of the module or of the data module.

    Raises:
        ValueError: If there is none; the message names the callback.
    """
    of_data = getattr(attached_datamodule(trainer), "num_classes", None)
    for source in (given, getattr(module, "num_classes", None), of_data):
        if source is not None:
            return int(source)
    raise ValueError(f"num_classes: got none from the module or the data module, expected {callback}(num_classes=...)")


def run_folder(trainer: Trainer) -> Path:
    """Return the folder of the run's report and predictions; a collective, which every process must call.

    It is the trainer's ``log_dir``. Loggers without their own folder, such as W&B's, share a ``save_dir``: there it is
    the folder in which Lightning puts the ``checkpoints`` of the run.
    """
    folder = trainer.log_dir or trainer.default_root_dir
    logger = trainer.logger
    if not isinstance(trainer, OwnTrainer) and not isinstance(logger, (TensorBoardLogger, CSVLogger, type(None))):
        version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
        folder = trainer.strategy.broadcast(os.path.join(folder, str(logger.name), version))
    return Path(folder)


def checkpoint_folder(trainer: Trainer, otherwise: str = "checkpoints") -> Path:
    """Return the folder of the first `ModelCheckpoint`; if there is none, ``otherwise`` in the run's folder.

    If no folder was claimed for the run, ``otherwise`` is below ``default_root_dir``.
    """
    callbacks = trainer.checkpoint_callbacks
    folders = [callback.dirpath for callback in callbacks if isinstance(callback, ModelCheckpoint) and callback.dirpath]
    root = getattr(trainer, "run_folder", None) or trainer.default_root_dir
    return Path(folders[0] if folders else Path(root) / otherwise)


def callbacks_of(trainer: Trainer) -> list[Any]:
    """Return the callbacks of a trainer."""
    return getattr(trainer, "callbacks", [])


def unless_present(callback: type[Callback], module: LightningModule) -> list[Callback]:
    """Return a new callback for `configure_callbacks`, or none if the Trainer already has one of its class."""
    return [] if any(isinstance(other, callback) for other in callbacks_of(attached_trainer(module))) else [callback()]


def data_in_use(trainer: Trainer) -> Any:
    """Return the data module in use, or the loaders that were passed instead.

    Example:
        >>> data_in_use(Trainer(logger=False)) is None
        True
    """
    module = attached_datamodule(trainer)
    return loaders_in_use(trainer) if module is None else module
