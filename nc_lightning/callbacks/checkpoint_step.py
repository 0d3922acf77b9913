"""The step at which an evaluation is logged: that of its checkpoint."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from nc_lightning.private_apis.lightning import logged_step, set_logged_step


class CheckpointStep(Callback):
    """Log ``validate`` and ``test`` at the step of their checkpoint; Lightning would log them at step 0.

    Example:
        >>> trainer = Trainer(callbacks=[CheckpointStep()], logger=False)
    """

    _before: int | None = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Log at the step of the checkpoint from now on, unless training resumes."""
        if trainer.state.fn != TrainerFn.FITTING:
            self._before = logged_step(trainer)
            set_logged_step(trainer, checkpoint["global_step"])

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the step of the trainer."""
        if self._before is not None:
            set_logged_step(trainer, self._before)
            self._before = None
