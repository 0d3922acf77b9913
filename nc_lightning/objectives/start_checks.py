"""Checks at the start of training; they fail on all processes together, so that none waits for another."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from nc_lightning.data.base import LabeledDataModule
from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.private_apis.lightning import attached_datamodule, limit_trials, size_search


def check_start(trainer: Trainer) -> None:
    """Refuse unequal numbers of batches, different resume steps, and an optimizer eps that underflows to 0.

    With unequal numbers of batches or steps, one process would wait for another forever.

    Raises:
        ValueError: If any of these is found.
    """
    for optimizer in trainer.optimizers:
        _check_eps(optimizer)
    counts, steps = zip(*all_gather_objects((trainer.num_training_batches, trainer.global_step)), strict=True)
    if len(set(steps)) > 1:
        raise ValueError(
            f"ckpt_path: got checkpoints of steps {', '.join(map(str, steps))} on the {len(steps)} processes, "
            "expected the same; use a shared folder, or copy the checkpoint to each machine"
        )
    if len(set(counts)) > 1:
        raise ValueError(
            f"train_dataloader: got {', '.join(f'{n:g}' for n in counts)} batches on the {len(counts)} processes, "
            "expected equal numbers; use a distributed sampler or drop_last"
        )


def _check_eps(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        eps, dtype = group.get("eps", 1.0), group["params"][0].dtype
        if 0 < eps < torch.finfo(dtype).tiny:
            raise ValueError(
                f"optimizer: got eps = {eps:g} with weights in {dtype}, in which it is 0 and steps divide by 0; "
                f"expected at least {torch.finfo(dtype).tiny:.0e}, or precision 16-mixed, bf16-mixed or bf16-true"
            )


def check_options(trainer: Trainer) -> None:
    """Refuse Trainer options of 0 that make Lightning divide by zero.

    Raises:
        ValueError: If ``check_val_every_n_epoch``, ``val_check_interval`` or ``accumulate_grad_batches`` is 0.
    """
    if trainer.accumulate_grad_batches < 1:
        raise ValueError(f"accumulate_grad_batches: got {trainer.accumulate_grad_batches}, expected 1 or more")
    if trainer.check_val_every_n_epoch == 0:
        raise ValueError(
            "check_val_every_n_epoch: got 0, expected an integer >= 1; limit_val_batches 0 never validates"
        )
    if getattr(trainer, "val_check_interval", None) == 0:  # missing if the interval is a time
        raise ValueError("val_check_interval: got 0, expected more; limit_val_batches 0 never validates")


def check_tuners(trainer: Trainer) -> None:
    """Refuse Lightning's tuners in a resumed run; limit `BatchSizeFinder` to batch sizes that the data allows.

    After its trials a tuner restores the state it saved before Lightning loaded the optimizer and the epoch of the
    checkpoint, which are then lost. `BatchSizeFinder` would double the batch size beyond the data set and fail.

    Raises:
        ValueError: If a run with a tuner is resumed, or the data module does not support the initial batch size.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, (LearningRateFinder, BatchSizeFinder)) and trainer.ckpt_path is not None:
            found = "optimizer's lr" if isinstance(callback, LearningRateFinder) else "data's batch_size"
            raise ValueError(
                f"{type(callback).__name__}: got a run that resumes {trainer.ckpt_path}, expected a new run: a tuner "
                f"keeps only the weights of a checkpoint; remove it, and set the {found} to the value it found"
            )
        data = attached_datamodule(trainer)
        if isinstance(callback, BatchSizeFinder) and isinstance(data, LabeledDataModule):
            _limit(callback, data)


def _limit(finder: BatchSizeFinder, data: LabeledDataModule) -> None:
    mode, size, end = size_search(finder)
    largest = min(data.num_training_samples, end - 1)
    if data.batches == "balanced":
        classes = data.classes_per_batch or data.num_classes
        if mode != "power":
            raise ValueError("BatchSizeFinder: mode: got binsearch with balanced batches, expected power")
        if size % classes or size < 2 * classes:
            raise ValueError(
                f"BatchSizeFinder: init_val: got {size}, expected a multiple of the {classes} classes in a balanced "
                f"batch, at least {2 * classes}"
            )
    if size > largest:
        raise ValueError(f"BatchSizeFinder: init_val: got {size}, expected at most {largest}")
    # Each trial doubles the size.
    limit_trials(finder, (largest // size).bit_length())
