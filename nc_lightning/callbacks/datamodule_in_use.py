"""The data module that a trainer reads now."""

from typing import Any

from lightning.pytorch import Trainer


def datamodule_in_use(trainer: Trainer) -> Any:
    """Return the data module of this fit, validation, test or prediction; None where it was given loaders.

    ``trainer.datamodule`` is that of an earlier call then: Lightning keeps it.

    Example:
        >>> datamodule_in_use(Trainer(logger=False)) is None
        True
    """
    connector = getattr(trainer, "_data_connector", None)
    return getattr(getattr(connector, "_datahook_selector", None), "datamodule", None)
