"""Private and undocumented names of Lightning."""

import math
import threading
from collections.abc import Collection, Mapping
from typing import Any

from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.trainer.connectors.data_connector import (
    _DataLoaderSource,
    _parse_num_batches,
    _request_dataloader,
    _resolve_overfit_batches,
)
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

HP_METRIC = "_default_hp_metric"
"""Attribute of TensorBoard loggers: whether they log a placeholder metric with the hyperparameters (2.6.6)."""
STOP_AT_EPOCH_END = "_check_on_train_epoch_end"
"""Attribute of EarlyStopping: whether it checks at the end of the training epoch (2.6.6)."""
SAVE_AT_EPOCH_END = "_save_on_train_epoch_end"
"""Attribute of ModelCheckpoint: whether it saves at the end of the training epoch (2.6.6)."""
SAVE_BEST = "_save_topk_checkpoint"
"""Method of ModelCheckpoint: called with the trainer and the logged values, saves if the value is good (2.6.6)."""


def can_stop_early(trainer: Trainer) -> bool:
    """Return whether ``should_stop`` may end training: not before ``min_epochs`` and ``min_steps`` (2.6.6)."""
    return bool(trainer.fit_loop._can_stop_early)


def shift_logged_step(trainer: Trainer, by: int) -> None:
    """Shift the step that Lightning logs with (2.6.6)."""
    trainer.fit_loop.epoch_loop._batches_that_stepped += by


def logged_step(trainer: Trainer) -> int:
    """Return the step that Lightning logs with (2.6.6)."""
    return int(trainer.fit_loop.epoch_loop._batches_that_stepped)


def set_logged_step(trainer: Trainer, step: int) -> None:
    """Set the step that Lightning logs with; an evaluation would log at step 0 (2.6.6)."""
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


def log_epoch_means(trainer: Trainer) -> None:
    """Log the means of the training epoch, as Lightning does after its last callback (2.6.6)."""
    trainer._logger_connector.update_train_epoch_metrics()


def epoch_results(trainer: Trainer) -> dict[str, Any]:
    """Return the results that Lightning has accumulated in this training epoch, by its own keys (2.6.6)."""
    results = trainer.fit_loop.epoch_loop._results
    return {} if results is None else dict(results)


def add_to_means(module: LightningModule, values: Mapping[str, Tensor], weight: Any) -> dict[str, Tensor]:
    """Add values to the means over an epoch that the running hook has logged before; return the others (2.6.6).

    `LightningModule.log` does the same, but checks, describes and copies so much for each value that four of them take
    2 ms, as long as the loss of a small batch.
    """
    trainer, hook = module._trainer, module._current_fx_name
    if trainer is None or hook is None or not trainer._results:
        return dict(values)
    connector, others = trainer._logger_connector, {}
    if connector.should_reset_tensors(hook):
        trainer._results.reset(metrics=False, fx=hook)
    for name, value in values.items():
        mean = trainer._results.get(f"{hook}.{name}")
        if mean is None or mean.value.device != value.device:
            others[name] = value
        else:
            mean.update(value.detach(), weight)
            mean.has_reset, connector._current_fx = False, hook
    return others


def forget_computed(metric: Any) -> None:
    """Make a metric of torchmetrics compute its value again after its state was assigned (torchmetrics 1.9.0)."""
    metric._computed = None


def unset_restarting(trainer: Trainer) -> None:
    """Make the loops of a fit start a new epoch; the fit loop's own setter would decide otherwise (2.6.6)."""
    _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]


def drop_training_loader(trainer: Trainer) -> None:
    """Make the fit reload its training data (2.6.6)."""
    trainer.fit_loop._combined_loader = None


def requested_loader(trainer: Trainer) -> Any:
    """Return the training loaders from a fit's data module, module or caller; None if there are none (2.6.6)."""
    source = trainer.fit_loop._data_source
    return _request_dataloader(source) if source.is_defined() else None


def loader_from_hook(datamodule: Any, hook: str) -> Any:
    """Return the loaders from a hook of a data module, called as Lightning does (2.6.6)."""
    return _request_dataloader(_DataLoaderSource(datamodule, hook))


def overfit(loaders: CombinedLoader) -> None:
    """Disable the shuffling of training loaders, as ``overfit_batches`` does (2.6.6)."""
    _resolve_overfit_batches(loaders, RunningStage.TRAINING)


