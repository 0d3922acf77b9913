"""What Lightning forgets of the epoch in which a checkpoint was made."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.private_apis.lightning import epoch_results, forget_computed, shift_logged_step, unset_restarting

_KEY = "epoch_sums"


class ResumedEpoch(Callback):
    """Let the epoch that a resumed run begins in be what it would have been.

    Two things are put right. A checkpoint in the middle of an epoch holds what the epoch has summed up for its means:
    Lightning forgets it, and would log means of the batches after the checkpoint alone. And a checkpoint at the end of
    an epoch is always resumed at the beginning of the next: with ``max_steps``, Lightning would end the old one a
    second time, and so leave an epoch out; and after its last batch, begin one that it does not count, so that a
    second resumption goes astray.

    The patience of `EarlyStopping` is that of this run, which Lightning takes from the checkpoint.

    Only means are kept, and only for as many processes as there were.

    Example:
        >>> trainer = Trainer(callbacks=[ResumedEpoch()], logger=False)
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []
        self._sums: dict[str, Any] = {}
        self._patience: list[tuple[EarlyStopping, int]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the sums of an earlier run; note the settings that a checkpoint would replace."""
        self._loaded, self._sums = [], {}
        self._patience = [(c, c.patience) for c in trainer.early_stopping_callbacks if isinstance(c, EarlyStopping)]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the sums of every process, in the order of their ranks, unless the epoch is at its end."""
        if not trainer.is_last_batch:
            sums = {
                key: {"name": mean.meta.name, "sum": mean.value.cpu(), "count": mean.cumulated_batch_size.cpu()}
                for key, mean in _means(trainer).items()
            }
            checkpoint[_KEY] = all_gather_objects(self._sums | sums)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the sums, if there are any."""
        self._loaded = checkpoint.get(_KEY, [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the sums of this process; go on to the next epoch if the one of the checkpoint is over."""
        if trainer.fit_loop.restarted_mid_epoch and len(self._loaded) == trainer.world_size:
            self._sums = self._loaded[trainer.global_rank]
        _begin_next_if_over(trainer)
        for callback, patience in self._patience:
            callback.patience = patience

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the sums to those that Lightning has begun anew."""
        if self._sums:
            for key, mean in _means(trainer).items():
                saved = self._sums.pop(key, None)
                if saved is not None:
                    mean.value = saved["sum"].to(mean.value) + mean.value
                    mean.cumulated_batch_size = saved["count"].to(mean.cumulated_batch_size) + mean.cumulated_batch_size
                    forget_computed(mean)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means of what was logged before the checkpoint alone."""
        for saved in self._sums.values():
            mean = (saved["sum"] / saved["count"]).to(pl_module.device)  # processes may share what is there alone
            pl_module.log(saved["name"], mean, batch_size=1, sync_dist=True)
        self._sums = {}


def _begin_next_if_over(trainer: Trainer) -> None:
    """Go on to the next epoch, as Lightning does from the end of an epoch where there is no max_steps."""
    fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    if epoch_loop.restarted_on_train_batch_end and epoch_loop.batch_progress.is_last_batch:
        epoch_loop.batch_progress.increment_completed()
        shift_logged_step(trainer, 1)
    elif fit_loop.restarted_on_epoch_end:
        fit_loop.epoch_progress.increment_completed()
    else:
        return
    unset_restarting(trainer)
    fit_loop.reset_restart_stage()
    epoch_loop.reset_restart_stage()


def _means(trainer: Trainer) -> dict[str, Any]:
    """What Lightning has summed up in this epoch for a mean, by its own keys."""
    return {
        key: metric
        for key, metric in epoch_results(trainer).items()
        if metric.is_tensor and metric.meta.on_epoch and metric.meta.is_mean_reduction and not metric.has_reset
    }
