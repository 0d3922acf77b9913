"""Checkpoints of a run, with a ``last.ckpt`` that always holds the last state of training."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import proxy

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class RunCheckpoint(ModelCheckpoint):
    """Save checkpoints as Lightning's `ModelCheckpoint` does, and always the last state of training as ``last.ckpt``.

    ``last.ckpt`` is written whenever a checkpoint is saved, at the end of every epoch, and at the end of training, for
    any ``monitor``, ``save_top_k``, ``every_n_epochs``, ``every_n_train_steps`` and ``train_time_interval``. With
    ``save_last="link"`` it is a link if the same state was just saved under another name, otherwise a file. Lightning's
    own would link to the checkpoint saved last, however old it is.

    A ``/`` in a file name, as in ``filename="{epoch}-{loss/val:.2f}"``, becomes ``_``.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> checkpoint = RunCheckpoint(monitor="loss/val", filename="{epoch}-{loss/val:.2f}", save_last="link")
        >>> checkpoint.format_checkpoint_name({"epoch": 3, "loss/val": 0.5})
        'epoch=3-loss_val=0.50.ckpt'
        >>> trainer = Trainer(callbacks=checkpoint, logger=False)
    """

    _just_saved: str = ""
    _step_of_last: int = -1
    _claim: Path | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Claim a name for ``last.ckpt`` that no other run in the same ``dirpath`` uses."""
        super().on_train_start(trainer, pl_module)
        self._step_of_last = -1
        if self.save_last and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.last_model_path = self._claim_last(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Release the name of ``last.ckpt`` if nothing was saved."""
        super().teardown(trainer, pl_module, stage)
        self._release()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save after a number of steps or an interval of time."""
        with self._then_last(trainer):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation."""
        with self._then_last(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after an epoch; ``last.ckpt`` is always written."""
        with self._then_last(trainer, in_any_case=True):
            super().on_train_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state of training."""
        with self._then_last(trainer, in_any_case=self._step_of_last != trainer.global_step):
            super().on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save the state at an exception, if asked to."""
        with self._then_last(trainer):
            super().on_exception(trainer, pl_module, exception)

    def saved_elsewhere(self, trainer: Trainer, path: str) -> None:
        """Write or link ``last.ckpt`` after another callback has saved the current state to ``path``."""
        self._just_saved = path
        self._write_last(trainer)

    @contextmanager
    def _then_last(self, trainer: Trainer, in_any_case: bool = False) -> Iterator[None]:
        self._just_saved = ""
        yield
        may_save = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if may_save and (self._just_saved or in_any_case):
            self._write_last(trainer)

    def _write_last(self, trainer: Trainer) -> None:
        if not self.save_last or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._step_of_last = trainer.global_step
        if self._just_saved and self.save_last == "link":
            if trainer.is_global_zero:
                # A checkpoint that is written asynchronously may not have created its folder yet.
                Path(self.last_model_path).parent.mkdir(parents=True, exist_ok=True)
            self._link_checkpoint(trainer, self._just_saved, self.last_model_path)
        else:
            if trainer.is_global_zero and os.path.islink(self.last_model_path):
                os.remove(self.last_model_path)  # or a writer may follow the link and overwrite another checkpoint
            trainer.save_checkpoint(self.last_model_path, self.save_weights_only)
            for logger in trainer.loggers if trainer.is_global_zero else []:
                logger.after_save_checkpoint(proxy(self))
        self._release()

    def _claim_last(self, trainer: Trainer) -> str:
        path, own = "", self.last_model_path
        if trainer.is_global_zero:
            versions = itertools.chain([None], itertools.count(self.STARTING_VERSION))
            names = (self.format_checkpoint_name({}, self.CHECKPOINT_NAME_LAST, ver=version) for version in versions)
            if own and trainer.ckpt_path and _same_file(own, trainer.ckpt_path) and self._claims(own, continued=True):
                path = own
            else:
                path = next(name for name in names if self._claims(name))
        return str(trainer.strategy.broadcast(path))

    def _claims(self, path: str, continued: bool = False) -> bool:
        """Claim a name by a hidden file next to it, until the checkpoint is written (again, if continued)."""
        if "://" in path:
            return continued or not self._fs.exists(path)
        if os.path.lexists(path) and not continued:
            return False
        claim = Path(path).with_name(f".{Path(path).name}.claimed")
        claim.parent.mkdir(parents=True, exist_ok=True)
        try:
            claim.touch(exist_ok=False)
        except FileExistsError:
            return False
        self._claim = claim
        if os.path.lexists(path) and not continued:  # another run has saved it since, and released its claim
            self._release()
            return False
        return True

    def _release(self) -> None:
        if self._claim is not None:
            self._claim.unlink(missing_ok=True)
            self._claim = None

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        self._just_saved = filepath

    def _save_last_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Do nothing: Lightning would write ``last.ckpt`` at some of its saves only."""

    def _format_checkpoint_name(self, *args: Any, **kwargs: Any) -> str:
        return super()._format_checkpoint_name(*args, **kwargs).replace("/", "_")


def _same_file(path: str, other: str | Path) -> bool:
    return os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)
