import csv
import json
import shutil
from pathlib import Path

import pytest

from nc_lightning.cli import commands
from nc_lightning.cli import main as nc_train
from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.cli.evaluate import main
from nc_lightning.reports.record import RunRecord

SHORT = [
    *("--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.enable_progress_bar=false"),
    *("--trainer.accelerator=cpu", "--model.encoder=nc_lightning.encoders.MLP"),
    "--model.encoder.hidden_features=[16]",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    nc_train(["fit", "--config=hscl.yaml", "--name=run", *SHORT, f"--trainer.default_root_dir={root}"])
    return root / "lightning_logs" / "run"


def test_a_run_is_printed_saved_and_reported(run, capsys, monkeypatch):
    history = RunRecord.read(run).history
    monkeypatch.setattr("sys.argv", ["nc-train", "evaluate", str(run)])
    commands.nc_train()
    out = capsys.readouterr().out
    assert "1,259 training and 269 test samples" in out
    assert [line.split()[-2:] for line in out.splitlines() if " frozen features " in line] == [["encoder", "z"]]
    saved = json.loads((run / "evaluation.json").read_text())
    assert (saved["data"], saved["train_size"], saved["test_size"]) == (None, 1259, 269)
    with (run / "evaluation.csv").open() as file:
        rows = {row["protocol"]: row for row in csv.DictReader(file)}
    assert float(rows["knn_20"]["z"]) == saved["layers"]["z"]["knn_20"]
    record = RunRecord.read(run)
    assert record.history == history
    assert record.evaluation == saved["layers"]
    report = (run / "report.html").read_text()
    assert "Frozen features" in report
    assert f"{saved['layers']['encoder']['linear']:.4f}" in report
    assert f"20 nearest neighbors  {saved['layers']['encoder']['knn_20']:.4f}".split() == next(
        line.split()[:4] for line in out.splitlines() if "20 nearest neighbors" in line
    )


def test_no_value_is_cut_in_a_narrow_terminal(run, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    layers = "encoder.layers.0,encoder.layers.1,encoder.layers.2,projector,z"
    found = main([str(run), "--layers", layers])
    lines = capsys.readouterr().out.splitlines()
    row = next(line for line in lines if "1-shot" in line)
    values = found.layers.values()
    assert (
        row.split()[3:] == " ".join(f"{v['few_shot_1']:.4f} +- {v['few_shot_1_interval']:.4f}" for v in values).split()
    )
    assert next(line for line in lines if "frozen features" in line).split()[2:] == layers.split(",")


def test_another_data_set_and_layer_keep_the_earlier_files(run, capsys):
    before = {path: path.read_bytes() for path in run.glob("evaluation*")}
    data = ["--data", "nc_lightning.data.DigitsDataModule", "--data.seed", "3"]
    found = main([str(run), "--layers", "projector", *data])
    assert list(found.layers) == ["projector"]
    assert "test samples of DigitsDataModule seed 3" in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())
    assert RunRecord.read(run).evaluation["projector on DigitsDataModule seed 3"] == found.layers["projector"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--layers", "encoder,projektor"], "got 'projektor', expected z or a submodule of HSCL, such as projector"),
        (["--layers", ""], "--layers: got '', expected different names, separated by commas"),
        (["--data", "no.Such"], "no.Such"),
        (["--layer", "z"], "error: --layer: there is no such option; did you mean --layers?"),
        (["--steps", "3"], "error: --steps: expected after --data CLASS"),
        (["--data.seed", "3"], "error: --data.seed: expected after --data CLASS"),
        (
            ["--data", "nc_lightning.data.LatentClassDataModule"],
            "data: got LatentClassDataModule with inputs (32,), which",
        ),
    ],
)
def test_bad_input_takes_one_line_and_leaves_nothing(run, args, message, capsys):
    before = sorted(run.iterdir())
    with pytest.raises(SystemExit) as raised, exit_on_error():
        main([str(run), *args])
    assert raised.value.code == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("nc-train evaluate: error: ")
    assert message in err.splitlines()[-1]
    assert sorted(run.iterdir()) == before


def test_a_run_without_a_checkpoint_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit), exit_on_error():
        main([str(tmp_path)])
    assert "which has no checkpoint, expected the folder of a trained run" in capsys.readouterr().err


def test_a_checkpoint_that_is_named_has_columns_of_its_own_and_a_lone_csv_is_kept(run, tmp_path):
    copied = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    for path in copied.glob("evaluation*"):
        path.unlink()
    (copied / "evaluation.csv").write_text("mine")
    checkpoint = next(path for path in copied.rglob("*.ckpt") if not path.is_symlink())
    found = main([str(checkpoint), "--layers", "z"])
    assert (copied / "evaluation.csv").read_text() == "mine"
    saved = json.loads((copied / "evaluation-1.json").read_text())
    assert saved["checkpoint"] == str(checkpoint)
    assert RunRecord.read(copied).evaluation[f"z of {checkpoint.name}"] == found.layers["z"]


def test_a_damaged_report_is_noticed_before_anything_is_computed(run, tmp_path, capsys):
    copied = Path(shutil.copytree(run, tmp_path / "run", symlinks=True))
    (copied / "report.json").write_text("{")
    before = sorted(copied.iterdir())
    with pytest.raises(SystemExit), exit_on_error():
        main([str(copied)])
    captured = capsys.readouterr()
    assert "which is damaged or not a record of a run" in captured.err
    assert "frozen features" not in captured.out
    assert sorted(copied.iterdir()) == before
