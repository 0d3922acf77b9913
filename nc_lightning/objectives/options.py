"""Keyword arguments of the objectives, which SCL, HSCL, UCL and HUCL pass on to their bases."""

from collections.abc import Callable

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from typing_extensions import Required, TypedDict

from nc_lightning.encoders.base import AnyEncoder, AnyProjector
from nc_lightning.losses import Hardening
from nc_lightning.losses.options import LossOptions
from nc_lightning.schedules import LRInterval


class ModuleOptions(TypedDict, total=False):
    """Arguments of `ContrastiveObjective`, except the loss."""

    encoder: Required[AnyEncoder]
    num_classes: Required[int]
    feature_dim: int | None
    projector: Callable[[int, int], AnyProjector]
    optimizer: OptimizerCallable
    lr_scheduler: LRSchedulerCallable | None
    lr_interval: LRInterval
    channels_last: bool
    compile: bool


class ObjectiveOptions(ModuleOptions, LossOptions, total=False):
    """Arguments that all four objectives share."""

    temperature: float


class HardObjectiveOptions(ObjectiveOptions, total=False):
    """Arguments that the objectives with hard negatives share."""

    beta: float
    differentiate_weights: bool | None
    hardening: Hardening | None
