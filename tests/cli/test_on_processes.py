"""``nc-train`` on several processes, started in any way, gives the geometry of one with the same batches."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from nc_lightning.cli import main
from nc_lightning.reports.record import RunRecord

SETTINGS = [
    "--trainer.precision=64-true",
    "--trainer.max_epochs=4",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]
TWO = ["--config", "hscl.yaml", "--data.batch_size=125", *SETTINGS]
STRATEGIES = ("ddp", "ddp_spawn", "ddp_fork")
SRUN = """[ "$1" = nc-train ] || exit 9
shift
for task in 0 1; do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 "$PYTHON" -m nc_lightning "$@" &
  tasks[task]=$!
done
wait "${tasks[0]}" && wait "${tasks[1]}"
"""


def start(command, **environment):
    """Run a command that starts processes and must leave none running; return its exit code and its output."""
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
                os.killpg(run.pid, signal.SIGKILL)
    assert "Traceback" not in err, err
    assert "sync_dist" not in err
    assert out.count("see them: tensorboard") == (run.returncode == 0), err
    return run.returncode, err


@pytest.mark.exhaustive
def test_two_processes_reach_the_same_geometry_as_one(gloo, in_tmp, repository, monkeypatch):
    two = [*TWO, "--name=two", "--config", "ddp.yaml", "--trainer.devices=2"]
    assert start([sys.executable, "-m", "nc_lightning", "fit", *two])[0] == 0
    assert start([repository / "examples" / "torchrun.sh", *TWO, "--name=two"], ACCELERATOR="cpu")[0] == 0
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    main(["fit", "--config", "hscl.yaml", "--name=two", *SETTINGS])
    folders = [Path("lightning_logs", f"two{suffix}") for suffix in ("", "-1", "-2")]
    records = [RunRecord.read(folder).history[-1] for folder in folders]
    for record in records[:2]:
        assert record == pytest.approx(records[2], abs=1e-4, nan_ok=True)
        geometry = {key: value for key, value in records[2].items() if key.startswith("geometry")}
        assert {key: record[key] for key in geometry} == pytest.approx(geometry, rel=1e-9, abs=1e-12, nan_ok=True)
    assert all((folder / "checkpoints/last.ckpt").is_file() for folder in folders)
    assert len(list(Path("lightning_logs").iterdir())) == 3


@pytest.mark.exhaustive
def test_spawned_and_forked_processes_return_the_same_results_as_others(gloo, in_tmp):
    tiny = ["--trainer.max_epochs=1", "--model.encoder.hidden_features=[8]", "--trainer.devices=2"]
    tables, weights = [], []
    for strategy in STRATEGIES:
        command = [
            sys.executable,
            "-m",
            "nc_lightning",
            "fit",
            *TWO,
            *tiny,
            f"--trainer.strategy={strategy}",
            f"--name={strategy}",
        ]
        ended = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        assert ended.returncode == 0, ended.stderr
        tables.append(ended.stdout.replace(f"lightning_logs/{strategy}", "lightning_logs/NAME"))
        folder = Path("lightning_logs", strategy)
        weights.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
        assert {path.name for path in folder.iterdir()} >= {"config.yaml", "report.html", "hparams.yaml"}
    assert tables[0].count("checkpoint: lightning_logs/NAME/checkpoints/last.ckpt") == 1
    assert tables == [tables[0]] * 3
    for other in weights[1:]:
        assert all(torch.equal(other[key], value) for key, value in weights[0].items())
    records = [RunRecord.read(Path("lightning_logs", name)).history for name in STRATEGIES]
    assert str(records[1:]) == str([records[0]] * 2)


@pytest.mark.exhaustive
def test_an_error_in_a_spawned_process_is_one_line(gloo, in_tmp):
    strategy = ["--trainer.strategy=ddp_spawn", "--trainer.devices=2", "--data.batch_size=7"]
    command = [sys.executable, "-m", "nc_lightning", "fit", *TWO, *strategy]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("nc-train: error: batch_size: got 7 on 2 processes, expected")


@pytest.mark.exhaustive
def test_a_stopped_slurm_job_requeues_itself_and_resumes(gloo, in_tmp, repository):
    for name, text in {"srun": SRUN, "scontrol": 'echo "$@" > scontrol-was-told\n'}.items():
        Path(name).write_text(f"#!/usr/bin/env bash\n{text}")
        Path(name).chmod(0o755)
    job = {
        "JOB_ID": "7",
        "JOB_NAME": "nc",
        "NTASKS": "2",
        "NTASKS_PER_NODE": "2",
        "NNODES": "1",
        "NODELIST": "localhost",
    }
    environment = {f"SLURM_{key}": value for key, value in job.items()}
    environment |= {"PYTHON": sys.executable, "PYTHONPATH": str(repository)}
    command = ["bash", repository / "examples" / "slurm.sh", *TWO]
    stop = {"class_path": "tests.faults.faults.SignalAt", "init_args": {"step": 7, "signum": "SIGTERM"}}
    Path("stop.yaml").write_text(f"trainer: {{callbacks: [{stop}]}}")
    code, err = start([*command, "--config", "stop.yaml"], **environment)
    assert code == 143
    assert "there is no whole checkpoint yet, starting from scratch" in err
    assert Path("scontrol-was-told").read_text() == "requeue 7\n"
    code, err = start(command, **environment)
    assert code == 0
    assert "interrupted-epoch=1-step=7.ckpt" in err
    stopped, resumed = sorted(Path("lightning_logs").iterdir())
    assert (stopped.name, resumed.name) == ("version_7", "version_7-1")  # Lightning names them after the job
    assert RunRecord.read(resumed).history[-1]["epoch"] == 4
    assert [path.name for path in (stopped / "checkpoints").glob("interrupted-*")] == [
        "interrupted-epoch=1-step=7.ckpt"
    ]
    assert (stopped / "checkpoints" / "last.ckpt").resolve().name == "interrupted-epoch=1-step=7.ckpt"
