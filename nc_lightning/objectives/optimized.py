"""Optimizer, schedule and step size of an objective, in a new or a resumed run."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nc_lightning.checks import check_choice, check_number
from nc_lightning.objectives.start_checks import check_options, check_start, check_tuners
from nc_lightning.optim import (
    Configured,
    configured,
    default_lr,
    group_settings,
    parameter_groups,
    resume_settings,
    resumed_schedule,
    tell,
    without_parser,
)
from nc_lightning.private_apis.lightning import attached_trainer
from nc_lightning.schedules import LRInterval, fit_length, training_length

_SETTINGS = "optimizer_settings"


class OptimizedModule(LightningModule):
    """LightningModule with one optimizer and an optional schedule, whose configured settings also apply when resuming.

    A resumed run takes moments, step counts and the position in the schedule from the checkpoint. Settings that were
    changed since then apply, and are printed on one line.

    Args:
        optimizer: Function that makes the optimizer from the parameters.
        lr_scheduler: Function from optimizer to scheduler, or None.
        lr_interval: When the scheduler steps.
    """

    def __init__(
        self, optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None, lr_interval: LRInterval
    ) -> None:
        super().__init__()
        check_choice("lr_interval", lr_interval, LRInterval)
        self.make_optimizer = without_parser(optimizer)
        self.make_lr_scheduler = None if lr_scheduler is None else without_parser(lr_scheduler)
        self.lr_interval = lr_interval
        self._lr: float | None = None
        self._made: Configured | None = None
        self._loaded: tuple[dict[str, Any], list[dict[str, Any]]] | None = None
        self._last_metric: Any = None
        self._schedule = id(None)

    @property
    def lr(self) -> float:
        """Initial step size of the optimizer; can be set, as `LearningRateFinder` does."""
        return default_lr(self.make_optimizer) if self._lr is None else self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        check_number("lr", value, above=0)
        self._lr = float(value)

    def setup(self, stage: str) -> None:
        """Forget the checkpoint of an earlier fit; refuse options on which Lightning would fail."""
        self._loaded, self._last_metric = None, None
        check_options(self.trainer)

    def configure_optimizers(self) -> Any:
        """Make the optimizer and, if configured, the scheduler."""
        if attached_trainer(self) is not None:
            check_tuners(self.trainer)  # ckpt_path is known here, and tuners start later
        optimizer, scheduler, self._made = self._make()
        self._schedule = id(scheduler)
        if scheduler is None:
            return optimizer
        config = {"scheduler": scheduler, "interval": self.lr_interval}
        if isinstance(scheduler, ReduceLROnPlateau):
            if self.lr_interval != "epoch":
                raise ValueError(
                    "lr_interval: got step with ReduceLROnPlateau, expected epoch: its metric changes once per epoch"
                )
            config["monitor"] = monitor = getattr(scheduler, "monitor", "loss/val")
            # A metric that is logged every few epochs may be missing after the first one.
            every = attached_trainer(self) is not None and self.trainer.check_val_every_n_epoch == 1
            config["strict"] = every and not monitor.startswith(("geometry/", "knn/"))
        return {"optimizer": optimizer, "lr_scheduler": config}

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step a schedule for its own parameter groups, and with a metric only if that was measured again."""
        if isinstance(scheduler, ReduceLROnPlateau):
            if metric is self._last_metric:
                return
            self._last_metric = metric
        groups = scheduler.optimizer.param_groups
        # `BackboneFinetuning` adds a group later and sets its step size itself.
        scheduler.optimizer.param_groups = groups[: len(self._made.groups)] if self._made else groups
        super().lr_scheduler_step(scheduler, metric)
        scheduler.optimizer.param_groups = groups

    def on_train_start(self) -> None:
        """Apply the configured settings; refuse a start that would deadlock processes or divide by 0."""
        if any(id(config.scheduler) != self._schedule for config in self.trainer.lr_scheduler_configs):
            check_start(self.trainer)  # a tuner's trial uses its own schedule
            return
        loaded, self._loaded = self._loaded, None
        if self._made is not None and self.trainer.optimizers:
            if loaded is None and self._lr is not None and self._made.groups[0]["lr"] != self._lr:
                loaded = self._made.plain(), []
            if loaded is not None:
                self._resume(*loaded)
            for group in self.trainer.optimizers[0].param_groups[len(self._made.groups) :]:
                for parameter in group["params"]:
                    parameter.requires_grad_(True)  # `BackboneFinetuning` freezes it again when it resumes
        check_start(self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the settings of optimizer and schedule."""
        if self._made is not None:
            checkpoint[_SETTINGS] = self._made.plain()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the saved settings and the schedule's state until training starts."""
        if {_SETTINGS, "lr_schedulers"} <= checkpoint.keys() and attached_trainer(self) is not None:
            self._loaded = checkpoint[_SETTINGS], checkpoint["lr_schedulers"]
            # Lightning would load this state into the new schedule, even if it is of another class.
            checkpoint["lr_schedulers"] = []

    def _make(self) -> tuple[Optimizer, Any, Configured]:
        optimizer = self.make_optimizer(parameter_groups(self))
        if self._lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = torch.full_like(lr, self._lr) if isinstance(lr := group["lr"], torch.Tensor) else self._lr
        groups = group_settings(optimizer)
        scheduler = self._make_scheduler(optimizer)
        return optimizer, scheduler, configured(optimizer, groups, scheduler)

    def _make_scheduler(self, optimizer: Optimizer) -> Any:
        if self.make_lr_scheduler is None:
            return None
        scheduler = self.make_lr_scheduler(optimizer)
        if attached_trainer(self) is not None:
            fit_length(scheduler, training_length(self.trainer, self.lr_interval), self.lr_interval)
        return scheduler

    def _resume(self, was: dict[str, Any], states: list[dict[str, Any]]) -> None:
        """Resume from the saved settings and schedule state; apply settings that have changed."""
        (optimizer,), configs = self.trainer.optimizers, self.trainer.lr_scheduler_configs
        self._made = self._make()[2]  # again, as the remaining length of training is known only now
        changes = resume_settings(was, self._made, optimizer)
        if not changes:
            for config, state in zip(configs, states, strict=True):
                config.scheduler.load_state_dict(state)
            return
        if self.trainer.ckpt_path is not None:
            tell(changes)
        for config in configs:
            config.scheduler = self._again(config, optimizer, was["scheduler"], states)

    def _again(self, config: LRSchedulerConfig, optimizer: Optimizer, was: dict[str, Any], states: list[Any]) -> Any:
        added = optimizer.param_groups[len(self._made.groups) :]  # type: ignore[union-attr]
        del optimizer.param_groups[len(optimizer.param_groups) - len(added) :]
        for group in optimizer.param_groups:
            group.pop("initial_lr", None)
        ticks = self.trainer.global_step if config.interval == "step" else self.trainer.current_epoch
        scheduler = resumed_schedule(self._make_scheduler(optimizer), was, states[0] if states else {}, ticks)
        optimizer.param_groups += added
        return scheduler
