"""Find the checkpoint and the configuration of a run."""

import os
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.io.atomic import short_path
from nc_lightning.io.checkpoints import checkpoints_below, newest_first, newest_whole


class RunFiles(NamedTuple):
    """Files of a run.

    Attributes:
        checkpoint: Path of the checkpoint.
        config: Path of the configuration; None if there is none next to the checkpoint.
    """

    checkpoint: Path
    config: Path | None


def find_run(run: str | os.PathLike[str]) -> RunFiles:
    """Return the newest whole checkpoint of a run and the configuration that belongs to it.

    The configuration is the last of ``config.yaml``, ``config-1.yaml`` and so on, in the checkpoint's folder or the
    one above it, else in the folder of the run. Damaged checkpoints are skipped, with a line in the log.

    Args:
        run: Folder of a run, or a checkpoint file. A folder of several runs stands for the one saved last.

    Raises:
        FileNotFoundError: If there is no such folder or file, or no checkpoint below the folder.
        ValueError: If every checkpoint is damaged, or they are sharded.

    Example:
        >>> find_run("no-such-run")
        Traceback (most recent call last):
        ...
        FileNotFoundError: run: got 'no-such-run', expected the folder of a run, or a checkpoint file
    """
    given = Path(run).expanduser()
    if not given.exists():
        raise FileNotFoundError(f"run: got {str(run)!r}, expected the folder of a run, or a checkpoint file")
    checkpoint = given if given.is_file() else _last_whole(given)
    folders = (checkpoint.parent, checkpoint.parent.parent, given)
    configs = [folder / name for folder in folders for name in _configs(folder)]
    return RunFiles(checkpoint, configs[0] if configs else None)


def _last_whole(folder: Path) -> Path:
    """Return the newest whole checkpoint below a folder."""
    found, damaged = newest_whole(newest_first(checkpoints_below(folder)))
    names = ", ".join(short_path(path) for path in damaged)
    if found is not None:
        if damaged:
            rank_zero_info(f"{names} {'is' if len(damaged) == 1 else 'are'} damaged, using {short_path(found)} instead")
        return found
    if damaged:
        raise ValueError(f"run: got {str(folder)!r}, whose checkpoints are all damaged ({names}), expected a whole one")
    sharded = next((path.parent for path in [*folder.glob(".metadata"), *folder.rglob("*.ckpt/.metadata")]), None)
    if sharded is not None:
        raise ValueError(
            f"run: got the sharded checkpoint {short_path(sharded)!r}, expected one in a single file; make it by "
            "python -m lightning.pytorch.utilities.consolidate_checkpoint FOLDER"
        )
    raise FileNotFoundError(
        f"run: got {str(folder)!r}, which has no checkpoint, expected the folder of a trained run; a run with "
        "checkpoint.dirpath has them there: give the checkpoint file"
    )


def _configs(folder: Path) -> list[str]:
    """Return the names of a folder's saved configurations, the last one first."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.glob("config*.yaml") if _number(path.stem) is not None]
    return sorted(names, key=lambda name: _number(Path(name).stem) or 0, reverse=True)


def _number(stem: str) -> int | None:
    """Return 0 for ``config``, N for ``config-N``, None for other names.

    Example:
        >>> _number("config"), _number("config-2"), _number("config-mine")
        (0, 2, None)
    """
    suffix = stem.removeprefix("config").removeprefix("-") or "0"
    return int(suffix) if suffix.isdecimal() else None
