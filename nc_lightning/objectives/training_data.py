"""The data that a fit trains on."""

from typing import Any

from lightning.pytorch import Trainer


def training_datamodule(trainer: Trainer) -> Any:
    """Return the data module of a fit; None for a fit with loaders, where ``trainer.datamodule`` is an earlier one's.

    Example:
        >>> training_datamodule(Trainer(logger=False)) is None
        True
    """
    datamodule = getattr(trainer, "datamodule", None)
    return datamodule if trainer.fit_loop._data_source.instance is datamodule else None
