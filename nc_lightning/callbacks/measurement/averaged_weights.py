"""The weights that a run is judged by: the averaged ones where a callback of Lightning's averages them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from nc_lightning.callbacks.sources import callbacks_of, is_named


def averaging_callbacks(trainer: Trainer) -> list[Any]:
    """Return the callbacks that average weights: WeightAveraging, which EMAWeightAveraging extends, of any package."""
    return [callback for callback in callbacks_of(trainer) if is_named(callback, "WeightAveraging")]


def place_after_averaging(trainer: Trainer, callback: Callback) -> None:
    """Move a callback behind those that replace weights, so that it sees what they leave in each hook."""
    given = callbacks_of(trainer)
    averaging = ("WeightAveraging", "StochasticWeightAveraging")
    last = max((i for i, other in enumerate(given) if is_named(other, *averaging)), default=-1)
    if given.index(callback) < last:
        rest = [other for other in given if other is not callback]
        # A new list: Lightning is going through the old one.
        trainer.callbacks = [*rest[:last], callback, *rest[last:]]  # type: ignore[attr-defined]


def finish_averages(trainer: Trainer, pl_module: LightningModule) -> None:
    """Update averages that are updated at the end of an epoch, before a validation that ends it; once an epoch."""
    if trainer.training or trainer.sanity_checking or not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
        return
    for callback in averaging_callbacks(trainer):
        callback.on_train_epoch_end(trainer, pl_module)


def weights_change_at_end(trainer: Trainer, pl_module: LightningModule) -> bool:
    """Return whether the weights that training leaves are none that a step or a validation has seen.

    StochasticWeightAveraging replaces them after the last epoch, or before a further one if it has BatchNorm to adapt.
    """
    return any(
        is_named(callback, "StochasticWeightAveraging") and not callback.pl_module_contains_batch_norm(pl_module)
        for callback in callbacks_of(trainer)
    )


@contextmanager
def evaluated_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """Swap in the weights of validations and checkpoints, outside of a validation."""
    with ExitStack() as stack:
        for callback in averaging_callbacks(trainer):
            callback.on_validation_epoch_start(trainer, pl_module)
            stack.callback(callback.on_validation_epoch_end, trainer, pl_module)
        yield