def limited_batches(length: int | None, limit: int | float) -> float:
    """Return the number of batches of a training loader under ``limit_train_batches`` (2.6.6)."""
    return _parse_num_batches(RunningStage.TRAINING, math.inf if length is None else length, limit)


def prepare_loader(trainer: Trainer, loader: Any, stage: RunningStage) -> Any:
    """Prepare a loader as Lightning does; with several processes, each one reads its shard (2.6.6)."""
    shuffle = stage == RunningStage.TRAINING
    return trainer._data_connector._prepare_dataloader(loader, shuffle=shuffle, mode=stage)


def wrapped_sampler(sampler: Any) -> Any:
    """Return the sampler that Lightning has wrapped for several processes; None if it did not (2.6.6)."""
    return getattr(getattr(sampler, "dataset", None), "_sampler", None)


def before_batch_transfer(module: LightningModule, batch: Any, dataloader_idx: int) -> Any:
    """Call the hook ``on_before_batch_transfer`` of the data module, or else of the module (2.6.6)."""
    return module._on_before_batch_transfer(batch, dataloader_idx)


def attached_datamodule(trainer: Trainer) -> Any:
    """Return the data module of this fit, validation, test or prediction; None if it was called with loaders (2.6.6).

    In that case ``trainer.datamodule`` is still that of an earlier call.
    """
    connector = getattr(trainer, "_data_connector", None)
    return getattr(getattr(connector, "_datahook_selector", None), "datamodule", None)


def loaders_in_use(trainer: Trainer) -> Any:
    """Return the loaders passed to the running loop, or its data module; None outside of a loop (2.6.6)."""
    return getattr(getattr(trainer._active_loop, "_data_source", None), "instance", None)


def attached_trainer(module: LightningModule) -> Any:
    """Return the trainer of a module, or None if it has none; the public property raises (2.6.6)."""
    return module._trainer


def saves_by_epochs(callback: Any) -> bool:
    """Return whether a ModelCheckpoint saves every n epochs (2.6.6)."""
    return bool(callback._every_n_epochs)


def latest_checkpoint(callback: ModelCheckpoint) -> tuple[str, int]:
    """Return the path (or "") and the step of the last checkpoint that a ModelCheckpoint saved (2.6.6)."""
    return callback._last_checkpoint_saved, callback._last_global_step_saved


def size_search(finder: BatchSizeFinder) -> tuple[str, int, int]:
    """Return the search mode of a finder, its initial size, and the size that it stays below (2.6.6)."""
    return finder._mode, finder._init_val, finder._max_val


def limit_trials(finder: BatchSizeFinder, trials: int) -> None:
    """Limit the number of sizes that a finder tries (2.6.6)."""
    finder._max_trials = min(finder._max_trials, trials)


def tag_prefix_of(logger: Any) -> str | None:
    """Return the ``prefix`` that a logger was created with; "" or None if it has none (2.6.6)."""
    return getattr(logger, "_prefix", None)


def asked_version(logger: TensorBoardLogger | CSVLogger) -> int | str | None:
    """Return the version that a logger was created with; the public property would choose one (2.6.6)."""
    return logger._version


def set_version(logger: TensorBoardLogger | CSVLogger, version: int | str) -> None:
    """Set the version, and so the folder, of a logger (2.6.6)."""
    logger._version = version


def set_root(logger: TensorBoardLogger, folder: str) -> None:
    """Set the folder that a TensorBoard logger makes before that of its version (2.6.6)."""
    logger._root_dir, logger._name = folder, ""


def is_from_command_line(hparams: Mapping[str, Any]) -> bool:
    """Return whether LightningCLI has put its configuration into the hyperparameters (2.6.6)."""
    return "_instantiator" in hparams


def leave_out_callbacks(parser: LightningArgumentParser, keys: Collection[str]) -> None:
    """Stop LightningCLI from creating callbacks for these arguments (2.6.6)."""
    parser.callback_keys = [key for key in parser.callback_keys if key not in keys]


def dismiss_process_observers() -> None:
    """Stop the threads in which Lightning silently kills the run when a process dies (2.6.6)."""
    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []  # the thread ends when it has no process left to wait for
