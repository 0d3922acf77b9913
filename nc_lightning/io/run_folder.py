"""The folder of a run: claimed before anything is written, and never shared with another run."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lightning import pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from nc_lightning.private_apis.lightning import asked_version, set_root, set_version

Version = int | str
_BOOKKEEPING = ("config.yaml", "hparams.yaml", "metrics.csv", "events.out.tfevents.")


class Trainer(pl.Trainer):
    """Lightning's Trainer with a claimed run folder as its ``log_dir``, with or without a logger.

    Attributes:
        run_folder: Claimed folder; known only to rank 0, None in the other processes.
    """

    run_folder: Path | None = None

    @property
    def log_dir(self) -> str | None:
        """Return the folder of the run; a collective, so every process must call it."""
        return super().log_dir if self.run_folder is None else self.strategy.broadcast(str(self.run_folder))


@contextmanager
def claimed_folder(
    trainer: Trainer, name: str | None = None, run: Path | None = None, override: bool = False
) -> Iterator[None]:
    """Claim a folder for the run of a trainer, and remove it at the end if it is empty or the run was refused.

    The run's folder is that of its first `TensorBoardLogger` or `CSVLogger`, else ``lightning_logs/NAME`` below
    ``default_root_dir``. Rank 0 makes each folder by a single ``mkdir``, before Lightning launches other processes;
    a folder that exists belongs to another run. A name that is taken becomes ``NAME-1``, ``NAME-2``, and so on.
    Checkpoints without a ``dirpath`` go to ``checkpoints`` in the run's folder. Nothing is claimed with
    ``fast_dev_run`` or ``barebones``, which write nothing, or for a remote URL. Use it before the trainer runs.

    If an error comes before the first step, the configuration and empty logs are removed, too: nothing was computed.

    Args:
        trainer: Trainer that has not run yet.
        name: Name of the folder; None for ``version_N``. The ``version`` of a logger goes before it.
        run: Folder of an earlier run to claim the name in, instead of the folder of the runs. Loggers that write
            elsewhere keep their place.
        override: Whether the name also replaces the ``version`` of loggers.
    """
    if not trainer.is_global_zero or trainer.fast_dev_run or trainer.barebones:  # type: ignore[attr-defined]
        yield
        return
    default = Path(trainer.default_root_dir, "lightning_logs")
    claimed: dict[tuple[Path, Version | None], tuple[Version, Path]] = {}
    try:
        for logger in trainer.loggers:
            if isinstance(logger, (TensorBoardLogger, CSVLogger)) and "://" not in logger.root_dir:
                parent, version = _parent(logger), asked_version(logger)
                inside = run is not None and parent.resolve() in (run.parent.resolve(), default.resolve())
                if inside or override or version is None:
                    version = name
                place = run if run is not None and inside else parent, version  # loggers of a place share a folder
                if place not in claimed:
                    claimed[place] = claim(*place)
                # An absolute path as the version is the folder itself.
                set_version(logger, str(claimed[place][1].absolute()) if inside else claimed[place][0])
                if inside and isinstance(logger, TensorBoardLogger):
                    set_root(logger, str(place[0].parent))
        if not claimed and "://" not in str(trainer.default_root_dir):
            place = default if run is None else run, name
            claimed[place] = claim(*place)
        if claimed:
            trainer.run_folder = next(iter(claimed.values()))[1]
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                    callback.dirpath = str(trainer.run_folder / "checkpoints")
        yield
    except Exception:
        if trainer.global_step == 0:
            for _, folder in claimed.values():
                _remove_bookkeeping(folder)
        raise
    finally:
        for _, folder in claimed.values():
            with suppress(OSError):  # the folder is not empty
                folder.rmdir()


def folder_of_run(checkpoint: str) -> Path | None:
    """Return the folder of the run that saved a checkpoint; None if it is not a file in the folder of a run.

    Example:
        >>> import tempfile
        >>> run = Path(tempfile.mkdtemp())
        >>> for name in ("checkpoints/last.ckpt", "config.yaml"):
        ...     (run / name).parent.mkdir(exist_ok=True)
        ...     (run / name).touch()
        >>> folder_of_run(str(run / "checkpoints/last.ckpt")) == run, folder_of_run("best")
        (True, None)
    """
    path = Path(checkpoint).expanduser()
    nearest = (path.parent, path.parent.parent) if path.exists() else ()
    return next((folder for folder in nearest if (folder / "config.yaml").is_file()), None)


def _remove_bookkeeping(folder: Path) -> None:
    """Remove the configuration and the logs of a run that was refused, if they are all that it left."""
    left = list(folder.iterdir())
    if all(path.is_file() and path.name.startswith(_BOOKKEEPING) for path in left):
        for path in left:
            path.unlink(missing_ok=True)


def claim(parent: Path, version: Version | None = None) -> tuple[Version, Path]:
    """Make a folder that no other process has, and return its version and path.

    Args:
        parent: Folder of the runs.
        version: Requested name or number; None for the next free number.

    Raises:
        OSError: If the folder cannot be made.

    Example:
        >>> import tempfile
        >>> parent = Path(tempfile.mkdtemp())
        >>> [claim(parent, version)[1].name for version in (None, None, 7, 7, "mine", "mine")]
        ['version_0', 'version_1', 'version_7', 'version_7-1', 'mine', 'mine-1']
    """
    versions = itertools.count(_next_number(parent)) if version in (None, "") else _suffixed(version)
    while True:
        version = next(versions)
        folder = parent / _name(version)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"logger: could not make the folder {str(folder.parent)!r}: {error.strerror}; set "
                "--trainer.default_root_dir, or the save_dir of the logger"
            ) from error
        with suppress(FileExistsError):
            folder.mkdir()
            return version, folder


def _name(version: Version | None) -> str:
    return version if isinstance(version, str) else f"version_{version}"


def _suffixed(version: Version | None) -> Iterator[Version]:
    if version is not None:
        yield version
    yield from (f"{_name(version)}-{n}" for n in itertools.count(1))


def _next_number(parent: Path) -> int:
    numbers = (path.name.removeprefix("version_") for path in parent.glob("version_*"))
    return max((int(number) for number in numbers if number.isdecimal()), default=-1) + 1


def _parent(logger: TensorBoardLogger | CSVLogger) -> Path:
    """Return the folder of a logger's versions; only TensorBoard's logger expands variables."""
    root = logger.root_dir
    return Path(os.path.expanduser(os.path.expandvars(root)) if isinstance(logger, TensorBoardLogger) else root)
