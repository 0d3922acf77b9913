"""The sampler of hard negatives: it owns the hardness of the loss and says what the hardness does."""

import math
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from nc_lightning.geometry.checks import check_choice, check_number
from nc_lightning.losses import ContrastiveLoss

Schedule = Literal["constant", "linear", "cosine"]


class HardNegativeSampler(Callback):
    """Set the hardness ``loss.beta`` before every step, and log its effect on the negatives.

    HSCL and HUCL bring one along by themselves. Give the Trainer one of your own for a schedule: hardness then rises
    from ``start`` to ``beta`` over the first part of training, and stays there. It is a function of the step alone, so
    a resumed run goes on where it stopped.

    Logs ``negatives/hardness``; and where the training step returns ``z`` and ``labels``, on the first batch of an
    epoch and every ``log_every_n_steps`` after it, ``negatives/effective``, the effective number of negatives, and for
    unsupervised losses ``negatives/false_share``, the share of their weight on the anchor's own class.

    Args:
        beta: Hardness to reach; None for the one that the loss was made with.
        schedule: ``constant``, ``linear`` or ``cosine``.
        start: Hardness at the first step of a schedule.
        duration: Share of training after which ``beta`` is reached, in (0, 1].

    Raises:
        ValueError: If an argument is out of its range, or the module's ``loss`` is no `ContrastiveLoss`.

    Example:
        >>> sampler = HardNegativeSampler(beta=10.0, schedule="linear", duration=0.5)
        >>> [sampler.hardness(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 5.0, 10.0, 10.0]
    """

    def __init__(
        self, beta: float | None = None, schedule: Schedule = "constant", start: float = 0.0, duration: float = 1.0
    ) -> None:
        if beta is not None:
            check_number("beta", beta, at_least=0)
        check_number("start", start, at_least=0)
        check_number("duration", duration, above=0)
        if duration > 1:
            raise ValueError(f"duration: got {duration!r}, expected a share of training in (0, 1]")
        check_choice("schedule", schedule, Schedule)
        self.beta = beta
        self.schedule = schedule
        self.start = start
        self.duration = duration
        self._total_steps = math.inf

    @classmethod
    def unless_present(cls, module: LightningModule) -> list[Callback]:
        """Return a sampler for `configure_callbacks`, or none if the user gave the Trainer one."""
        trainer = module._trainer
        given: list[Callback] = getattr(trainer, "callbacks", [])
        return [] if any(isinstance(callback, cls) for callback in given) else [cls()]

    def hardness(self, progress: float) -> float:
        """Return beta at a point of training.

        Args:
            progress: Share of training that is done, in [0, 1].

        Returns:
            The hardness, >= 0.

        Raises:
            ValueError: If ``beta`` was left to the loss and training has not begun.
        """
        if self.beta is None:
            raise ValueError("beta: got None before the start of training, expected a hardness >= 0")
        if self.schedule == "constant":
            return self.beta
        share = min(1.0, progress / self.duration)
        if self.schedule == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.beta - self.start) * share

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hardness over from the loss, unless it was given."""
        hardening = _loss(pl_module).hardening
        if hasattr(hardening, "beta"):
            self.beta = hardening.beta if self.beta is None else self.beta
        elif self.beta is not None:
            raise ValueError(f"beta: got {self.beta} for {hardening!r}, expected None, as that has no hardness to set")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out how long training is; without an end, a schedule stays where it starts."""
        self._total_steps = float(trainer.estimated_stepping_batches)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the hardness of this step."""
        if self.beta is not None:
            _loss(pl_module).beta = self.hardness(trainer.global_step / self._total_steps)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the hardness, and now and then what it does."""
        if batch_idx % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        loss = _loss(pl_module)
        values: dict[str, Any] = {} if self.beta is None else {"hardness": loss.beta}
        if isinstance(outputs, dict) and "z" in outputs and "labels" in outputs:
            values |= loss.negative_statistics(outputs["z"], outputs["labels"], outputs.get("instances"))
        pl_module.log_dict(
            {f"negatives/{key}": float(value) for key, value in values.items()},
            on_step=False,
            on_epoch=True,
            batch_size=1,
        )


def _loss(module: LightningModule) -> ContrastiveLoss:
    loss = getattr(module, "loss", None)
    if not isinstance(loss, ContrastiveLoss):
        raise ValueError(
            f"HardNegativeSampler: got {type(module).__name__} with a loss of type {type(loss).__name__}, "
            "expected a ContrastiveLoss as its attribute loss"
        )
    return loss
