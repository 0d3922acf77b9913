"""Run cells on SLURM as one job array with submitit, an extra: ``pip install 'nc-lightning[slurm]'``."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nc_lightning.checks import one_line
from nc_lightning.sweeps.cell import CellFolder, run_cell

_ASK_EVERY = 10.0


class CellJob:
    """Run a cell as a job of the array; when preempted, it is submitted again and resumes."""

    def __init__(self, folder: CellFolder) -> None:
        self.folder = folder

    def __call__(self) -> int:
        """Run the cell, and return its exit code."""
        return run_cell(self.folder)

    def checkpoint(self) -> Any:
        """Let submitit resubmit the job when its time is up; the cell then resumes from its last checkpoint."""
        from submitit.helpers import DelayedSubmission  # noqa: PLC0415 - optional

        return DelayedSubmission(self)


def run_on_slurm(
    folders: Sequence[CellFolder], root: Path, parameters: dict[str, Any], ended: Callable[[CellFolder, int], None]
) -> int:
    """Submit cells as a job array, and wait until all have ended.

    Args:
        folders: Cells, on a file system that the cluster's machines share.
        root: Folder of the sweep; submitit's own files go to its subfolder ``submitit``.
        parameters: Arguments of submitit's ``update_parameters``, such as ``timeout_min``, ``gpus_per_node`` or
            ``slurm_partition``.
        ended: Called when a cell has ended, with its exit code.

    Returns:
        0, or the number of SIGINT on Ctrl-C: the jobs continue, and the same command later collects their results.

    Raises:
        ModuleNotFoundError: If submitit is not installed.
        ValueError: If SLURM is not available, or submitit does not know a parameter.
    """
    try:
        import submitit  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--submit: got no submitit, expected it to be installed by pip install 'nc-lightning[slurm]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=root / "submitit", cluster="slurm")
    except RuntimeError as error:
        raise ValueError(f"--submit: got a machine without SLURM, expected one with its srun: {error}") from error
    try:
        executor.update_parameters(**{"name": f"nc-sweep-{root.name}", **parameters})
    except (NameError, TypeError, ValueError) as error:
        raise ValueError(f"cluster: {one_line(error)}") from error
    if not folders:
        return 0
    with executor.batch():
        jobs = [executor.submit(CellJob(folder)) for folder in folders]
    print(f"submitted {len(jobs)} jobs, the first one {jobs[0].job_id}; Ctrl-C leaves them running", flush=True)
    under_way = dict(zip(folders, jobs, strict=True))
    try:
        while under_way:
            over = [folder for folder, job in under_way.items() if job.done()]
            for folder in over:
                ended(folder, _exit_code(under_way.pop(folder)))
            if not over:
                time.sleep(_ASK_EVERY)
    except KeyboardInterrupt:
        return int(signal.SIGINT)
    return 0


def _exit_code(job: Any) -> int:
    """Return the exit code of a job; a killed job has no result."""
    try:
        code: int = job.result()
    except Exception:
        return -int(signal.SIGKILL)
    return code
