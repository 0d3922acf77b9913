import os
import re
from pathlib import Path

import pytest
import torch

from nc_lightning.callbacks import InitialWeights
from nc_lightning.cli import main
from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.io.checkpoints import checkpoints_below
from nc_lightning.io.last_checkpoint import find_last
from nc_lightning.reports.record import RunRecord
from tests.faults.forks import nc_train

SHORT = ["--config=hscl.yaml", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setenv("NC_LAST_CHECKPOINT", "")  # set by the code under test; monkeypatch restores it
    return in_tmp


WHOLE = {"state_dict": {}, "loops": {}, "optimizer_states": []}


def write(name, age, content=WHOLE):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return str(path.resolve())


@pytest.mark.parametrize(
    "name",
    [
        "lightning_logs/version_3/checkpoints/some.ckpt",
        "checkpoints/some.ckpt",
        "hpc_ckpt_2.ckpt",
        "mine/some.ckpt",
        "exp/mine/checkpoints/epoch=3-loss/val=0.50.ckpt",
        "project/8fj3k2/checkpoints/last.ckpt",
        "checkpoints/before-nonfinite-epoch=0-step=3.ckpt",
    ],
)
def test_last_is_the_newest_checkpoint_of_all_runs(name):
    write("lightning_logs/version_4/checkpoints/epoch=9.ckpt", age=5)
    newest = write(name, age=1)
    assert find_last(None, "mine") == newest
    assert find_last(str(Path.cwd()), "mine") == newest
    assert find_last("elsewhere", None) is None


def test_last_of_a_name_is_the_newest_of_its_runs():
    files = {
        name: write(f"lightning_logs/{name}/checkpoints/last.ckpt", age)
        for age, name in enumerate(("b", "a-b", "a-1", "a"))
    }
    for name in files:
        Path(f"lightning_logs/{name}/config.yaml").touch()
    assert find_last(None) == files["b"]
    assert find_last(None, name="a") == files["a-1"]
    assert find_last(None, name="a-b") == files["a-b"]
    assert find_last(None, name="c") is None
    own = write("mine/some.ckpt", age=0)
    assert find_last(None, name="a", own=["mine"]) == own


@pytest.mark.parametrize(
    "name",
    [
        "lightning_logs/version_4/checkpoints/.lr_find_8f2c.ckpt",
        ".scale_batch_size_8f2c.ckpt",
        ".git/some.ckpt",
        "venv/lib/some.ckpt",
        "sweep/cells/beta=5/lightning_logs/version_0/checkpoints/last.ckpt",
        "checkpoints/.last.ckpt.4711",
        "checkpoints/last.ckpt/of/a/folder.txt",
    ],
)
def test_files_that_are_not_checkpoints_of_a_run_are_ignored(name):
    older = write("lightning_logs/version_4/checkpoints/epoch=9.ckpt", age=5)
    write(name, age=1)
    Path("venv").mkdir(exist_ok=True)
    Path("venv/pyvenv.cfg").touch()
    if name.startswith("sweep"):
        Path("sweep/cells/beta=5/cell.json").touch()
        assert find_last("sweep/cells/beta=5") == str(Path(name).resolve()), "except for the cell itself"
    assert find_last(None) == older


def test_links_are_followed_and_loops_end(tmp_path):
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    newest = write(outside / "version_0/checkpoints/a.ckpt", age=1)
    write(root / "b.ckpt", age=5)
    for name, target in {"logs": outside, "self": root, "above": tmp_path, "all": "/", "gone": "nowhere"}.items():
        (root / name).symlink_to(target)
    (outside / "back").symlink_to(root)
    (root / "x.ckpt").symlink_to("x.ckpt")
    assert find_last(str(root)) == newest
    assert len([path for path in checkpoints_below(root) if path.is_file()]) == 2, "each folder must be visited once"


def test_weights_only_checkpoints_are_skipped_for_resuming_but_not_for_measuring():
    whole = write("a/whole.ckpt", age=5)
    weights = write("b/weights.ckpt", age=1, content={"state_dict": {}})
    assert find_last(None, resuming=True) == whole
    assert find_last(None) == weights


def test_a_damaged_checkpoint_is_skipped_with_one_line(caplog):
    whole = write("checkpoints/whole.ckpt", age=5)
    Path("checkpoints/half.ckpt").write_bytes(b"half")
    with caplog.at_level("INFO"):
        assert find_last(None, None) == whole
        Path(whole).unlink()
        assert find_last(None, None) is None
    assert caplog.messages == [
        "checkpoints/half.ckpt is damaged, using checkpoints/whole.ckpt instead",
        "checkpoints/half.ckpt is damaged, and there is no other checkpoint",
    ]


def test_further_processes_use_the_checkpoint_found_by_the_first(monkeypatch):
    found = write("checkpoints/a.ckpt", age=5)
    assert find_last(None, None) == found
    write("checkpoints/b.ckpt", age=1)
    monkeypatch.setenv("NC_LAUNCHER", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_last(None, None) == found
    monkeypatch.setenv("NC_LAST_CHECKPOINT", "")
    assert find_last(None, None) is None


@pytest.mark.slow
def test_the_same_command_starts_and_resumes_a_run(caplog):
    with caplog.at_level("INFO"):
        assert main(["fit", *SHORT, "--ckpt_path=last"]).trainer.current_epoch == 1
    assert "--ckpt_path last: there is no whole checkpoint yet, starting from scratch" in caplog.messages
    resumed = main(["fit", *SHORT, "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert (resumed.trainer.current_epoch, resumed.trainer.global_step) == (2, 10)
    assert main(["fit", *SHORT, "--ckpt_path=last", "--trainer.max_epochs=2"]).trainer.global_step == 10
    assert main(["validate", *SHORT, "--ckpt_path=last"]).config.validate.ckpt_path.endswith("epoch=1-step=10.ckpt")


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_without_a_checkpoint_there_is_nothing_to_measure(command, capsys):
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        main([command, *SHORT, "--ckpt_path=last"])
    assert exit_.value.code == 2
    assert "--ckpt_path: got 'last', expected a run here that left a whole checkpoint" in capsys.readouterr().err


@pytest.mark.slow
def test_a_checkpoint_of_another_objective_is_not_loaded(capsys):
    main(["fit", *SHORT])
    with pytest.raises(SystemExit), exit_on_error():
        main(["fit", "--config=scl.yaml", "--ckpt_path=last"])
    assert "--ckpt_path: got a checkpoint of HSCL, expected one of SCL" in capsys.readouterr().err


CSV = "{class_path: CSVLogger, init_args: {save_dir: logs}}"
LAYOUTS = {
    "the default": [],
    "TensorBoard under a name": ["--trainer.logger=TensorBoardLogger", "--trainer.logger.name=exp"],
    "TensorBoard, a version": ["--trainer.logger=TensorBoardLogger", "--trainer.logger.version=mine"],
    "TensorBoard without a name": ["--trainer.logger=TensorBoardLogger", "--trainer.logger.name="],
    "TensorBoard elsewhere": ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=../elsewhere"],
    "CSV under a name": ["--trainer.logger=CSVLogger", "--trainer.logger.name=a/b"],
    "CSV, a version": ["--trainer.logger=CSVLogger", "--trainer.logger.version=7"],
    "two loggers": [f"--trainer.logger=[{CSV}, {CSV.replace('CSV', 'TensorBoard')}]"],
    "W&B": ["--trainer.logger=tests.io.test_run_folder.Wandb"],
    "no logger": ["--trainer.logger=false"],
    "a filename": ["--checkpoint.filename={epoch}/{loss/val:.2f}", "--checkpoint.monitor=loss/val"],
    "a dirpath": ["--checkpoint.dirpath=../checkpoints/of/mine"],
    "one of Lightning's": [
        "--trainer.callbacks+=ModelCheckpoint",
        "--trainer.callbacks.filename={loss/val}",
        "--trainer.callbacks.monitor=loss/val",
        "--checkpoint.save_last=false",
        "--checkpoint.save_top_k=0",
    ],
}


@pytest.mark.some(3)
@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_after_a_kill_last_is_the_last_complete_state(tmp_path, layout):
    (tmp_path / "here").mkdir()
    save_dir = "--trainer.logger.save_dir=logs"
    logger = [a for a in LAYOUTS[layout] if a.endswith("Logger")]
    given = [*LAYOUTS[layout], save_dir] if logger and "elsewhere" not in layout else LAYOUTS[layout]
    arguments = ["fit", *SHORT, "--trainer.max_epochs=4", "--data.batch_size=500", *given]
    killed = ["--trainer.callbacks+=tests.faults.faults.SignalAt", "--trainer.callbacks.step=5"]
    assert nc_train(tmp_path / "here", *arguments, *killed).code == -9
    for name in (".lr_find_1.ckpt", "half.ckpt"):
        (tmp_path / "here" / name).write_bytes(b"half")
    resumed = nc_train(tmp_path / "here", *arguments, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert resumed.code == 0, resumed.stderr
    (path,) = re.findall(r"Restoring states from the checkpoint path at (.*)", resumed.stderr)
    assert torch.load(path, weights_only=True)["global_step"] == 4, "the second epoch, with two steps each"
    assert resumed.stderr.startswith("half.ckpt is damaged, using")


@pytest.mark.exhaustive
def test_weights_only_checkpoints_are_refused_only_for_resuming(in_tmp, refusal, capsys):
    short = [*SHORT, "--data.batch_size=500", "--trainer.enable_model_summary=false"]
    main(["fit", *short, "--checkpoint.save_weights_only=true"])
    path = "lightning_logs/hscl-digits-beta10-batch-size500/checkpoints/last.ckpt"
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        main(["fit", *short, f"--ckpt_path={path}"])
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert f"--ckpt_path: got '{path}', which holds only weights (save_weights_only), expected a whole" in error
    for command in ("validate", "test", "predict"):
        assert main([command, *short, f"--ckpt_path={path}"]).trainer.state.finished
    initial = [
        f"--trainer.callbacks+={InitialWeights.__module__}.InitialWeights",
        f"--trainer.callbacks.checkpoint={path}",
    ]
    assert main(["fit", *short, *initial]).trainer.state.finished


@pytest.mark.slow
def test_the_config_of_a_resumed_run_names_no_checkpoint(in_tmp):
    short = [*SHORT, "--data.batch_size=500", "--trainer.enable_model_summary=false"]
    main(["fit", *short])
    resumed = Path(main(["fit", *short, "--ckpt_path=last", "--trainer.max_epochs=2"]).trainer.log_dir)
    assert "\nckpt_path: null\n" in (resumed / "config.yaml").read_text()
    assert str(in_tmp) not in (resumed / "config.yaml").read_text()
    record = RunRecord.read(resumed)
    assert "\nckpt_path: null\n" in record.config
    checkpoint = in_tmp / "lightning_logs/hscl-digits-beta10-batch-size500/checkpoints/epoch=0-step=2.ckpt"
    assert record.settings["resumed_from"] == str(checkpoint)
    assert checkpoint.name in (resumed / "report.html").read_text()
    checkpoint.unlink()
    again = main(["fit", "--config", str(resumed / "config.yaml"), *short[1:], "--seed_everything=3"])
    assert again.trainer.global_step == 2, "from scratch"
    assert RunRecord.read(Path(again.trainer.log_dir)).settings["resumed_from"] is None


@pytest.mark.some(1)
@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_random_weights_are_never_evaluated(command, in_tmp, refusal):
    line = refusal(main, [command, "--config=hscl.yaml"])
    assert line.startswith("nc-train: error: --ckpt_path: got none and no config of a run with a checkpoint")
    trained = main(["fit", *SHORT]).model.state_dict()
    (config,) = in_tmp.rglob("config.yaml")
    for name in (config, Path("linked.yaml")):
        evaluated = main([command, f"--config={name}"]).model.state_dict()
        assert all(torch.equal(evaluated[key], trained[key]) for key in trained)
        Path("linked.yaml").unlink(missing_ok=True)
        Path("linked.yaml").symlink_to(config)


def test_a_second_optimizer_is_refused(in_tmp, refusal):
    line = refusal(main, ["fit", "--config=hscl.yaml", "--optimizer=SGD"])
    assert "nc-train fit has no option --optimizer; did you mean --model.optimizer?" in line
