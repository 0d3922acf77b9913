"""Runs that are killed, stopped, truncated or out of disk space must end cleanly and resume."""

import os
import random
import re
import subprocess
import sys

import pytest
import torch

from nc_lightning.io.checkpoints import read_checkpoint
from nc_lightning.io.last_checkpoint import find_last
from tests.faults.runs import ALONE, IN_TWO, STEPS, checkpoints, differences, end_of, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found in /proc"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an undisturbed run, with a checkpoint of every epoch."""
    folder = tmp_path_factory.mktemp("whole")
    assert run(folder, ALONE, "--checkpoint.save_top_k=-1").code == 0
    assert end_of(folder)["step"] == STEPS
    return folder


@pytest.fixture(scope="module")
def whole_in_two(tmp_path_factory):
    """The same with two processes."""
    folder = tmp_path_factory.mktemp("whole-in-two")
    assert run(folder, IN_TWO).code == 0
    return folder


@pytest.mark.some(1)
@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("saving", [[], ["--checkpoint.every_n_train_steps=3"]], ids=["every epoch", "every 3 steps"])
def test_a_run_killed_at_any_step_resumes_to_the_same_end(tmp_path, whole, saving, kills):
    draw = random.Random(0)
    for step in sorted(draw.sample(range(1, STEPS), kills)):
        places = ["forward", "backward", "batch_end"] + ["validation"] * (step % 5 == 0)
        fault = {"step": step, "place": draw.choice(places)}
        assert run(tmp_path, ALONE, *saving, "--ckpt_path=last", fault=fault).code == -9, fault
    assert run(tmp_path, ALONE, *saving, "--ckpt_path=last").code == 0
    # A run resumed at the last step of an epoch starts the next one and skips the validation and its measurement.
    dashboard = "/callbacks/TensorBoardDashboard"
    measured = (f"{dashboard}/history", f"{dashboard}/losses", "/callbacks/CollapseWatch/") if saving else ()
    assert not [path for path in differences(end_of(whole), end_of(tmp_path)) if not path.startswith(measured)]


def test_a_run_killed_while_saving_keeps_the_previous_checkpoint(tmp_path, whole):
    assert run(tmp_path, ALONE, fault={"step": 15, "place": "writing"}).code == -9
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch=1-step=10.ckpt"]
    assert run(tmp_path, ALONE, "--ckpt_path=last").code == 0
    assert not list(differences(end_of(whole), end_of(tmp_path)))


def test_a_checkpoint_truncated_anywhere_is_detected(whole, in_tmp, caplog):
    *_, before, last = (path.read_bytes() for path in checkpoints(whole))
    folder = in_tmp / "checkpoints"
    folder.mkdir()
    for length in random.Random(0).sample(range(len(last)), 10):
        (folder / "before.ckpt").write_bytes(before)
        (folder / "half.ckpt").write_bytes(last[:length])
        os.utime(folder / "before.ckpt", (1, 1))
        caplog.clear()
        with caplog.at_level("INFO"):
            assert find_last(None, None) == str(folder / "before.ckpt"), length
        assert caplog.messages == ["checkpoints/half.ckpt is damaged, using checkpoints/before.ckpt instead"]


@pytest.mark.exhaustive
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(tmp_path, whole):
    assert run(tmp_path, ALONE, "--checkpoint.save_top_k=-1", fault={"step": 22}).code == -9
    newest = checkpoints(tmp_path)[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])
    ended = run(tmp_path, ALONE, "--ckpt_path=last")
    assert ended.code == 0
    assert re.search(r"epoch=3-step=20.ckpt is damaged, using lightning_logs/[\w.-]+/checkpoints/epoch=2", ended.stderr)
    assert not list(differences(end_of(whole), end_of(tmp_path)))


