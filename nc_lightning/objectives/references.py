"""Reference values that are logged next to the loss, and the geometry at its minimum."""

from typing import Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from nc_lightning.callbacks.logged_values import forget_logged
from nc_lightning.geometry.measures import LOSS_REFERENCES
from nc_lightning.losses import ContrastiveLoss, LossResult
from nc_lightning.losses.uniqueness import critical_note, uniqueness_note
from nc_lightning.objectives.training_data import RememberingModule

MOST_CLASSES = 2048
"""Largest number of classes C for the geometry at the minimum of a loss: C^2 numbers, and C^3 operations to measure."""


class ReferencedModule(RememberingModule):
    """Compute the loss at its minimum, at neural collapse and at total collapse, for the batches of training.

    Args:
        args: Arguments of `OptimizedModule`.
    """

    loss: ContrastiveLoss
    num_classes: int
    feature_dim: int

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._constants, self._constants_for = dict[str, Tensor](), tuple[Any, ...]()
        self._batch_size: int | None = None  # of the last training
        self._has_queue = False

    @property
    def optimal_gram(self) -> Tensor | None:
        """Gram matrix (C, C) of the class means at the minimum of the loss, from the first training step on.

        None where the minimum is neural collapse or unknown, and for more than `MOST_CLASSES`.
        """
        if self._batch_size is None or self._has_queue or self.num_classes > MOST_CLASSES:
            return None
        return self.loss.optimal_gram(self.num_classes, self._batch_size, self.class_counts, self.feature_dim)

    def on_fit_start(self) -> None:
        """Reset the reference values of the loss."""
        self._constants_for, self._batch_size = (), None

    def on_train_epoch_start(self) -> None:
        """Reset the reference values of the loss: a learned temperature has changed, a queue may have been added."""
        self._constants_for = ()
        forget_logged(self.trainer, *LOSS_REFERENCES)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the size of the batches, on which the minimum of the loss depends."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["batch_size"] = self._batch_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the size of the batches of training."""
        super().on_load_checkpoint(checkpoint)
        self._batch_size = checkpoint.get("batch_size")

    def references(self, loss: Tensor, result: LossResult) -> dict[str, Tensor]:
        """Return the reference values of the loss, which show how far from optimal it is."""
        of_batch = self.loss.bound_is_of_batch and (self.loss.hardness > 0 or self.class_counts is not None)
        sizes = result.class_sizes if of_batch and result.num_pairs > 0 else None
        state = (result.batch_size, sizes, self.loss.queue is None, self.loss.hardness, loss.device)
        if self._constants_for != state:
            # Cached because with drawn negatives they are sums of hundreds of terms. They are filled on the device,
            # where Lightning would copy a number and synchronize.
            self._constants_for, self._has_queue = state, self.loss.queue is not None
            self._note_minimum(result)
            constants = self._make_constants(result.batch_size, sizes)
            self._constants = {key: torch.full_like(loss, value) for key, value in constants.items()}
        references = dict(self._constants)
        if "loss/bound" in references:
            references["loss/optimality_gap"] = loss - references["loss/bound"]
        return references

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _note_minimum(self, result: LossResult) -> None:
        """Note the batches of training once; report where the minimum of the loss is not only neural collapse."""
        if self._batch_size == result.batch_size:
            return
        self._batch_size, loss = result.batch_size, self.loss
        self.class_counts = _counts_of_batches(self.class_counts, result)
        if loss.supervised or loss.hardness == 0:
            note = uniqueness_note(loss.link, loss.hardening, self.num_classes, loss.tau)
        else:
            scheduled = loss.scheduled_beta is not None
            note = None if scheduled else critical_note(loss, self.num_classes, result.batch_size, self.feature_dim)
        if note is not None:
            rank_zero_info(note)
        if self.num_classes > MOST_CLASSES and (note is not None or self.class_counts):
            rank_zero_info(
                f"num_classes: got {self.num_classes}, above {MOST_CLASSES}, so that ideals are those of neural "
                "collapse; the minimum of this loss has another geometry"
            )

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _make_constants(self, batch_size: int, sizes: tuple[int, ...] | None) -> dict[str, float]:
        counts = self.class_counts if sizes is None else sizes
        constants = {
            "loss/collapsed": self.loss.collapsed_value,
            "loss/bound": self.loss.lower_bound(self.num_classes, batch_size, self.feature_dim, counts),
        }
        if not self.loss.supervised and constants["loss/bound"] is not None:
            constants["loss/neural_collapse"] = self.loss.neural_collapse_value(self.num_classes, batch_size, sizes)
        return {key: value for key, value in constants.items() if value is not None}


def _counts_of_batches(counts: list[int] | None, result: LossResult) -> list[int] | None:
    """Return the samples of each class in a stratified batch; for random batches, the given ones of the training set.

    A class has as many pairs as n (n - 1), so its share of the loss depends on the size of the batch. Stratified
    batches whose sizes are rounded differ, and none describes them: the result is then empty, without a known bound.
    """
    if counts is None:
        return None
    of_batch = [count * result.batch_size / sum(counts) for count in counts]
    if sorted(of_batch) == [*result.class_sizes]:
        return [round(count) for count in of_batch]
    pairs = zip(sorted(of_batch), result.class_sizes, strict=False)
    stratified = len(of_batch) == len(result.class_sizes) and all(abs(a - b) < 1 for a, b in pairs)
    return [] if stratified else counts
