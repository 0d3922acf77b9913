"""Weights that are evaluated: the averaged ones if a callback of Lightning averages weights."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nc_lightning.callbacks.sources import callbacks_of, is_named


def averaging_callbacks(trainer: Trainer) -> list[Any]:
    """Return the callbacks that average weights: WeightAveraging and its subclasses, from any package."""
    return [callback for callback in callbacks_of(trainer) if is_named(callback, "WeightAveraging")]


def place_after_averaging(trainer: Trainer, callback: Callback) -> None:
    """Move a callback after those that replace weights, so that it sees the replaced weights in each hook."""
    given = callbacks_of(trainer)
    averaging = ("WeightAveraging", "StochasticWeightAveraging")
    last = max((i for i, other in enumerate(given) if is_named(other, *averaging)), default=-1)
    if given.index(callback) < last:
        rest = [other for other in given if other is not callback]
        # A new list: Lightning is iterating over the old one.
        trainer.callbacks = [*rest[:last], callback, *rest[last:]]  # type: ignore[attr-defined]


def finish_averages(trainer: Trainer, pl_module: LightningModule) -> None:
    """Make the update at the end of an epoch before the validation that ends it; once per epoch."""
    if trainer.training or trainer.sanity_checking or not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return
    for callback in averaging_callbacks(trainer):
        callback.on_train_epoch_end(trainer, pl_module)


def weights_change_at_end(trainer: Trainer, pl_module: LightningModule) -> bool:
    """Return whether training ends with weights that no step or validation has seen.

    StochasticWeightAveraging replaces them after the last epoch, or before an extra one if it has BatchNorm to adapt.
    """
    return any(
        is_named(callback, "StochasticWeightAveraging") and not callback.pl_module_contains_batch_norm(pl_module)
        for callback in callbacks_of(trainer)
    )


@contextmanager
def evaluated_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Swap in the weights that validations and checkpoints use, outside of a validation."""
    with ExitStack() as stack:
        for callback in averaging_callbacks(trainer):
            callback.on_validation_epoch_start(trainer, pl_module)
            stack.callback(callback.on_validation_epoch_end, trainer, pl_module)
        yield
