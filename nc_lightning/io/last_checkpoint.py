"""Find the checkpoint that ``--ckpt_path last`` means: the newest whole one of the runs here."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.distributed.launcher import launcher
from nc_lightning.io.atomic import short_path
from nc_lightning.io.checkpoints import checkpoints_below, newest_first, newest_whole

_HANDED_ON = "NC_LAST_CHECKPOINT"
"""Environment variable that passes the found checkpoint to child processes, which might find a newer one."""


def find_last(root: str | None, *others: str | None, resuming: bool = False) -> str | None:
    """Return the newest whole checkpoint of all runs, or None; log one line if damaged ones are skipped.

    All checkpoints at any depth below these folders count, with any names of loggers, versions and files, except those
    that `checkpoints_below` skips. Processes launched by Lightning use the result of the process that launched them.

    Args:
        root: Folder of the runs, the trainer's ``default_root_dir``; None for the working folder.
        *others: Other folders of checkpoints, as `named_folders` finds them.
        resuming: Whether training resumes from it; checkpoints that hold only weights are then skipped.

    Example:
        >>> find_last("no-such-folder") is None
        True
    """
    if launcher() is not None:
        return os.environ.get(_HANDED_ON) or None
    folders = [
        Path(os.path.expandvars(folder)).expanduser()
        for folder in (root or ".", *others)
        if folder and "://" not in folder
    ]
    files = newest_first(itertools.chain.from_iterable(map(checkpoints_below, folders)))
    found, damaged = newest_whole(files, resuming)
    if damaged:
        names = ", ".join(short_path(path) for path in damaged)
        instead = f"using {short_path(found)} instead" if found else "and there is no other checkpoint"
        rank_zero_info(f"{names} {'is' if len(damaged) == 1 else 'are'} damaged, {instead}")
    os.environ[_HANDED_ON] = str(found or "")
    return str(found) if found else None


def named_folders(config: Any) -> Iterator[str | None]:
    """Yield the folders for checkpoints and logs in a subcommand's configuration, which may lie outside the root."""
    yield config.checkpoint.dirpath
    for setting, names in (("logger", ("save_dir", "dir")), ("callbacks", ("dirpath",))):
        listed = config.trainer.get(setting)
        for item in listed if isinstance(listed, list) else [listed]:
            arguments = getattr(item, "init_args", None) or {}
            yield from (str(arguments[name]) for name in names if arguments.get(name))
