import ast
import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

import nc_lightning
from nc_lightning.cli import main
from nc_lightning.io.checkpoints import (
    AtomicCheckpointIO,
    check_checkpoint,
    newest_first,
    newest_whole,
    read_checkpoint,
)

CONTENT = {"state_dict": {"weight": torch.arange(1000.0)}, "objective": "HSCL", "epoch": 3}


def save(path, content=CONTENT):
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def fails_halfway(error):
    def torch_save(_, file):
        file.write(b"half")
        raise error

    return torch_save


def test_a_checkpoint_is_written_and_read_without_leftovers(tmp_path):
    path = save(tmp_path / "new" / "folder" / "a.ckpt")
    assert torch.equal(AtomicCheckpointIO().load_checkpoint(path)["state_dict"]["weight"], torch.arange(1000.0))
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_file_intact(in_tmp, monkeypatch, code):
    path = save(in_tmp / "a.ckpt")
    monkeypatch.setattr(torch, "save", fails_halfway(OSError(code, os.strerror(code))))
    with pytest.raises(OSError, match=f"{os.strerror(code)}; once there is room, resume with --ckpt_path a.ckpt"):
        save(path)
    assert read_checkpoint(path)["epoch"] == 3
    assert list(in_tmp.iterdir()) == [path]
    with pytest.raises(OSError, match="there is no earlier one in its folder"):
        save(in_tmp / "other" / "b.ckpt")


def test_an_error_of_torch_over_an_os_error_is_an_os_error(tmp_path, monkeypatch):
    def torch_save(_, file):
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("[enforce fail at inline_container.cc:672]")

    monkeypatch.setattr(torch, "save", torch_save)
    with pytest.raises(OSError, match="No space left on device"):
        save(tmp_path / "a.ckpt")


def test_other_errors_are_not_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "save", fails_halfway(RuntimeError("a defect")))
    with pytest.raises(RuntimeError, match="a defect"):
        save(tmp_path / "a.ckpt")
    assert not list(tmp_path.iterdir())


def test_no_code_is_run_for_any_value_of_weights_only(tmp_path):
    torch.save({"state_dict": {}, "code": subprocess.Popen}, tmp_path / "a.ckpt")
    for weights_only in (None, False, True):
        with pytest.raises(Exception, match="weights_only|Weights only"):
            AtomicCheckpointIO().load_checkpoint(tmp_path / "a.ckpt", weights_only=weights_only)


def test_damage_of_a_single_byte_is_detected(tmp_path):
    path = save(tmp_path / "a.ckpt")
    whole = path.read_bytes()
    draw = random.Random(0)
    inside = whole.index(torch.arange(1000.0).numpy().tobytes())
    for place in draw.sample(range(inside, inside + 4000), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match="damaged or not a Lightning checkpoint"):
            read_checkpoint(path)
    for length in draw.sample(range(len(whole)), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged or not a Lightning checkpoint"):
            read_checkpoint(path)


@pytest.mark.exhaustive
def test_damage_is_detected_without_asserts(tmp_path):
    path = save(tmp_path / "a.ckpt")
    whole = path.read_bytes()
    inside = whole.index(torch.arange(1000.0).numpy().tobytes())
    path.write_bytes(whole[:inside] + bytes([whole[inside] ^ 1]) + whole[inside + 1 :])
    torch.save({"state_dict": [1]}, tmp_path / "b.ckpt")
    code = "import sys; from nc_lightning.io.checkpoints import newest_whole; from pathlib import Path;"
    code += "print(newest_whole(map(Path, sys.argv[1:])) == (None, list(map(Path, sys.argv[1:]))))"
    command = [sys.executable, "-O", "-c", code, str(path), str(tmp_path / "b.ckpt")]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "True\n"


FILES = sorted(Path(nc_lightning.__file__).parent.rglob("*.py"))


def test_nothing_is_checked_by_assert():
    """``python -O`` removes asserts."""
    asserts = [
        path for path in FILES if any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text())))
    ]
    assert asserts == []


def catches_asserts(handler):
    names = {node.id for node in ast.walk(handler.type or ast.Name("Exception")) if isinstance(node, ast.Name)}
    return bool(names & {"Exception", "BaseException", "AssertionError"})


def test_no_assert_is_caught():
    """Catching an assert would make it control flow."""
    for path in Path(nc_lightning.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Try) and any(map(catches_asserts, node.handlers)):
                assert not [a.lineno for part in node.body for a in ast.walk(part) if isinstance(a, ast.Assert)], path


def test_a_checkpoint_of_another_objective_is_not_loaded(tmp_path):
    path = str(save(tmp_path / "a.ckpt"))
    check_checkpoint(path, "nc_lightning.HSCL")
    with pytest.raises(ValueError, match="got a checkpoint of HSCL, expected one of SCL"):
        check_checkpoint(path, "nc_lightning.SCL")


def test_the_newest_undamaged_checkpoint_is_found(tmp_path):
    paths = [save(tmp_path / f"{name}.ckpt") for name in "abc"]
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    (tmp_path / "last.ckpt").symlink_to("c.ckpt")
    (tmp_path / "gone.ckpt").symlink_to("nowhere.ckpt")
    assert newest_first(tmp_path.glob("*.ckpt")) == paths[::-1]
    paths[2].write_bytes(b"half")
    assert newest_whole(newest_first(tmp_path.glob("*.ckpt"))) == (paths[1], [paths[2]])


@pytest.mark.slow
def test_a_user_checkpoint_io_replaces_ours(in_tmp):
    quick = ["fit", "--config=hscl.yaml", "--trainer.fast_dev_run=1", "--trainer.enable_progress_bar=false"]
    assert type(main(quick).trainer.strategy.checkpoint_io) is AtomicCheckpointIO
    (in_tmp / "mine.yaml").write_text("trainer: {plugins: [{class_path: lightning.pytorch.plugins.TorchCheckpointIO}]}")
    assert type(main([*quick, "--config=mine.yaml"]).trainer.strategy.checkpoint_io) is TorchCheckpointIO
