"""What is asked when training starts, on all processes: where the answer is no, none of them waits for another."""

import torch
from lightning.pytorch import Trainer

from nc_lightning.processes import of_all_processes


def check_start(trainer: Trainer) -> None:
    """Refuse unequal numbers of batches, different steps to resume from, and an eps of the optimizer that is 0.

    With unequal numbers of batches, or steps, one process would wait for another forever.

    Raises:
        ValueError: If one of them is so.
    """
    for optimizer in trainer.optimizers:
        _check_eps(optimizer)
    counts, steps = zip(*of_all_processes((trainer.num_training_batches, trainer.global_step)), strict=True)
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
