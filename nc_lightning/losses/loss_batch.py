"""The inputs of a loss, checked and gathered, and its result."""

from typing import NamedTuple

from torch import Tensor

from nc_lightning.distributed.global_batch import Shares


class LossBatch(NamedTuple):
    """Features of a process, and who is whose positive and negative in the batch of all processes.

    Attributes:
        z: (n, d) features of this process, float32 or float64.
        ids: (N,) integers of the whole batch; equal ids are each other's positives.
        past: (M, d) normalized features that are negatives only; None without any.
        past_ids: (M,) their ids.
        shares: Number of rows on each process; None for a batch of this process alone.
    """

    z: Tensor
    ids: Tensor
    past: Tensor | None
    past_ids: Tensor | None
    shares: Shares | None


class LossResult(NamedTuple):
    """The loss of a batch, and the size of what it was computed of.

    Attributes:
        value: 0-dimensional loss.
        num_pairs: Number of (anchor, positive) pairs of the whole batch; 0 where there is nothing to learn from.
        batch_size: Number of samples of the whole batch, over all processes.
        shares: Number of samples on each process; None for a batch of this process alone.
    """

    value: Tensor
    num_pairs: int
    batch_size: int
    shares: Shares | None = None
