"""A sweep cell on disk: its settings, lock, log and outcome; and running or resuming it."""

import hashlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from nc_lightning.cli import find_config, main
from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.io.atomic import errors_of, replace_file
from nc_lightning.io.checkpoints import newest_first
from nc_lightning.reports.record import FILE_NAME, RunRecord
from nc_lightning.sweeps.plan import Cell

STOPPED = (130, 143)
"""Exit codes of a run that was stopped and left a checkpoint to resume from."""
_SUBMITTED_AGAIN = -1
"""Exit code of a process whose job submitit has submitted again; the cell has not ended."""
_QUIET = ["--trainer.enable_model_summary=false"]


@dataclass
class Ending:
    """Outcome of the latest attempt at a cell.

    Attributes:
        exit_code: Exit code of ``nc-train``; 0 if training finished.
        seconds: Duration of all attempts that were not killed.
        finished: Time of the end, in UTC.
        machine: Machine that trained it.
        error: Last line printed, if it failed.
    """

    exit_code: int
    seconds: float
    finished: str
    machine: dict[str, Any] = field(default_factory=dict)
    error: str = ""


class CellFolder:
    """A cell's folder below ``root``, the folder of its sweep.

    It holds ``cell.json``, ``log.txt``, ``ending.json`` and the runs, several if the cell was interrupted.
    """

    def __init__(self, root: Path, cell: Cell) -> None:
        self.cell = cell
        self.path = root / "cells" / cell.name

    @property
    def log(self) -> Path:
        """Return the path of the log, the output of the run."""
        return self.path / "log.txt"

    def claim(self) -> None:
        """Write the settings of the cell to its folder.

        Raises:
            ValueError: If the folder belongs to a cell with other settings.
            FileNotFoundError: If one of its configs does not exist.
            OSError: If the file cannot be written.
        """
        configs = [a.partition("=")[2] for a in self.cell.arguments if a.startswith("--config=")]
        made_of = {"arguments": self.cell.arguments, "configs": {name: _digest(name) for name in configs}}
        path = self.path / "cell.json"
        if not path.is_file():
            with errors_of("--output", path):
                replace_file(path, json.dumps(made_of, indent=1))
        elif (before := json.loads(path.read_text(encoding="utf-8"))) != made_of:
            raise ValueError(
                f"--output: got {str(self.path)!r}, which was run with other settings "
                f"({_difference(before, made_of)}), expected a new folder for them"
            )

    def ending(self) -> Ending | None:
        """Return the outcome of the latest attempt; None if there was none, or it was killed."""
        try:
            return Ending(**json.loads((self.path / "ending.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    @property
    def done(self) -> bool:
        """Return whether training finished."""
        ending = self.ending()
        return ending is not None and ending.exit_code == 0

    def record_path(self) -> Path | None:
        """Return the path of the latest run's record; None if there is none."""
        files = newest_first(self.path.rglob(FILE_NAME))
        return files[0] if files else None

    def record(self) -> RunRecord | None:
        """Return the record of the latest run; None if there is none."""
        path = self.record_path()
        return RunRecord.read(path) if path is not None else None

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Lock the cell against other processes; yield False if another one is training it.

        The operating system releases the lock when its process ends, however it ends.
        """
        lock = FileLock(self.path / "lock", timeout=0)
        with suppress(Timeout):
            lock.acquire()
        try:
            yield lock.is_locked
        finally:
            lock.release()


def run_cell(folder: CellFolder) -> int:
    """Run ``nc-train`` for a cell in this process, resume from its last checkpoint if any, and record the outcome.

    Its output goes to ``log.txt``. A cell that is done or running in another process is skipped. If a cluster starts
    several processes for the cell, rank 0 does all this.

    Returns:
        The exit code; 0 if the cell is skipped.
    """
    if folder.done:
        return 0
    arguments = [
        "fit",
        *_QUIET,
        f"--name={folder.cell.name}",
        *folder.cell.arguments,
        f"--trainer.default_root_dir={folder.path}",
        "--ckpt_path=last",
    ]
    rank = int(os.environ.get("SLURM_PROCID", 0))
    if rank > 0:
        with _output_to(folder.log.with_stem(f"log-{rank}")):
            return _nc_train(arguments)
    with folder.locked() as mine:
        if not mine:
            return 0
        before = folder.ending()
        start = time.monotonic()
        (folder.path / "ending.json").unlink(missing_ok=True)
        with _output_to(folder.log):
            code = _nc_train(arguments)
        seconds = time.monotonic() - start + (before.seconds if before else 0.0)
        ended = datetime.now(timezone.utc).isoformat(timespec="seconds")
        error = "" if code in (0, *STOPPED) else _last_line(folder.log)
        ending = Ending(code, round(seconds, 1), ended, _machine(), error)
        replace_file(folder.path / "ending.json", json.dumps(asdict(ending), indent=1))
    return code


def _nc_train(arguments: list[str]) -> int:
    program = sys.modules["__main__"]  # differs between processes
    given = sys.argv, program.__spec__
    # Lightning launches the further processes of a run with this command: nc-train, not the caller's program.
    sys.argv, program.__spec__ = [str(Path(__file__).parents[1] / "__main__.py"), *arguments], None
    try:
        with exit_on_error():
            main(arguments)
    except SystemExit as exit_:
        if exit_.code == _SUBMITTED_AGAIN:
            raise
        return exit_.code if isinstance(exit_.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.argv, program.__spec__ = given
    return 0


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append all output of this process and its children to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with path.open("ab") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, before in zip((1, 2), kept, strict=True):
            os.dup2(before, number)
            os.close(before)


def _last_line(path: Path) -> str:
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].removeprefix("nc-train: error: ") if lines else ""


def _digest(name: str) -> str:
    return hashlib.sha256(Path(find_config(name)).read_bytes()).hexdigest()[:16]


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    gone = " ".join(argument for argument in before["arguments"] if argument not in now["arguments"])
    new = " ".join(argument for argument in now["arguments"] if argument not in before["arguments"])
    changed = [f"{k} has changed since" for k, v in now["configs"].items() if before["configs"].get(k, v) != v]
    return "; ".join([*([f"then {gone}"] if gone else []), *([f"now {new}"] if new else []), *changed])


def _machine() -> dict[str, Any]:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
