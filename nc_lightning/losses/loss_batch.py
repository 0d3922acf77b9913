"""Checked inputs of a loss, and its result."""

from typing import NamedTuple

from torch import Tensor

from nc_lightning.distributed.global_batch import Shares


class LossBatch(NamedTuple):
    """Features of this process, and the ids of the global batch.

    Attributes:
        z: Features (n, d) of this process, float32 or float64.
        ids: Integer ids (N,) of the global batch; samples with equal ids are each other's positives.
        classes: Class ids (N,) of the global batch; None if they are those of the positives, or not needed.
        past: Normalized features (M, d) of the queue, negatives only; None without a queue.
        past_ids: Class ids (M,) of the features in the queue.
        shares: Number of rows on each process; None if the batch is local to this process.
    """

    z: Tensor
    ids: Tensor
    classes: Tensor | None
    past: Tensor | None
    past_ids: Tensor | None
    shares: Shares | None


class LossResult(NamedTuple):
    """Loss of a batch, with the numbers of samples and pairs.

    Attributes:
        value: 0-dimensional loss.
        num_pairs: Number of usable (anchor, positive) pairs in the batch; if it is 0, so is the loss.
        batch_size: Number of samples in the batch, over all processes with ``sync="global"``.
        shares: Number of samples on each process; None if the batch is local to this process.
        class_sizes: Sorted numbers of samples that are each other's positives, one for each class in the batch.
    """

    value: Tensor
    num_pairs: int
    batch_size: int
    shares: Shares | None = None
    class_sizes: tuple[int, ...] = ()
