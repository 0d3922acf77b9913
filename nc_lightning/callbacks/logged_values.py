"""Values that are logged as means over an epoch, and those that are out of date."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from nc_lightning.private_apis.lightning import add_to_means


@torch.compiler.disable  # type: ignore[untyped-decorator]
def log_means(module: LightningModule, values: Mapping[str, Tensor], weight: Any, prog_bar: bool = False) -> None:
    """Log values () with their weight, as means over the epoch and all processes.

    A step only adds to sums on the device; the means are computed when loggers and callbacks read them.

    Args:
        module: Module in one of whose hooks, or a callback's, this is called.
        values: Values () by key.
        weight: Weight of the values, a number or a tensor ().
        prog_bar: Whether to show them in the progress bar.
    """
    new = add_to_means(module, values, weight)
    if new:
        options: dict[str, Any] = {"prog_bar": prog_bar, "batch_size": weight, "add_dataloader_idx": False}
        module.log_dict(new, on_step=False, on_epoch=True, sync_dist=True, **options)


def forget_logged(trainer: Trainer, *prefixes: str) -> None:
    """Remove values of earlier epochs, whose keys start with one of the prefixes, from the trainer's metrics.

    Example:
        >>> trainer = Trainer(logger=False, enable_checkpointing=False)
        >>> trainer.callback_metrics["loss/bound"] = 0.28
        >>> forget_logged(trainer, "loss/bound")
        >>> dict(trainer.callback_metrics)
        {}
    """
    for metrics in (trainer.callback_metrics, trainer.logged_metrics):
        for key in [key for key in metrics if key.startswith(prefixes)]:
            del metrics[key]