@pytest.fixture
def little_room(tmp_path):
    """Mount a 200 kB file system as the folder of runs; if that is not possible, limit the size of files there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk], capture_output=True).returncode:
        yield disk, 40_000
    else:
        yield disk, None
        subprocess.run(["umount", disk], check=True)


@pytest.mark.some(1)
@pytest.mark.parametrize("logger", ["true", "false"])
def test_a_full_disk_is_one_line_and_keeps_the_previous_checkpoint(tmp_path, little_room, whole, logger):
    disk, file_limit = little_room
    keep = ["--checkpoint.save_top_k=-1", f"--trainer.logger={logger}", f"--trainer.default_root_dir={disk}"]
    ended = run(tmp_path, ALONE, *keep, file_limit=file_limit)
    assert ended.code == 2
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith("nc-train: error: ")]
    last = checkpoints(disk)[-1]
    assert "epoch" in read_checkpoint(last)
    assert not [path for path in disk.rglob(".*") if path.is_file()], "half-written files are removed"
    assert f"; once there is room, resume with --ckpt_path {last.relative_to(tmp_path)}, the last whole one" in error
    assert "No space left on device" in error or file_limit
    if file_limit is None:
        subprocess.run(["mount", "-o", "remount,size=20M", disk], check=True)
    assert run(tmp_path, ALONE, *keep, "--ckpt_path=last").code == 0
    assert not list(differences(end_of(whole), end_of(tmp_path)))


@pytest.mark.some(1)
@pytest.mark.parametrize(
    ("signum", "code", "step", "place"),
    [
        ("SIGTERM", 143, 13, "batch_end"),
        ("SIGTERM", 143, 15, "backward"),  # the last batch of an epoch
        ("SIGTERM", 143, 15, "validation"),
        ("SIGTERM", 143, 38, "forward"),  # in the last epoch
        ("SIGINT", 130, 13, "forward"),
    ],
)
def test_a_gracefully_stopped_run_resumes_to_the_same_end(tmp_path, whole, signum, code, step, place):
    ended = run(tmp_path, ALONE, fault={"step": step, "place": place, "signum": signum})
    assert ended.code == code
    saved = checkpoints(tmp_path)[-1]
    assert saved.name.startswith("interrupted-epoch=")
    assert f"stopped by {signum} and saved; resume with --ckpt_path {saved.relative_to(tmp_path)}\n" in ended.stderr
    assert ("press Ctrl-C again" in ended.stderr) == (signum == "SIGINT")
    assert run(tmp_path, ALONE, "--ckpt_path=last").code == 0
    assert not list(differences(end_of(whole), end_of(tmp_path)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("place", ["batch_end", "validation"])
def test_a_run_with_max_steps_resumes_to_the_same_end(tmp_path, place):
    steps = ["--trainer.max_epochs=-1", "--trainer.max_steps=22", "--model.lr_interval=step"]
    folders = [tmp_path / name for name in ("whole", "stopped")]
    for folder in folders:
        folder.mkdir()
    assert run(folders[0], ALONE, *steps).code == 0
    assert run(folders[1], ALONE, *steps, fault={"step": 10, "place": place, "signum": "SIGTERM"}).code == 143
    assert run(folders[1], ALONE, *steps, "--ckpt_path=last").code == 0
    ends = [end_of(folder) for folder in folders]
    for end in ends:
        # Measured only in an epoch before the checkpoint: Lightning keeps no metrics of earlier epochs.
        end["metrics"] = {key: value for key, value in end["metrics"].items() if not key.startswith("geometry/val")}
    assert not list(differences(*ends))


def test_a_second_ctrl_c_stops_immediately(tmp_path):
    ended = run(tmp_path, ALONE, fault={"step": 13, "signum": "SIGINT", "times": 2})
    assert ended.code == 1
    assert [path.name for path in checkpoints(tmp_path)] == ["epoch=1-step=10.ckpt"]


def test_a_signal_in_the_last_step_lets_the_run_end_normally(tmp_path, whole):
    assert run(tmp_path, ALONE, fault={"step": STEPS, "place": "validation", "signum": "SIGTERM"}).code == 0
    assert not list(differences(end_of(whole), end_of(tmp_path)))


@pytest.mark.some(1)
@pytest.mark.usefixtures("gloo")
@pytest.mark.parametrize("place", ["forward", "backward", "validation"])
@pytest.mark.parametrize("rank", [0, 1])
def test_when_one_of_two_processes_dies_both_end_and_it_is_named(tmp_path, rank, place):
    step = 10 if place == "validation" else 8
    ended = run(tmp_path, IN_TWO, fault={"step": step, "place": place, "rank": rank})
    assert ended.code == (1 if rank == 1 else -9)
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith("nc-train: error: ")]
    assert f"process of rank {rank} (pid " in error
    assert ("killed by SIGKILL" if rank == 1 else "has died") in error
    last = checkpoints(tmp_path)[-1]
    assert f"in epoch 1; resume with --ckpt_path {last.relative_to(tmp_path)}" in error
    assert torch.is_tensor(next(iter(read_checkpoint(last)["state_dict"].values())))


@pytest.mark.exhaustive
@pytest.mark.usefixtures("gloo")
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_of_two_processes_ends_both_with_its_line_and_code(tmp_path, rank):
    ended = run(tmp_path, IN_TWO, fault={"step": 3, "rank": rank}, kind="FailAt")
    assert ended.code == 2
    errors = [line for line in ended.stderr.splitlines() if line.startswith("nc-train: error: ")]
    assert errors[0] == "nc-train: error: data: got something bad"
    assert len(errors) == 1 + rank
    assert rank == 0 or "process of rank 1 (pid " in errors[1]


@pytest.mark.exhaustive
@pytest.mark.usefixtures("gloo")
def test_when_rank_0_dies_before_the_rendezvous_no_process_remains(tmp_path):
    ended = run(tmp_path, IN_TWO, fault={"step": 0, "place": "start"})
    assert ended.code == -9
    assert "nc-train: error: process of rank 0 (pid " in ended.stderr


@pytest.mark.exhaustive
@pytest.mark.usefixtures("gloo")
def test_two_processes_stop_together_and_resume_to_the_same_end(tmp_path, whole_in_two):
    assert run(tmp_path, IN_TWO, fault={"step": 8, "signum": "SIGTERM"}).code == 143
    assert checkpoints(tmp_path)[-1].name == "interrupted-epoch=1-step=8.ckpt"
    assert run(tmp_path, IN_TWO, "--ckpt_path=last").code == 0
    for rank in (0, 1):
        assert not list(differences(end_of(whole_in_two, rank), end_of(tmp_path, rank)))
