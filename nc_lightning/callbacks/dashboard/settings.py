"""Settings of a run, as the report and TensorBoard's table of runs show them."""

import os
import re
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import nn

from nc_lightning.callbacks.sources import callbacks_of, is_named
from nc_lightning.data.preprocess import Preprocess
from nc_lightning.losses import ContrastiveLoss
from nc_lightning.private_apis.lightning import attached_datamodule

_LONGEST = 300


def run_settings(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return objective, loss, network, data, optimizer, batch size, seed, and the checkpoint that the run resumes.

    All objectives share the same keys, so that their runs can be sorted together.
    """
    seed = os.environ.get("PL_GLOBAL_SEED")
    return {
        "objective": type(pl_module).__name__,
        **_loss(getattr(pl_module, "loss", None)),
        "encoder": _network(getattr(pl_module, "encoder", None)),
        "projector": _network(getattr(pl_module, "projector", None)),
        **_data(trainer),
        "seed": None if seed is None else int(seed),
        **_optimizer(trainer, pl_module),
        **_preprocess(getattr(pl_module, "preprocess", None)),
        "resumed_from": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
    }


def configuration(trainer: Trainer, pl_module: LightningModule, folder: Path) -> str:
    """Return the config that a LightningCLI has saved, or else the module's hyperparameters, as text."""
    for callback in callbacks_of(trainer):
        if is_named(callback, "SaveConfigCallback") and (folder / callback.config_filename).is_file():
            return Path(folder / callback.config_filename).read_text(encoding="utf-8")
    return "\n".join(f"{key}: {value}" for key, value in pl_module.hparams.items())


def _loss(loss: object) -> dict[str, Any]:
    if not isinstance(loss, ContrastiveLoss):
        return {}
    return {
        "beta": float(getattr(loss.hardening, "beta", 0.0)),
        "temperature": loss.tau,
        "normalization": loss.normalization,
        "eta": type(loss.hardening).__name__,
        "psi": repr(loss.link),
    }


def _network(module: object) -> str | None:
    """Return the class of a network, the name of its model if it has one, and its number of parameters.

    Example:
        >>> _network(nn.Linear(4, 3)), _network(nn.Identity())
        ('Linear, 15 parameters', 'Identity')
    """
    if not isinstance(module, nn.Module):
        return None
    name, count = getattr(module, "name", None), sum(parameter.numel() for parameter in module.parameters())
    named = f"{type(module).__name__} {name}" if isinstance(name, str) else type(module).__name__
    return f"{named}, {count:,} parameters" if count else named


def _data(trainer: Trainer) -> dict[str, Any]:
    """Return the data module or loader with the origin of its inputs, and how batches and views are made."""
    data: Any = attached_datamodule(trainer) or trainer.train_dataloader
    inner = getattr(data, "dataset", None)
    origin = (getattr(data, "origins", None) or {}).get("train") or (None if inner is None else type(inner).__name__)
    found: dict[str, Any] = {"data": ": ".join(filter(None, (type(data).__name__, origin)))}
    for name in ("views", "batches"):
        if isinstance(value := getattr(data, name, None), int | str):
            found[name] = value
    if hasattr(data, "augmentation"):
        found["augmentation"] = "none" if data.augmentation is None else _on_one_line(data.augmentation)
    return found | {"batch_size": getattr(data, "batch_size", None)}


def _optimizer(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return the first optimizer, its initial step size and weight decay, and the schedule."""
    if not trainer.optimizers:
        return {}
    optimizer, schedules = trainer.optimizers[0], trainer.lr_scheduler_configs
    group = optimizer.param_groups[0]
    lr = float(group.get("initial_lr", group["lr"])) if "lr" in group else None
    return {
        "optimizer": type(optimizer).__name__,
        "lr": lr,
        "weight_decay": group.get("weight_decay"),
        "lr_scheduler": type(schedules[0].scheduler).__name__ if schedules else "none",
    }


def _preprocess(preprocess: object) -> dict[str, Any]:
    return preprocess.settings() if isinstance(preprocess, Preprocess) else {}


def _on_one_line(value: object) -> str:
    """Return the representation of an object on one line of limited length; of objects without one, the class.

    Example:
        >>> _on_one_line(nn.Sequential(nn.ReLU())), _on_one_line(object())
        ('Sequential( (0): ReLU() )', 'object')
    """
    if type(value).__repr__ is object.__repr__:
        return type(value).__name__
    text = re.sub(r"\s+", " ", repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
