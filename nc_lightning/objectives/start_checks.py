"""What is asked when training starts, on all processes: where the answer is no, none of them waits for another."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

from nc_lightning.data.base import LabeledDataModule
from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.private_apis.lightning import attached_datamodule, limit_trials, size_search


def check_start(trainer: Trainer) -> None:
    """Refuse unequal numbers of batches, different steps to resume from, and an eps of the optimizer that is 0.

    With unequal numbers of batches, or steps, one process would wait for another forever.

    Raises:
        ValueError: If one of them is so.
    """
    for optimizer in trainer.optimizers:
        _check_eps(optimizer)
    counts, steps = zip(*all_gather_objects((trainer.num_training_batches, trainer.global_step)), strict=True)
    if len(set(steps)) > 1:
        raise ValueError(
            f"ckpt_path: got checkpoints of steps {', '.join(map(str, steps))} on the {len(steps)} processes, "
            "expected the same; give them a folder that they share, or copy the checkpoint to each machine"
        )
    if len(set(counts)) > 1:
        raise ValueError(
            f"train_dataloader: got {', '.join(f'{n:g}' for n in counts)} batches on the {len(counts)} processes, "
            "expected equally many; use a distributed sampler or drop_last"
        )


def _check_eps(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        eps, dtype = group.get("eps", 1.0), group["params"][0].dtype
        if 0 < eps < torch.finfo(dtype).tiny:
            raise ValueError(
                f"optimizer: got eps = {eps:g} with weights in {dtype}, in which it vanishes and steps divide by 0; "
                f"expected at least {torch.finfo(dtype).tiny:.0e}, or precision 16-mixed, bf16-mixed or bf16-true"
            )


def check_options(trainer: Trainer) -> None:
    """Refuse options of the Trainer by which Lightning would divide.

    Raises:
        ValueError: If ``check_val_every_n_epoch``, ``val_check_interval`` or ``accumulate_grad_batches`` is 0.
    """
    if trainer.accumulate_grad_batches < 1:
        raise ValueError(f"accumulate_grad_batches: got {trainer.accumulate_grad_batches}, expected 1 or more")
    if trainer.check_val_every_n_epoch == 0:
        raise ValueError(
            "check_val_every_n_epoch: got 0, expected an integer >= 1; limit_val_batches 0 never validates"
        )
    if getattr(trainer, "val_check_interval", None) == 0:  # it is missing where the interval is a time
        raise ValueError("val_check_interval: got 0, expected more; limit_val_batches 0 never validates")


def check_tuners(trainer: Trainer) -> None:
    """Refuse Lightning's tuners where they lose a resumed run; let `BatchSizeFinder` try sizes that batches can have.

    A tuner saves the state, tries, and restores what it saved: the optimizer and the epoch of a checkpoint, which
    Lightning loads later, are lost. And the finder of batch sizes doubles them past the data set, into an error.

    Raises:
        ValueError: If a run with a tuner is resumed, or a size to begin with is none of the data module's.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, (LearningRateFinder, BatchSizeFinder)) and trainer.ckpt_path is not None:
            found = "optimizer's lr" if isinstance(callback, LearningRateFinder) else "data's batch_size"
            raise ValueError(
                f"{type(callback).__name__}: got a run that resumes {trainer.ckpt_path}, of which it would keep the "
                f"weights alone; leave it out, and set the {found} to what it has found"
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
