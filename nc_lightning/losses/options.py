"""Keyword arguments of the losses, which objectives pass on; `ContrastiveLoss` has their defaults and meaning."""

from typing_extensions import TypedDict

from nc_lightning.distributed.global_batch import Sync
from nc_lightning.geometry import Normalization
from nc_lightning.losses.hardening import Hardening
from nc_lightning.losses.links import Link
from nc_lightning.losses.pairs import Positives


class LossOptions(TypedDict, total=False):
    """Arguments that the losses of all objectives share, except the temperature."""

    num_negatives: int | None
    normalization: Normalization
    include_self: bool
    link: Link | None
    positives: Positives
    replacement: bool
    share_draws: bool
    sync: Sync


class EveryLossOption(LossOptions, total=False):
    """Arguments of `ContrastiveLoss` after the temperature."""

    differentiate_weights: bool | None
    hardening: Hardening | None
    tau_plus: float
