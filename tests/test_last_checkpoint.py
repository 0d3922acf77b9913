import os
from pathlib import Path

import pytest
import torch

from nc_lightning.cli import main
from nc_lightning.last_checkpoint import find_last

SHORT = ["--config=hscl.yaml", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setenv("NC_LAST_CHECKPOINT", "")  # which it sets: to be taken back
    return in_tmp


def write(name, age):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}}, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return str(path.resolve())


@pytest.mark.parametrize(
    "name",
    ["lightning_logs/version_3/checkpoints/some.ckpt", "checkpoints/some.ckpt", "hpc_ckpt_2.ckpt", "mine/some.ckpt"],
)
def test_it_is_the_newest_of_all_runs(name):
    write("lightning_logs/version_4/checkpoints/epoch=9.ckpt", age=5)
    newest = write(name, age=1)
    assert find_last(None, "mine") == newest
    assert find_last(str(Path.cwd()), "mine") == newest
    assert find_last("elsewhere", None) is None


def test_a_damaged_one_is_passed_over_on_one_line(caplog):
    whole = write("checkpoints/whole.ckpt", age=5)
    Path("checkpoints/half.ckpt").write_bytes(b"half")
    with caplog.at_level("INFO"):
        assert find_last(None, None) == whole
        Path(whole).unlink()
        assert find_last(None, None) is None
    assert caplog.messages == [
        "checkpoints/half.ckpt is damaged, going on from checkpoints/whole.ckpt",
        "checkpoints/half.ckpt is damaged, and there is no other checkpoint",
    ]


def test_further_processes_take_what_the_first_has_found(monkeypatch):
    found = write("checkpoints/a.ckpt", age=5)
    assert find_last(None, None) == found
    write("checkpoints/b.ckpt", age=1)
    monkeypatch.setenv("NC_LAUNCHER", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_last(None, None) == found
    monkeypatch.setenv("NC_LAST_CHECKPOINT", "")
    assert find_last(None, None) is None


@pytest.mark.slow
def test_a_loop_around_the_command_works_from_the_start(caplog):
    with caplog.at_level("INFO"):
        assert main(["fit", *SHORT, "--ckpt_path=last"]).trainer.current_epoch == 1
    assert "--ckpt_path last: there is no whole checkpoint yet, starting from scratch" in caplog.messages
    resumed = main(["fit", *SHORT, "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert (resumed.trainer.current_epoch, resumed.trainer.global_step) == (2, 10)
    assert main(["fit", *SHORT, "--ckpt_path=last", "--trainer.max_epochs=2"]).trainer.global_step == 10
    assert main(["validate", *SHORT, "--ckpt_path=last"]).config.validate.ckpt_path.endswith("epoch=1-step=10.ckpt")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_without_any_there_is_nothing_to_measure(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, *SHORT, "--ckpt_path=last"])
    assert exit_.value.code == 2
    assert "--ckpt_path: got 'last', expected a run here that left a whole checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_of_another_objective(capsys):
    main(["fit", *SHORT])
    with pytest.raises(SystemExit):
        main(["fit", "--config=scl.yaml", "--ckpt_path=last"])
    assert "--ckpt_path: got a checkpoint of HSCL, expected one of SCL" in capsys.readouterr().err
