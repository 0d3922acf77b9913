"""Checkpoints that are whole or not there: how they are written, read, and found again."""

import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from nc_lightning.io.atomic import atomic_write, short_path

_NO_RUNS = {"cell.json", "pyvenv.cfg"}
"""Files that mark folders without runs of the user's own: cells of a sweep, and virtual environments."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint as a whole or not at all, and loads plain types and tensors alone, never code.

    A file is written beside its target, brought to the disk, and only then put in the target's place: whatever ends the
    process, a checkpoint that was there is there. What is not a local path is left to Lightning.

    Raises:
        OSError: If it cannot be written, as on a full disk; the message names the checkpoint that remains.

    Example:
        >>> import tempfile
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(plugins=AtomicCheckpointIO(), logger=False)
        >>> path = Path(tempfile.mkdtemp()) / "some.ckpt"
        >>> trainer.strategy.checkpoint_io.save_checkpoint({"epoch": 3}, path)
        >>> trainer.strategy.checkpoint_io.load_checkpoint(path), len(list(path.parent.iterdir()))
        ({'epoch': 3}, 1)
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint to a file."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        try:
            with atomic_write(target) as half, half.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:
            # torch's own writer raises over the file's error, which alone knows the reason.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(_not_written(target, cause)) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, whatever Lightning's default for ``weights_only`` is."""
        return super().load_checkpoint(path, map_location, weights_only=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, each byte of which has been checked.

    Raises:
        ValueError: If it is no whole checkpoint.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "some.ckpt"
        >>> torch.save({"state_dict": {}, "epoch": 3}, path)
        >>> read_checkpoint(path)["epoch"]
        3
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()  # torch itself compares no checksums
                if damaged is not None:
                    raise ValueError(f"wrong checksum of {damaged}")
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint["state_dict"], dict):
            raise TypeError("state_dict: expected a dict")
    except Exception as error:
        raise ValueError(f"{str(path)!r}, which is damaged or no Lightning checkpoint") from error
    return checkpoint


def can_resume(checkpoint: dict[str, Any]) -> bool:
    """Tell whether a checkpoint holds a state of training, or weights alone, as with ``save_weights_only``.

    Example:
        >>> can_resume({"state_dict": {}, "loops": {}, "optimizer_states": []}), can_resume({"state_dict": {}})
        (True, False)
    """
    return {"loops", "optimizer_states"} <= checkpoint.keys()


def check_checkpoint(path: str, class_path: str, resuming: bool = False) -> None:
    """Raise unless a checkpoint can be read and is one of the objective that the configuration names.

    Args:
        path: The file.
        class_path: Class path of the configured model, such as ``nc_lightning.HSCL``.
        resuming: Whether training is to resume from it, for which weights alone do not suffice.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is no whole checkpoint, one of another objective, or has weights alone and is to be resumed.

    Example:
        >>> check_checkpoint("no.ckpt", "nc_lightning.HSCL")
        Traceback (most recent call last):
        ...
        FileNotFoundError: --ckpt_path: got 'no.ckpt', expected a checkpoint file that exists
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"--ckpt_path: got {path!r}, expected a checkpoint file that exists")
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"--ckpt_path: got {error}") from error
    trained = checkpoint.get("objective")
    configured = class_path.rpartition(".")[2]
    if trained is not None and trained != configured:
        raise ValueError(f"--ckpt_path: got a checkpoint of {trained}, expected one of {configured}, the model here")
    if resuming and not can_resume(checkpoint):
        raise ValueError(
            f"--ckpt_path: got {path!r}, which holds weights alone (save_weights_only), expected a whole checkpoint to "
            "resume; to start a new training from its weights, use nc_lightning.callbacks.InitialWeights"
        )


def checkpoints_below(root: Path) -> Iterator[Path]:
    """Yield the checkpoint files at any depth below a folder, if there is one, in no particular order.

    Left out are hidden files and folders (such as ``.lr_find_*.ckpt`` and ``.scale_batch_size_*.ckpt``), virtual
    environments, and the cells of sweeps. Links to folders are followed, each folder is visited once.

    Example:
        >>> list(checkpoints_below(Path("no-such-folder")))
        []
    """
    entered = {str(folder) for folder in root.resolve().parents}  # links to these would lead out of the root
    folders = [root]
    while folders:
        folder = folders.pop()
        if (real := os.path.realpath(folder)) in entered:
            continue
        entered.add(real)
        with suppress(OSError), os.scandir(folder) as scan:
            entries = [entry for entry in scan if not entry.name.startswith(".")]
            if folder != root and any(entry.name in _NO_RUNS for entry in entries):
                continue
            for entry in entries:
                with suppress(OSError):  # a link to itself
                    if entry.is_dir():
                        folders.append(Path(entry.path))
                    elif entry.name.endswith(".ckpt"):
                        yield Path(entry.path)


def newest_first(paths: Iterable[Path]) -> list[Path]:
    """Return the files among paths, the last written first, each once by whatever links it can be reached.

    Example:
        >>> newest_first(Path("no-such-folder").glob("*.ckpt"))
        []
    """
    times = {}
    for path in paths:
        # One that another run has just removed, or a link to nowhere or to itself.
        with suppress(OSError, RuntimeError):
            file = path.resolve(strict=True)
            if file.is_file():
                times[file] = file.stat().st_mtime_ns
    return sorted(times, key=times.__getitem__, reverse=True)


def newest_whole(paths: Iterable[Path], resuming: bool = False) -> tuple[Path | None, list[Path]]:
    """Return the first of the files that is a whole checkpoint, or None, and the damaged ones before it.

    Args:
        paths: The files, the newest first.
        resuming: Whether to pass over those that hold weights alone.

    Example:
        >>> newest_whole([Path("no-such-file.ckpt")])
        (None, [PosixPath('no-such-file.ckpt')])
    """
    damaged = []
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
        except ValueError:
            damaged.append(path)
        else:
            if can_resume(checkpoint) or not resuming:
                return path, damaged
    return None, damaged


def _not_written(target: Path, cause: OSError) -> str:
    remaining = newest_whole(newest_first(target.parent.glob("*.ckpt")))[0]
    whole = f"the last whole one is {short_path(remaining)!r}" if remaining else "there is no earlier one in its folder"
    return (
        f"checkpoint: could not write {short_path(target)!r}: {cause.strerror}; {whole}; once there is room, "
        "go on with --ckpt_path last"
    )
