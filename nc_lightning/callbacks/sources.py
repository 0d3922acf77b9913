"""Where callbacks find what they need: the features of a step, and the number of classes."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor


def step_features(outputs: Any) -> tuple[Tensor, Tensor, Tensor | None] | None:
    """Return z, labels and instances, if there are any, of what a step returned; None if it exposes no features."""
    if isinstance(outputs, dict) and "z" in outputs and "labels" in outputs:
        return outputs["z"], outputs["labels"], outputs.get("instances")
    return None


def find_num_classes(given: int | None, trainer: Trainer, module: LightningModule, callback: str) -> int:
    """Return the number of classes that was given, or else that of the module or of the data module.

    Raises:
        ValueError: If there is none; the message names the callback.
    """
    for source in (given, getattr(module, "num_classes", None), _of_data(trainer)):
        if source is not None:
            return int(source)
    raise ValueError(f"num_classes: got none from the module or the data module, expected {callback}(num_classes=...)")


def _of_data(trainer: Trainer) -> int | None:
    return getattr(getattr(trainer, "datamodule", None), "num_classes", None)
