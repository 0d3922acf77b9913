"""Write checkpoints atomically, read them safely, and find them again."""

import os
import shlex
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.plugins.io import TorchCheckpointIO

from nc_lightning.io.atomic import atomic_write, short_path

_KINDS: dict[str, type[Any]] = {
    "epoch": int,
    LightningModule.CHECKPOINT_HYPER_PARAMS_KEY: Mapping,
    LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY: Mapping,
}
"""Types of what is read of a checkpoint, where it is there."""
_NO_RUNS = {"cell.json", "pyvenv.cfg"}
"""Files that mark folders to skip in a search for runs: cells of a sweep, and virtual environments."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and load only tensors and plain types, never code.

    A checkpoint is written to a temporary file, synced to disk and renamed, so an existing checkpoint survives however
    the process ends. Remote paths are handled by Lightning.

    Raises:
        OSError: If the checkpoint cannot be written, as on a full disk; the message names the last whole checkpoint.

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
            # torch's writer raises an error of its own; only the file's error has the reason.
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            raise OSError(_not_written(target, cause)) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = lambda storage, _: storage, weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint with ``weights_only=True``, independent of Lightning's default."""
        return super().load_checkpoint(path, map_location, weights_only=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the content of a checkpoint, after verifying its checksums.

    Raises:
        ValueError: If it is not a whole checkpoint.

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
                damaged = file.testzip()  # torch does not verify checksums
                if damaged is not None:
                    raise ValueError(f"wrong checksum of {damaged}")
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(checkpoint["state_dict"], dict) or not all(
            isinstance(name, str) for name in checkpoint["state_dict"]
        ):
            raise TypeError("state_dict: expected a dict of names")
        for key in _KINDS.keys() & checkpoint.keys():
            if not isinstance(checkpoint[key], _KINDS[key]):
                raise TypeError(f"{key}: got {type(checkpoint[key]).__name__}")
    except Exception as error:
        raise ValueError(f"{str(path)!r}, which is damaged or not a Lightning checkpoint") from error
    return checkpoint


def can_resume(checkpoint: dict[str, Any]) -> bool:
    """Return whether a checkpoint holds a training state; one saved with ``save_weights_only`` does not.

    Example:
        >>> can_resume({"state_dict": {}, "loops": {}, "optimizer_states": []}), can_resume({"state_dict": {}})
        (True, False)
    """
    return {"loops", "optimizer_states"} <= checkpoint.keys()


def check_checkpoint(path: str, class_path: str, resuming: bool = False) -> None:
    """Raise unless a checkpoint can be read and belongs to the configured objective.

    Args:
        path: Path of the checkpoint.
        class_path: Class path of the configured model, such as ``nc_lightning.HSCL``.
        resuming: Whether training resumes from it, which requires more than weights.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is damaged, is of another objective, or has only weights although training is to resume.

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
            f"--ckpt_path: got {path!r}, which holds only weights (save_weights_only), expected a whole checkpoint to "
            "resume; to start a new training from its weights, use nc_lightning.callbacks.InitialWeights"
        )


def checkpoints_below(root: Path) -> Iterator[Path]:
    """Yield the checkpoint files at any depth below a folder, in no particular order.

    Hidden files and folders (such as ``.lr_find_*.ckpt`` and ``.scale_batch_size_*.ckpt``), virtual environments and
    the cells of sweeps are skipped. Links to folders are followed; each folder is visited once.

    Example:
        >>> list(checkpoints_below(Path("no-such-folder")))
        []
    """
    entered = {str(folder) for folder in root.resolve().parents}  # links to these would lead outside of the root
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
    """Return the files among paths, newest first; a file that several links lead to appears once.

    Example:
        >>> newest_first(Path("no-such-folder").glob("*.ckpt"))
        []
    """
    times = {}
    for path in paths:
        # Another run may just have removed the file, and a link may be dangling or circular.
        with suppress(OSError, RuntimeError):
            file = path.resolve(strict=True)
            if file.is_file():
                times[file] = file.stat().st_mtime_ns
    return sorted(times, key=times.__getitem__, reverse=True)


def newest_whole(paths: Iterable[Path], resuming: bool = False) -> tuple[Path | None, list[Path]]:
    """Return the first whole checkpoint of the files, or None, and the damaged ones before it.

    Args:
        paths: Paths of the files, newest first.
        resuming: Whether to skip checkpoints that hold only weights.

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
    resume = f"resume with --ckpt_path {shlex.quote(short_path(remaining))}, the last whole one" if remaining else ""
    again = resume or "start again: there is no earlier one in its folder"
    return f"checkpoint: could not write {short_path(target)!r}: {cause.strerror}; once there is room, {again}"
