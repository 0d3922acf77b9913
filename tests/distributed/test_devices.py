"""Missing devices, and checkpoints from other devices."""

import os
import re
import sys
from unittest import mock

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback

from nc_lightning import HSCL
from nc_lightning.callbacks import OnlineLinearProbe, RandomStates
from nc_lightning.cli import main
from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.data import LatentClassDataModule
from nc_lightning.distributed.devices import check_accelerator, search_no_gpu_again
from nc_lightning.encoders import MLP
from nc_lightning.io.checkpoints import AtomicCheckpointIO, check_checkpoint

FIT = ["fit", "--config=hscl.yaml", "--trainer.enable_progress_bar=false"]
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])


def have_gpus(monkeypatch, count):
    for module in ("lightning.fabric.accelerators.cuda", "lightning.pytorch.accelerators.cuda"):
        monkeypatch.setattr(f"{module}.num_cuda_devices", lambda: count)


@pytest.mark.parametrize(
    ("built", "available", "expected"), [(True, False, "0"), (True, True, "1"), (False, False, "1")]
)
def test_torch_does_not_search_for_a_missing_driver_in_each_step(monkeypatch, built, available, expected):
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # as Lightning does
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    search_no_gpu_again()
    assert os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] == expected


def test_a_fit_searches_for_a_driver_only_before_its_steps(monkeypatch):
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    searches, steps = [], []
    monkeypatch.setattr(torch.cuda, "_device_count_nvml", lambda: searches.append(len(steps)) or 0)
    look = LambdaCallback(on_train_batch_end=lambda *_: steps.append(torch.cuda.is_available()))
    trainer = Trainer(max_epochs=1, callbacks=[look, OnlineLinearProbe()], **QUIET)
    trainer.fit(HSCL(encoder=MLP((32,)), num_classes=10), LatentClassDataModule())
    assert len(steps) > 1
    assert searches == [] or max(searches) == 0 or torch.cuda.is_available()


@pytest.mark.parametrize("accelerator", ["cuda", "gpu", "mps", "tpu", "abacus"])
def test_a_missing_device_is_refused(refusal, monkeypatch, accelerator):
    have_gpus(monkeypatch, 0)
    with mock.patch("lightning.pytorch.accelerators.MPSAccelerator.is_available", return_value=False):
        line = refusal(main, [*FIT, f"--trainer.accelerator={accelerator}"])
    expected = f"got {accelerator}, expected one that this machine has: auto, cpu"
    assert line == f"nc-train: error: --trainer.accelerator: {expected}"


@pytest.mark.parametrize("name", ["auto", "gpu", "cuda", "cpu"])
def test_an_existing_device_is_accepted(monkeypatch, name):
    have_gpus(monkeypatch, 1)
    check_accelerator(name)


def test_more_devices_than_exist_are_refused(refusal, monkeypatch):
    have_gpus(monkeypatch, 2)
    line = refusal(main, [*FIT, "--trainer.accelerator=gpu", "--trainer.devices=4"])
    assert "You requested gpu: [0, 1, 2, 3]" in line
    assert "your machine only has: [0, 1]" in line


def test_gpus_without_nccl_are_refused(gloo, monkeypatch, capsys):
    monkeypatch.setattr("torch.distributed.distributed_c10d.is_nccl_available", lambda: False)
    strategy = ["--trainer.strategy=lightning.pytorch.strategies.DDPStrategy"]
    strategy += ["--trainer.strategy.process_group_backend=nccl", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        main([*FIT, *strategy])
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "NCCL" in line]
    assert len(lines) == 1
    assert lines[0].startswith(
        "nc-train: error: --trainer.strategy: Distributed package doesn't have NCCL built in; use a"
    )


def fit(resume=None, epochs=1, callbacks=()):
    model = HSCL(encoder=MLP((32,), [16]), num_classes=10)
    plugins = [AtomicCheckpointIO()]
    trainer = Trainer(
        max_epochs=epochs, callbacks=list(callbacks), plugins=plugins, enable_checkpointing=False, **QUIET
    )
    trainer.fit(model, LatentClassDataModule(batch_size=120), ckpt_path=resume)
    return model, trainer


@pytest.fixture
def from_gpu(tmp_path, monkeypatch):
    """A checkpoint whose tensors were all saved on a GPU, with the state of the GPU's generator."""
    with monkeypatch.context() as patch:
        states = RandomStates.state_dict
        patch.setattr(RandomStates, "state_dict", lambda self: on_gpu(states(self)))
        patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
        fit(callbacks=[OnlineLinearProbe(), RandomStates()])[1].save_checkpoint(tmp_path / "gpu.ckpt")
    with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
        torch.load(tmp_path / "gpu.ckpt")
    return tmp_path / "gpu.ckpt"


def on_gpu(states):
    return {"processes": [{**state, "cuda": state["torch"]} for state in states["processes"]]}


def test_a_gpu_checkpoint_loads_on_a_cpu(from_gpu):
    check_checkpoint(str(from_gpu), "nc_lightning.HSCL")
    with pytest.warns(UserWarning, match="random states: got those of a run on cuda, expected cpu"):
        _, trainer = fit(resume=from_gpu, epochs=2, callbacks=[OnlineLinearProbe(), RandomStates()])
    assert trainer.current_epoch == 2
    assert HSCL.load_from_checkpoint(from_gpu, encoder=MLP((32,), [16]), map_location="cpu").device.type == "cpu"


def test_cpu_random_states_are_restored_on_a_gpu(monkeypatch):
    states = RandomStates()
    saved = states.state_dict()
    expected = torch.rand(1)
    states.load_state_dict(saved)
    states._device = torch.device("cuda", 0)
    with pytest.warns(UserWarning, match="random states: got those of a run on cpu, expected cuda"):
        states.restore(rank=0, world_size=1)
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    ("slurm", "options", "message"),
    [
        ({"NTASKS": "4"}, ["devices=2"], "You set `--ntasks=4` in your SLURM bash script, but this variable is not"),
        (
            {"NTASKS": "2", "NTASKS_PER_NODE": "2"},
            ["devices=4"],
            r"--trainer.devices: got 4 on 1 node\(s\) in a job of 2 process\(es\) \(SLURM\), expected one process for "
            "each device; set sbatch's --ntasks-per-node to devices",
        ),
        (
            {"NTASKS": "1"},
            ["devices=1", "num_nodes=2"],
            r"--trainer.devices: got 1 on 2 node\(s\) in a job of 1 process",
        ),
    ],
    ids=str,
)
def test_a_job_with_another_number_of_processes_is_refused(refusal, monkeypatch, slurm, options, message):
    """Otherwise some processes would wait for others that never start."""
    job = {"JOB_ID": "5", "JOB_NAME": "nc", "PROCID": "0", "LOCALID": "0", "NODEID": "0", **slurm}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    arguments = [f"--trainer.{option}" for option in options]
    line = refusal(main, [*FIT, "--trainer.accelerator=cpu", "--trainer.strategy=ddp", *arguments])
    assert re.search(f"^nc-train: error: {message}", line), line
