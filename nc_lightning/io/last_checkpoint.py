"""Find the checkpoint that ``--ckpt_path last`` means: the newest whole one of the runs here, or of a named run."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.distributed.launcher import launcher
from nc_lightning.io.atomic import short_path
from nc_lightning.io.checkpoints import checkpoints_below, newest_first, newest_whole

_HANDED_ON = "NC_LAST_CHECKPOINT"
"""Environment variable that passes the found checkpoint to child processes, which might find a newer one."""


def find_last(
    root: str | None,
    *others: str | None,
    name: str | None = None,
    own: Iterable[str | None] = (),
    resuming: bool = False,
) -> str | None:
    """Return the newest whole checkpoint of all runs, or None; log one line if damaged ones are skipped.

    All checkpoints at any depth below these folders count, with any names of loggers, versions and files, except those
    that `checkpoints_below` skips. Processes launched by Lightning use the result of the process that launched them.

    Args:
        root: Folder of the runs, the trainer's ``default_root_dir``; None for the working folder.
        *others: Other folders of runs, as `log_folders` finds them.
        name: Name of the run; then only the folders NAME, NAME-1, ... of runs count, and ``own``.
        own: Folders of this run's checkpoints, as `checkpoint_folders` finds them; they count with any name.
        resuming: Whether training resumes from it; checkpoints that hold only weights are then skipped.

    Example:
        >>> find_last("no-such-folder") is None
        True
    """
    if launcher() is not None:
        return os.environ.get(_HANDED_ON) or None
    of_runs = (path for path in _checkpoints((root or ".", *others)) if name is None or is_of_run(path, name))
    files = newest_first(itertools.chain(of_runs, _checkpoints(own)))
    found, damaged = newest_whole(files, resuming)
    if damaged:
        names = ", ".join(short_path(path) for path in damaged)
        instead = f"using {short_path(found)} instead" if found else "and there is no other checkpoint"
        rank_zero_info(f"{names} {'is' if len(damaged) == 1 else 'are'} damaged, {instead}")
    os.environ[_HANDED_ON] = str(found or "")
    return str(found) if found else None


def log_folders(config: Any) -> Iterator[str]:
    """Yield the folders of the loggers in a subcommand's configuration, which may lie outside the root."""
    return _arguments(config.trainer.get("logger"), "save_dir", "dir")


def checkpoint_folders(config: Any) -> Iterator[str | None]:
    """Yield the folders that a subcommand's configuration names for its checkpoints."""
    yield config.checkpoint.dirpath
    yield from _arguments(config.trainer.get("callbacks"), "dirpath")


def _arguments(listed: Any, *names: str) -> Iterator[str]:
    for item in listed if isinstance(listed, list) else [listed]:
        arguments = getattr(item, "init_args", None) or {}
        yield from (str(arguments[name]) for name in names if arguments.get(name))


def _checkpoints(folders: Iterable[str | None]) -> Iterator[Path]:
    for folder in folders:
        if folder and "://" not in folder:
            yield from checkpoints_below(Path(os.path.expandvars(folder)).expanduser())


def is_of_run(checkpoint: Path, name: str) -> bool:
    """Return whether a checkpoint is in the folder of a run of this name, which may have a number."""
    named = re.compile(re.escape(name) + r"(-\d+)?")
    parents = checkpoint.absolute().parents
    return any(named.fullmatch(folder.name) and (folder / "config.yaml").is_file() for folder in parents)
