"""Choose the checkpoint of a command: the named one, the last one, or that of the config's run."""

import os
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.io.atomic import short_path
from nc_lightning.io.checkpoints import check_checkpoint, checkpoints_below, newest_first, newest_whole
from nc_lightning.io.last_checkpoint import checkpoint_folders, find_last, is_of_run, log_folders
from nc_lightning.io.run_folder import folder_of_run
from nc_lightning.reports.record import FILE_NAME


def chosen_checkpoint(subcommand: str, config: Any) -> str | None:
    """Return the path of the checkpoint to start from, or None to train from scratch.

    Without ``--ckpt_path``, ``validate``, ``test`` and ``predict`` use the newest whole checkpoint of the run that one
    of the configs belongs to, and log its path. ``config`` is the configuration of the subcommand, not instantiated.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If the checkpoint is damaged or of another model, or if random weights would be evaluated.
    """
    resuming = subcommand == "fit"
    path: str | None = config.get("ckpt_path")
    if path == "last":
        # Lightning would search only this run's own, new folder, and silently train from scratch.
        path = _last(config, resuming)
        if path is None:
            of = f" of {config.name!r}" if config.name else ""
            if not resuming:
                raise FileNotFoundError(
                    f"--ckpt_path: got 'last', expected a run{of} here that left a whole checkpoint"
                )
            rank_zero_info(f"--ckpt_path last: there is no whole checkpoint{of} yet, starting from scratch")
    elif path is None and not resuming:
        path = _of_the_run(config)
        rank_zero_info(f"--ckpt_path: none given, using that of the config's run, {short_path(path)}")
    if path and path not in ("best", "hpc", "registry"):
        check_checkpoint(path, config.model.class_path, resuming)
    return path


def evaluated_run(subcommand: str, config: Any) -> Path | None:
    """Return the folder of the run whose checkpoint is evaluated; None for a fit, or a checkpoint outside of runs."""
    return None if subcommand == "fit" or config.ckpt_path is None else folder_of_run(config.ckpt_path)


def check_named_run(subcommand: str, config: Any) -> None:
    """Check that the name of an evaluated run is that of the run whose checkpoint is used.

    Raises:
        ValueError: If the checkpoint is in the folder of a run of another name.
    """
    run = evaluated_run(subcommand, config)
    if run is not None and config.name and not is_of_run(Path(config.ckpt_path), config.name):
        raise ValueError(
            f"--name: got {config.name!r}, expected none or {run.name!r}, the run of the checkpoint: {subcommand} "
            f"writes to {short_path(run / subcommand)!r}"
        )


def _last(config: Any, resuming: bool) -> str | None:
    folders, own = log_folders(config), checkpoint_folders(config)
    return find_last(config.trainer.default_root_dir, *folders, name=config.name, own=own, resuming=resuming)


def _of_the_run(config: Any) -> str:
    for given in reversed(config.get("config") or []):
        folder = Path(os.path.realpath(str(getattr(given, "absolute", given)))).parent
        if any((folder / name).exists() for name in (FILE_NAME, "checkpoints")):
            found, _ = newest_whole(newest_first(checkpoints_below(folder)))
            if found is not None:
                return str(found)
    raise ValueError(
        "--ckpt_path: got none and no config of a run with a checkpoint, expected one: weights would be random; use "
        "--ckpt_path last, or --config RUN/config.yaml"
    )
