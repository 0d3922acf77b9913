"""State of an interrupted epoch that is missing from Lightning's checkpoints."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.private_apis.lightning import epoch_results, forget_computed, shift_logged_step, unset_restarting

_KEY = "epoch_sums"


class ResumedEpoch(Callback):
    """Make the first epoch of a resumed run identical to that of an uninterrupted run.

    Two things in Lightning are corrected. A checkpoint in the middle of an epoch loses the sums behind the epoch's
    means, so that a resumed run would log means over the remaining batches only; here the checkpoint includes these
    sums, for a run on the same number of processes. And a checkpoint at the end of an epoch always resumes with the
    next one here: with ``max_steps``, Lightning would end the old epoch a second time and so skip one; and after the
    last batch of an epoch it would start an epoch that it does not count, which breaks the next resumption.

    `EarlyStopping` keeps the patience of this run, where Lightning would take that of the checkpoint. Values logged
    with another reduction than the mean are not corrected.

    Example:
        >>> trainer = Trainer(callbacks=[ResumedEpoch()], logger=False)
    """

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []
        self._sums: dict[str, Any] = {}
        self._patience: list[tuple[EarlyStopping, int]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Drop the sums of an earlier run; note the settings that a checkpoint would override."""
        self._loaded, self._sums = [], {}
        self._patience = [(c, c.patience) for c in trainer.early_stopping_callbacks if isinstance(c, EarlyStopping)]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the sums of every process, in the order of their ranks, unless the epoch is at its end."""
        if not trainer.is_last_batch:
            sums = {
                key: {"name": mean.meta.name, "sum": mean.value.cpu(), "count": mean.cumulated_batch_size.cpu()}
                for key, mean in _means(trainer).items()
            }
            checkpoint[_KEY] = all_gather_objects(self._sums | sums)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Load the sums, if there are any."""
        self._loaded = checkpoint.get(_KEY, [])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Select the sums of this process; start the next epoch if that of the checkpoint is over."""
        if trainer.fit_loop.restarted_mid_epoch and len(self._loaded) == trainer.world_size:
            self._sums = self._loaded[trainer.global_rank]
        _begin_next_if_over(trainer)
        for callback, patience in self._patience:
            callback.patience = patience

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loaded sums to those that Lightning has restarted from zero."""
        if self._sums:
            for key, mean in _means(trainer).items():
                saved = self._sums.pop(key, None)
                if saved is not None:
                    mean.value = saved["sum"].to(mean.value) + mean.value
                    mean.cumulated_batch_size = saved["count"].to(mean.cumulated_batch_size) + mean.cumulated_batch_size
                    forget_computed(mean)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means of values that were logged only before the checkpoint."""
        for saved in self._sums.values():
            mean = (saved["sum"] / saved["count"]).to(pl_module.device)  # where processes can reduce it
            pl_module.log(saved["name"], mean, batch_size=1, sync_dist=True)
        self._sums = {}


def _begin_next_if_over(trainer: Trainer) -> None:
    """Start the next epoch, as Lightning does at the end of an epoch without ``max_steps``."""
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
    """Return what Lightning has summed in this epoch for means, by its own keys."""
    return {
        key: metric
        for key, metric in epoch_results(trainer).items()
        if metric.is_tensor and metric.meta.on_epoch and metric.meta.is_mean_reduction and not metric.has_reset
    }
