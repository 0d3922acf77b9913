"""What ``--ckpt_path last`` means: the newest whole checkpoint that the runs here have left."""

import os
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.checkpoints import newest_first, newest_whole
from nc_lightning.files import short_path
from nc_lightning.launched import launcher

_HANDED_ON = "NC_LAST_CHECKPOINT"
"""By which the first process tells those that it starts what it has found, lest they find what it has written since."""


def find_last(root: str | None, dirpath: str | None) -> str | None:
    """Return the newest whole checkpoint of all runs, or None; say so on one line if damaged ones are passed over.

    These are the runs below ``root``, with a logger or without, what Lightning leaves there when SLURM requeues a job,
    and ``dirpath``. The processes that Lightning starts get the answer of the one that starts them.

    Args:
        root: Folder of the runs, the trainer's ``default_root_dir``; None for the working folder.
        dirpath: Folder of checkpoints that the user has named, if any.

    Example:
        >>> find_last("no-such-folder", None) is None
        True
    """
    if launcher() is not None:
        return os.environ.get(_HANDED_ON) or None
    found, damaged = newest_whole(newest_first(_of_runs(Path(root or "."), dirpath)))
    if damaged:
        names = ", ".join(short_path(path) for path in damaged)
        instead = f"going on from {short_path(found)}" if found else "and there is no other checkpoint"
        rank_zero_info(f"{names} {'is' if len(damaged) == 1 else 'are'} damaged, {instead}")
    os.environ[_HANDED_ON] = str(found or "")
    return str(found) if found else None


def _of_runs(root: Path, dirpath: str | None) -> Iterator[Path]:
    yield from root.glob("lightning_logs/version_*/checkpoints/*.ckpt")
    yield from root.glob("checkpoints/*.ckpt")
    yield from root.glob("hpc_ckpt_*.ckpt")
    if dirpath is not None:
        yield from Path(dirpath).expanduser().glob("*.ckpt")
