"""``nc-train`` on several processes, however they are started: the geometry is that of one with the same batches."""

import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from nc_lightning.cli import main
from nc_lightning.run_record import RunRecord

SETTINGS = [
    "--trainer.precision=64-true",
    "--trainer.max_epochs=4",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]
TWO = ["--config", "hscl.yaml", "--data.batch_size=125", *SETTINGS]
SRUN = """#!/usr/bin/env bash
[ "$1" = nc-train ] || exit 9
shift
for task in 0 1; do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 "$PYTHON" -m nc_lightning "$@" &
  tasks[task]=$!
done
wait "${tasks[0]}" && wait "${tasks[1]}"
"""


def start(command, **environment):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path.cwd()}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        **environment,
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, start_new_session=True, **pipes) as run:
        try:
            out, err = run.communicate(timeout=180)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)  # also what it has started, if it hangs
    assert run.returncode == 0, err
    assert out.count("see them: tensorboard") == 1
    assert "Traceback" not in err
    assert "sync_dist" not in err


def slurm(repository):
    srun = Path("srun")
    srun.write_text(SRUN)
    srun.chmod(srun.stat().st_mode | stat.S_IEXEC)
    job = {
        "JOB_ID": "7",
        "JOB_NAME": "nc",
        "NTASKS": "2",
        "NTASKS_PER_NODE": "2",
        "NNODES": "1",
        "NODELIST": "localhost",
    }
    environment = {f"SLURM_{key}": value for key, value in job.items()}
    start(["bash", repository / "examples" / "slurm.sh", *TWO], PYTHON=sys.executable, **environment)


@pytest.mark.slow
def test_two_processes_reach_the_geometry_of_one(gloo, in_tmp, repository, monkeypatch):
    start([sys.executable, "-m", "nc_lightning", "fit", *TWO, "--config", "ddp.yaml", "--trainer.devices=2"])
    start([repository / "examples" / "torchrun.sh", *TWO], ACCELERATOR="cpu")
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    main(["fit", "--config", "hscl.yaml", *SETTINGS])
    records = [RunRecord.read(Path(f"lightning_logs/version_{i}")).history[-1] for i in range(3)]
    for record in records[:2]:
        assert record == pytest.approx(records[2], abs=1e-4, nan_ok=True)
        exact = [key for key in record if key.startswith("geometry") and "nc3" not in key]
        assert [record[key] for key in exact] == pytest.approx(
            [records[2][key] for key in exact], rel=1e-9, nan_ok=True
        )
    for i in range(3):
        assert Path(f"lightning_logs/version_{i}/checkpoints/last.ckpt").is_file()
    assert not Path("lightning_logs/version_3").exists()


@pytest.mark.slow
def test_a_slurm_job_trains(gloo, in_tmp, repository):
    slurm(repository)
    (folder,) = Path("lightning_logs").iterdir()
    assert folder.name == "version_7"  # Lightning names it by the job
    assert RunRecord.read(folder).history[-1]["epoch"] == 4
