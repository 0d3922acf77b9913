"""Two nodes, simulated by two torchrun agents or two SLURM tasks; and processes that do not match."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer

from nc_lightning import HSCL
from nc_lightning.callbacks import ProcessWatch
from nc_lightning.cli import main
from nc_lightning.data import LatentClassDataModule
from nc_lightning.distributed.devices import check_same_device
from nc_lightning.encoders import MLP
from nc_lightning.reports.record import RunRecord
from tests.on_processes import on_processes

SETTINGS = ["--trainer.precision=64-true", "--trainer.max_epochs=3", "--trainer.enable_progress_bar=false"]
FIT = ["-m", "nc_lightning", "fit", "--config=hscl.yaml", "--config=ddp.yaml", "--data.batch_size=125", *SETTINGS]
NODE = ["--trainer.accelerator=cpu", "--trainer.num_nodes=2", "--trainer.devices=1"]


def on_two_nodes(repository, commands, environments=({}, {})):
    """Run a command on each node to its end; return the exit codes and the stderr of both."""
    both = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    with ExitStack() as stack:
        nodes = []
        for command, environment in zip(commands, environments, strict=True):
            pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
            node = subprocess.Popen(command, env={**both, **environment}, start_new_session=True, **pipes)
            nodes.append(stack.enter_context(node))
            stack.callback(_kill, node.pid)
        errors = [node.communicate(timeout=300)[1] for node in nodes]
    return [node.returncode for node in nodes], "".join(errors)


def _kill(group):
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def torchrun(repository, port, *arguments, restarts=0):
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    agent += [
        "--monitor-interval=0.2",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=localhost:{port}",
        f"--max-restarts={restarts}",
    ]
    # As in examples/torchrun.sh.
    environment = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return on_two_nodes(repository, [[*agent, *FIT, *NODE, *arguments]] * 2, (environment, environment))


@pytest.fixture
def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return str(listener.getsockname()[1])


@pytest.fixture
def alone(in_tmp, tmp_path_factory, monkeypatch):
    """The last measurement of one process with the same batches, outside the folder in which others resume."""
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    root = tmp_path_factory.mktemp("alone")
    main(
        [
            "fit",
            "--config=hscl.yaml",
            "--trainer.accelerator=cpu",
            f"--trainer.default_root_dir={root}",
            "--name=alone",
            *SETTINGS,
        ]
    )
    return RunRecord.read(root / "lightning_logs/alone").history[-1]


@pytest.mark.exhaustive
def test_a_dead_rank_is_restarted_and_the_run_ends_like_that_of_one_process(gloo, alone, repository, free_port):
    killed = [
        "--trainer.callbacks+=tests.faults.faults.KilledOnce",
        "--trainer.callbacks.step=8",
        "--trainer.callbacks.file=killed",
    ]
    # Agents that detect a death at different times may need more than one restart.
    codes, err = torchrun(repository, free_port, "--ckpt_path=last", *killed, restarts=5)
    assert codes == [0, 0], err
    assert Path("killed").exists()
    assert "checkpoints/epoch=0-step=5.ckpt" in err, "resumed"
    last = max(Path("lightning_logs").iterdir(), key=lambda folder: folder.stat().st_mtime)
    assert RunRecord.read(last).history[-1] == pytest.approx(alone, rel=1e-6, nan_ok=True)


@pytest.mark.exhaustive
def test_without_restarts_a_death_ends_all_with_one_line(gloo, in_tmp, repository, free_port):
    died = [
        "--trainer.callbacks+=tests.faults.faults.SignalAt",
        "--trainer.callbacks.step=8",
        "--trainer.callbacks.rank=1",
    ]
    codes, err = torchrun(repository, free_port, *died)
    assert 0 not in codes
    (line,) = [line for line in err.splitlines() if line.startswith("nc-train: error:")]
    assert "process of rank 0 (pid " in line
    assert "has lost a peer in epoch 1; resume with --ckpt_path lightning_logs/" in line
    assert "nc_lightning/callbacks" not in err, "our code prints no traceback"


@pytest.mark.some(1)
@pytest.mark.slow
def test_a_slurm_job_runs_on_two_nodes(gloo, alone, repository, free_port):
    job = {
        "JOB_ID": "7",
        "JOB_NAME": "nc",
        "NTASKS": "2",
        "NTASKS_PER_NODE": "1",
        "NNODES": "2",
        "NODELIST": "localhost",
    }
    tasks = [{**job, "PROCID": rank, "NODEID": rank, "LOCALID": "0"} for rank in "01"]
    environments = [
        {f"SLURM_{key}": value for key, value in task.items()} | {"MASTER_PORT": free_port} for task in tasks
    ]
    codes, err = on_two_nodes(repository, [[sys.executable, *FIT, *NODE]] * 2, environments)
    assert codes == [0, 0], err
    assert RunRecord.read(Path("lightning_logs/version_7")).history[-1] == pytest.approx(alone, rel=1e-6, nan_ok=True)


def _meet(rank, port, device_of_rank_1):
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    environment = SimpleNamespace(world_size=lambda: 2, global_rank=lambda: rank, main_address="", main_port=0)
    device = torch.device(device_of_rank_1 if rank == 1 else "cpu")
    strategy = SimpleNamespace(cluster_environment=environment, root_device=device)
    try:
        store = check_same_device(SimpleNamespace(strategy=strategy, num_devices=1, num_nodes=2))
    except ValueError as error:
        return str(error)
    torch.distributed.barrier()  # the store exists until both have joined
    assert store is not None
    return ""


def test_mixed_cpus_and_gpus_are_refused_on_every_process_without_a_hang(gloo, free_port):
    for line in on_processes(2, _meet, free_port, "cuda:0"):
        assert line.startswith(
            "--trainer.accelerator: got cpu on rank 0 and cuda on rank 1, expected the same on all pro"
        )


def test_devices_of_one_kind_are_accepted(gloo, free_port):
    assert on_processes(2, _meet, free_port, "cpu") == ["", ""]


def test_a_single_process_or_one_started_by_lightning_is_not_checked(monkeypatch):
    assert check_same_device(Trainer(accelerator="cpu", devices=1, logger=False)) is None
    assert check_same_device(Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)) is None
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert check_same_device(Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)) is None


def _resume_apart(rank, folder):
    options = {"accelerator": "cpu", "devices": 2, "logger": False, "enable_progress_bar": False, "strategy": "ddp"}
    model = HSCL(encoder=MLP((32,), [16]), num_classes=10)
    data = LatentClassDataModule(batch_size=60, samples_per_class=50)
    trainer = Trainer(max_epochs=1, **options, enable_checkpointing=False, callbacks=[ProcessWatch()])
    trainer.fit(model, data)
    trainer.save_checkpoint(f"{folder}/end.ckpt")
    again = Trainer(max_epochs=2, **options, enable_checkpointing=False)
    try:
        again.fit(model, data, ckpt_path=f"{folder}/end.ckpt" if rank == 0 else None)
    except ValueError as error:
        return str(error)


@pytest.mark.slow
def test_processes_that_resume_different_checkpoints_are_refused(gloo, tmp_path):
    for line in on_processes(2, _resume_apart, str(tmp_path)):
        assert line.startswith(
            "ckpt_path: got checkpoints of steps 4, 0 on the 2 processes, expected the same; use a shared"
        )
