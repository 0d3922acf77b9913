"""Hard negative sampling: the schedule of the loss's hardness, and a queue of past features."""

import math
from typing import Any, Literal

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from nc_lightning.batch import StepFeatures, step_features
from nc_lightning.callbacks.logged_values import forget_logged, log_means
from nc_lightning.checks import check_choice, check_count, check_fraction, check_number
from nc_lightning.distributed.collectives import rank_and_world_size
from nc_lightning.losses import ContrastiveLoss, FeatureQueue
from nc_lightning.schedules import check_ends, training_length

Schedule = Literal["constant", "linear", "cosine", "adaptive"]

ADAPT_ON = 256
"""Number of anchors per batch that adapt the hardness; the mean over more of them hardly differs."""
SMALLEST_ADAPTIVE_BETA = 0.01
OFTEN = 0.02
"""Share of anchors that may meet their own earlier features in the queue without a warning."""


class HardNegativeSampler(Callback):
    """Set the hardness ``loss.beta`` before every step, add past features to the negatives, and log their effect.

    ``linear`` and ``cosine`` raise the hardness from ``start`` to ``beta`` over the first part of training and keep it
    there; it depends on the step alone. ``adaptive`` removes the need to tune the hardness: after each step, beta moves
    towards the value at which the effective number of negatives is a given ``fraction`` of all. Where negatives are
    equally hard, as at neural collapse, it rises to ``max_beta``. It also starts there, because the first steps decide
    how many dimensions collapse, and hard negatives keep more of them alive. After ``duration`` it moves linearly to
    ``beta`` over half of the remaining training, for HUCL at most to the critical hardness, so that neural collapse is
    the minimum; give HUCL ``differentiate_weights=False`` for it. HSCL and HUCL add a sampler of constant hardness;
    pass your own to the Trainer for anything else.

    A queue adds the features of past batches to the negatives, without a gradient. A warning is given if it is too
    large for the data; unsupervised, an image should not meet itself there. Checkpoints hold the queue and the adapted
    hardness. Both are the same on all processes; with a ``local`` loss each process has its own queue, and the hardness
    adapts to the mean over processes. A scheduled hardness is also in the module's ``state_dict``, so that a loaded
    checkpoint computes the loss of its training. Logged are ``negatives/hardness`` and, if the training step returns
    ``z`` and ``labels``, which ``adaptive`` and the queue need, ``negatives/effective``, the effective number of
    negatives, ``negatives/fraction``, its share of all, and for unsupervised losses ``negatives/false_share``, the
    share of weight on the anchor's own class: on the first batch of an epoch and every ``log_every_n_steps`` after it.

    Args:
        beta: Hardness to reach; None for that of the loss.
        schedule: ``constant``, ``linear``, ``cosine`` or ``adaptive``.
        start: Hardness at the first step; None for 0, or for ``max_beta`` if ``adaptive``. Ignored by ``constant``.
        duration: Share of training in (0, 1] after which ``linear`` and ``cosine`` have reached ``beta``, and
            ``adaptive`` starts to move there.
        fraction: Share of the negatives that ``adaptive`` keeps effective, in (0, 1).
        max_beta: Largest hardness of ``adaptive``.
        queue_size: Number of past features; 0 for none.
        queue_warmup: Number of epochs before the queue is used: early features change too fast to be of use.

    Raises:
        ValueError: If an argument is out of its range, the module's ``loss`` is no `ContrastiveLoss`, or its training
            step does not return the ``z`` and ``labels`` needed.

    Example:
        >>> sampler = HardNegativeSampler(beta=10.0, schedule="linear", duration=0.5)
        >>> [sampler.hardness(progress) for progress in (0.0, 0.25, 0.5, 1.0)]
        [0.0, 5.0, 10.0, 10.0]
    """

    def __init__(
        self,
        beta: float | None = None,
        schedule: Schedule = "constant",
        start: float | None = None,
        duration: float = 1.0,
        fraction: float = 0.1,
        max_beta: float = 10.0,
        queue_size: int = 0,
        queue_warmup: int = 1,
    ) -> None:
        if beta is not None:
            check_number("beta", beta, at_least=0)
        if start is not None:
            check_number("start", start, at_least=0)
        check_fraction("duration", duration, "(0, 1]", "a share of training")
        check_choice("schedule", schedule, Schedule)
        check_fraction("fraction", fraction, "(0, 1)", "a share of the negatives")
        check_number("max_beta", max_beta, above=0)
        if start is None:
            start = max_beta if schedule == "adaptive" else 0.0
        if schedule == "adaptive" and start > max_beta:
            raise ValueError(f"start: got {start}, expected at most max_beta, {max_beta}")
        check_count("queue_size", queue_size, at_least=0)
        check_count("queue_warmup", queue_warmup, at_least=0)
        self.beta = beta
        self.schedule = schedule
        self.start = start
        self.duration = duration
        self.fraction = fraction
        self.max_beta = max_beta
        self.queue = FeatureQueue(queue_size) if queue_size > 0 else None
        self.queue_warmup = queue_warmup
        self._found: float | None = None
        self._adapted: float | None = None
        self._critical = math.inf
        self._total_steps = math.inf
        self._checked, self._batch_size = False, 0

    def hardness(self, progress: float) -> float:
        """Return beta >= 0 at a progress in [0, 1] of training; with ``adaptive``, its current value.

        Raises:
            ValueError: If ``beta`` is left to the loss and training has not started.
        """
        adapted = self.start if self._adapted is None else self._adapted
        if self.schedule == "adaptive" and progress <= self.duration:
            return adapted
        beta = self._found if self.beta is None else self.beta
        if beta is None:
            raise ValueError("beta: got None before the start of training, expected a hardness >= 0")
        if self.schedule == "constant":
            return beta
        if self.schedule == "adaptive":
            settled = min(1.0, 2 * (progress - self.duration) / (1 - self.duration))
            return adapted + (min(beta, self._critical) - adapted) * settled
        share = min(1.0, progress / self.duration)
        if self.schedule == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (beta - self.start) * share

    def reset(self) -> None:
        """Clear the queue and the adapted hardness, as a fit does unless it resumes another."""
        self._adapted, self._checked, self._critical = None, False, math.inf
        if self.queue is not None:
            self.queue.clear()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Read the hardness of the loss, which applies unless ``beta`` is given."""
        loss = _loss(pl_module)
        hardening = loss.hardening
        self._found = loss.asked_beta if hasattr(hardening, "beta") else None
        if self._found is None and self.beta is not None:
            raise ValueError(f"beta: got {self.beta}, expected None: {hardening!r} has no hardness")
        if self._found is None and self.schedule != "constant":
            raise ValueError(f"schedule: got {self.schedule!r}, expected 'constant': {hardening!r} has no hardness")
        if stage == "fit":
            self.reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the adapted hardness, where it settles, and the queue; all else is a function of the step."""
        adapted = {"adapted": self._adapted, "critical": self._critical}
        state: dict[str, Any] = {} if self._adapted is None else adapted
        return state if self.queue is None else state | {"queue": self.queue.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the adapted hardness and, if this run has a queue, its features."""
        self._adapted, self._critical = state_dict.get("adapted"), state_dict.get("critical", math.inf)
        if self.queue is not None and "queue" in state_dict:
            self.queue.load_state_dict(state_dict["queue"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the length of training, which a schedule needs."""
        self._total_steps = training_length(trainer, "step")
        if self.schedule in ("linear", "cosine") or (self.schedule == "adaptive" and self.duration < 1):
            check_ends(self._total_steps, f"schedule: got {self.schedule!r}")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the values of the previous epoch from the metrics."""
        forget_logged(trainer, "negatives/")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Set the hardness of this step, and lend the queue to the loss."""
        loss = _loss(pl_module)
        if self._found is not None:
            loss.schedule_beta(self.hardness(trainer.global_step / self._total_steps))
        loss.queue = self.queue if trainer.current_epoch >= self.queue_warmup else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the hardness and its effect at intervals; adapt it, and push the features to the queue."""
        loss = _loss(pl_module)
        features = self._features(pl_module, outputs)
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if batch_idx == 0 or (every and batch_idx % every == 0):
            hardness = {} if self._found is None else {"hardness": torch.full((), loss.beta, device=pl_module.device)}
            self._log(pl_module, hardness | ({} if features is None else _statistics(loss, features)))
        adapts = self.schedule == "adaptive" and trainer.global_step <= self.duration * self._total_steps
        if features is not None and adapts:
            total, count = _sums_over_processes(_statistics(loss, features, ADAPT_ON)["fraction"])
            if self._adapted is None:
                self._critical = _critical_beta(loss, pl_module, features)
            self._adapted = self._adapt(loss.beta, float(total / count))
        loss.queue = None
        if features is not None and self.queue is not None:
            z, labels = loss.whole_batch(features.z, features.labels, features.shares)
            self._batch_size = len(z)
            self.queue.push(z, labels)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the size of the queue after the first epoch, when reading labels delays no step."""
        if self.queue is not None and len(self.queue) > 0 and not self._checked:
            self._checked, per_epoch = True, trainer.num_training_batches * self._batch_size
            _check_queue(self.queue.size, per_epoch, _loss(pl_module), self.queue.labels)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Detach the queue from the loss."""
        if isinstance(getattr(pl_module, "loss", None), ContrastiveLoss):
            _loss(pl_module).queue = None

    def _features(self, module: LightningModule, outputs: Any) -> StepFeatures | None:
        features = step_features(outputs)
        if features is None and (self.schedule == "adaptive" or self.queue is not None):
            raise ValueError(
                f"HardNegativeSampler: got only a loss from the training step of {type(module).__name__}, expected a "
                "dict with loss, z and labels, which adaptive hardness and the queue need"
            )
        return features

    def _log(self, module: LightningModule, values: dict[str, Tensor]) -> None:
        if not values:
            return
        totals, counts = _sums_over_processes(torch.stack([*values.values()]))
        for i, key in enumerate(values):
            # Without usable anchors the value is NaN: a weight of 0, on the device, keeps it out of the epoch's mean.
            weight: Any = counts[i] > 0
            mean = totals[i] / counts[i].clamp(min=1)
            log_means(module, {f"negatives/{key}": mean}, weight)

    def _adapt(self, beta: float, reached: float) -> float:
        """Return the next beta, given that log fraction is about -beta^2 times the variance of the similarities."""
        if math.isnan(reached):
            return beta
        now = min(max(reached, torch.finfo().tiny), 1 - torch.finfo().eps)
        ratio = math.sqrt(math.log(self.fraction) / math.log(now))
        return min(self.max_beta, max(SMALLEST_ADAPTIVE_BETA, beta) * min(2.0, max(0.5, ratio)))


def _check_queue(size: int, per_epoch: float, loss: ContrastiveLoss, labels: Tensor) -> None:
    """Warn if the queue exceeds the data, or if images often meet their own earlier features in it."""
    share = meets_itself(size / per_epoch)
    if share <= OFTEN:
        return
    by_image = loss.negatives == "all" or bool((labels < 0).all())
    if by_image or size > per_epoch:
        effect = (
            f"for {share:.0%} of the anchors an earlier feature of the same image is among the negatives, which drives "
            "views of an image apart"
            if by_image
            else "the queue holds several outdated features of the same sample"
        )
        rank_zero_warn(
            f"queue_size: got {size} for {per_epoch:g} features per epoch, expected at most "
            f"{int(per_epoch * (math.sqrt(2 * OFTEN) if by_image else 1)):g}; {effect}"
        )


def meets_itself(epochs: float) -> float:
    """Return the share of samples that meet their own last features in a queue of this many shuffled epochs.

    Example:
        >>> meets_itself(0.5), meets_itself(1.0), meets_itself(2.0)
        (0.125, 0.5, 1.0)
    """
    return epochs**2 / 2 if epochs <= 1 else 1 - max(0.0, 2 - epochs) ** 2 / 2


def _critical_beta(loss: ContrastiveLoss, module: LightningModule, features: StepFeatures) -> float:
    """Return the hardness up to which neural collapse is the minimum; infinite if there is none."""
    shares, classes = features.shares, getattr(module, "num_classes", None)
    size = len(features.z) if shares is None else sum(shares.sizes)
    optimum = loss.hucl_optimum(classes, size) if isinstance(classes, int) else None
    return math.inf if optimum is None else optimum.critical_beta


def _statistics(loss: ContrastiveLoss, features: StepFeatures, max_anchors: int | None = None) -> dict[str, Tensor]:
    return loss.negative_statistics(*features[:3], max_anchors, features.shares)


def _sums_over_processes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sum each value over the processes where it is not NaN; also return the number of these processes."""
    valid = ~values.isnan()
    sums = torch.stack([values.where(valid, 0.0), valid.to(values)])
    if rank_and_world_size()[1] > 1:
        dist.all_reduce(sums)
    return sums[0], sums[1]


def _loss(module: LightningModule) -> ContrastiveLoss:
    loss = getattr(module, "loss", None)
    if not isinstance(loss, ContrastiveLoss):
        raise ValueError(
            f"HardNegativeSampler: got {type(module).__name__} with a loss of type {type(loss).__name__}, "
            "expected a ContrastiveLoss as its attribute loss"
        )
    return loss
