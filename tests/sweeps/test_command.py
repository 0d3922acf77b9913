import csv
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.sweeps import command as nc_sweep
from nc_lightning.sweeps.cell import CellFolder, run_cell
from nc_lightning.sweeps.plan import read_plan

SMALL = {
    "trainer.max_epochs": 2,
    "model.encoder.init_args.hidden_features": "[16]",
    "geometry.every_n_epochs": 1,
    "dashboard.every_n_epochs": 9,
}
"""Settings of a small cell with five steps per epoch."""


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-sweep"])


def write(**said):
    said["all"] = {**SMALL, **said.get("all", {})}
    Path("mine.yaml").write_text(yaml.safe_dump(said, sort_keys=False))


def cell(name):
    return Path("sweeps/mine/cells", name)


def rows():
    with open("sweeps/mine/results.csv") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_sweep_trains_a_grid_gathers_results_and_skips_finished_cells(capfd):
    write(seeds=[0, 1], cells=[{"objective": "scl.yaml"}, {"objective": "hscl.yaml", "model.beta": [5]}])
    assert nc_sweep.main(["mine.yaml", "--jobs", "2", "--data.batch_size", "250"]) == Path("sweeps/mine")
    said = capfd.readouterr().out
    assert said.startswith("4 cells in sweeps/mine, 0 already done\n[1/4, ")
    assert "\n4 cells: 4 done\n" in said
    assert "epoch" not in said.lower(), "the output of the runs is in their logs"
    assert "Geometry of 10 classes" in (cell("scl-seed=0") / "log.txt").read_text()
    found = rows()
    assert [(row["objective"], row["beta"], row["seed"], row["status"]) for row in found] == [
        *(("scl", "", "0", "done"), ("scl", "", "1", "done")),
        *(("hscl", "5", "0", "done"), ("hscl", "5", "1", "done")),
    ]
    ranks = [float(row["geometry/train/effective_rank"]) for row in found]
    assert len(set(ranks)) == 4, "seeds and objectives differ"
    record = json.loads((cell("hscl-beta=5-seed=1") / "lightning_logs/hscl-beta=5-seed=1/report.json").read_text())
    assert record["history"][-1]["geometry/train/effective_rank"] == ranks[3]
    assert len(record["spectrum"]) == 9
    assert record["settings"]["seed"] == 1
    assert "| hscl | 5 | 2 |" in Path("sweeps/mine/results.md").read_text()
    page = Path("sweeps/mine/report.html").read_text()
    assert 'href="cells/hscl-beta%3D5-seed%3D1/lightning_logs/hscl-beta%3D5-seed%3D1/report.html"' in page
    assert page.count("<img") == len(list(Path("sweeps/mine/figures").glob("*.png"))) == 14

    before = {path: path.read_bytes() for path in Path("sweeps/mine/cells").rglob("*") if path.is_file()}
    nc_sweep.main(["mine.yaml", "--data.batch_size=250"])
    assert capfd.readouterr().out.startswith("4 cells in sweeps/mine, 4 already done\n4 cells: 4 done\n")
    assert {path: path.read_bytes() for path in Path("sweeps/mine/cells").rglob("*") if path.is_file()} == before

    with pytest.raises(SystemExit) as exit_, exit_on_error():
        nc_sweep.main(["mine.yaml", "--data.batch_size=300"])
    assert exit_.value.code == 2
    assert (
        "--output: got 'sweeps/mine/cells/scl-seed=0', which was run with other settings (then "
        "--data.batch_size=250; now --data.batch_size=300), expected a new folder" in capfd.readouterr().err
    )


def test_a_folder_that_cannot_be_made_is_named(capfd):
    Path("taken").touch()
    write(objective="scl.yaml")
    with pytest.raises(SystemExit), exit_on_error():
        nc_sweep.main(["mine.yaml", "--output", "taken/sub"])
    assert "nc-sweep: error: --output: could not write taken/sub/cells/" in (said := capfd.readouterr().err)
    assert said.endswith("cell.json: taken is not a folder; no file was left\n")


@pytest.mark.slow
def test_a_changed_config_is_detected(capfd):
    Path("own.yaml").write_text("trainer: {max_epochs: 1}")
    write(objective="scl.yaml", overlays="own.yaml")
    nc_sweep.main(["mine.yaml"])
    Path("own.yaml").write_text("trainer: {max_epochs: 2}")
    with pytest.raises(SystemExit), exit_on_error():
        nc_sweep.main(["mine.yaml"])
    assert "(own.yaml has changed since)" in capfd.readouterr().err


@pytest.mark.exhaustive
def test_a_failed_cell_is_reported_and_the_others_run(capfd):
    write(objective="hscl.yaml", all={"model.temperature": [-1, 0.5]})
    for _ in range(2):
        with pytest.raises(SystemExit) as exit_, exit_on_error():
            nc_sweep.main(["mine.yaml"])
        assert exit_.value.code == 1
        said = capfd.readouterr().out
        assert "failed: hscl-temperature=-1-seed=0: temperature: got -1" in said
    assert said.startswith("2 cells in sweeps/mine, 1 already done"), "failed cells are retried"
    assert [row["status"] for row in rows()] == ["failed", "done"]
    assert "- `hscl-temperature=-1-seed=0`: failed, temperature: got -1" in Path("sweeps/mine/results.md").read_text()


@pytest.mark.exhaustive
def test_a_killed_cell_resumes_to_the_same_result(capfd):
    killed = {"class_path": "tests.faults.faults.KilledOnce", "init_args": {"step": 13, "file": "was-killed"}}
    write(objective="hscl.yaml", all={"trainer.max_epochs": 4, "trainer.callbacks": killed})
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        nc_sweep.main(["mine.yaml"])
    assert exit_.value.code == 1
    assert "hscl-seed=0: killed by signal 9, see sweeps/mine/cells/hscl-seed=0/log.txt" in capfd.readouterr().out
    assert rows()[0]["status"] == "killed"
    nc_sweep.main(["mine.yaml"])
    nc_sweep.main(["mine.yaml", "--output", "whole"])
    versions = sorted(path.name for path in cell("hscl-seed=0").glob("lightning_logs/*"))
    assert versions == ["hscl-seed=0", "hscl-seed=0-1"], "it has resumed in a new run"
    resumed, whole = (
        torch.load(next(Path(root).rglob(f"{version}/checkpoints/last.ckpt")), weights_only=True)
        for root, version in (("sweeps/mine", "hscl-seed=0-1"), ("whole", "hscl-seed=0"))
    )
    assert resumed["global_step"] == whole["global_step"] == 20
    for key, value in whole["state_dict"].items():
        assert torch.equal(resumed["state_dict"][key], value), key
    history = CellFolder(Path("sweeps/mine"), read_plan("mine.yaml").cells[0]).record().history
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]


@contextmanager
def started(*arguments):
    """Start the command and wait until its first cell trains; kill it and its cells at the end."""
    command = "import sys; from nc_lightning.sweeps.command import main; main(sys.argv[1:])"
    sweep = subprocess.Popen([sys.executable, "-c", command, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 240
        while not list(Path("sweeps/mine").rglob("*.ckpt")):
            assert sweep.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)
        yield sweep
    finally:
        while sweep.poll() is None:
            sweep.send_signal(signal.SIGINT)  # the second one stops immediately
            time.sleep(2)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_resumes(number, code):
    write(objective=["scl.yaml", "hscl.yaml"], all={"trainer.max_epochs": 2000, "geometry.every_n_epochs": 1000})
    with started("mine.yaml") as sweep:
        sweep.send_signal(number)
        said, _ = sweep.communicate(timeout=240)
    assert sweep.returncode == code
    assert "scl-seed=0: stopped\n" in said
    assert "stopped; resume with the same command\n" in said
    assert [row["status"] for row in rows()] == ["stopped", "waiting"], "no further cell is started"
    with CellFolder(Path("sweeps/mine"), read_plan("mine.yaml").cells[0]).locked() as mine:
        assert mine, "no process runs it any more"


@pytest.mark.slow
def test_a_cell_run_by_another_process_is_skipped(capfd):
    write(objective="scl.yaml")
    folder = CellFolder(Path("sweeps/mine"), read_plan("mine.yaml").cells[0])
    folder.claim()
    with (folder.path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(SystemExit) as exit_, exit_on_error():
            nc_sweep.main(["mine.yaml"])
        assert exit_.value.code == 1
        said = capfd.readouterr().out
        assert "scl-seed=0: running in another process\n1 cell: 1 running\n" in said
    assert not folder.log.exists()
    nc_sweep.main(["mine.yaml", "--list"])
    assert capfd.readouterr().out == "waiting scl-seed=0\n"


@pytest.mark.exhaustive
def test_several_processes_can_train_a_cell(capfd):
    write(objective="scl.yaml", overlays="ddp.yaml", all={"data.batch_size": 120})
    nc_sweep.main(["mine.yaml", "--trainer.devices=2", "--trainer.accelerator=cpu"])
    log = (cell("scl-seed=0") / "log.txt").read_text()
    assert "Initializing distributed: GLOBAL_RANK: 1, MEMBER: 2/2" in log


def test_only_rank_0_of_a_cluster_job_records_the_cell(monkeypatch):
    write(objective="scl.yaml")
    folder = CellFolder(Path("sweeps/mine"), read_plan("mine.yaml").cells[0])
    folder.claim()
    seen = []
    monkeypatch.setattr(
        "nc_lightning.sweeps.cell.main", lambda arguments: (seen.append(arguments), os.write(1, b"hi\n"))
    )
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert run_cell(folder) == 0
    assert sorted(path.name for path in folder.path.iterdir()) == ["cell.json", "log-1.txt"]
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert run_cell(folder) == 0
    assert folder.done
    assert seen[0] == seen[1]
    assert f"--trainer.default_root_dir={folder.path}" in seen[0]
    assert folder.log.read_text() == "hi\n"
    assert run_cell(folder) == 0
    assert len(seen) == 2, "finished cells are not repeated"


def test_a_requeued_job_has_not_ended(monkeypatch):
    write(objective="scl.yaml")
    folder = CellFolder(Path("sweeps/mine"), read_plan("mine.yaml").cells[0])
    folder.claim()
    monkeypatch.setattr("nc_lightning.sweeps.cell.main", lambda arguments: sys.exit(-1))
    with pytest.raises(SystemExit):
        run_cell(folder)
    assert folder.ending() is None


def test_the_cells_can_be_listed(capsys):
    write(objective="scl.yaml", seeds=[0, 1])
    nc_sweep.main(["mine.yaml", "--list"])
    assert capsys.readouterr().out == "waiting scl-seed=0\nwaiting scl-seed=1\n"
    assert not Path("sweeps").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["no.yaml"],
            "SWEEP: got 'no.yaml', expected a file that exists or a shipped one (paper/sweeps/balance.yaml, ",
        ),
        (["bad.yaml"], "SWEEP: got ['trainer'] in 'bad.yaml', expected a mapping with only objective"),
        (["mine.yaml", "--jobs=0"], "--jobs: got 0, expected at least 1"),
        (["mine.yaml", "--job=2"], "got '--job=2', expected an option of nc-sweep, or a setting such as"),
        (["mine.yaml", "--dat=2"], "got '--dat=2', expected an option of nc-sweep, or a setting such as"),
        (["mine.yaml", "more"], "got 'more', expected an option"),
        (["lost.yaml"], "--config: got 'nowhere.yaml', expected a file that exists"),
    ],
)
def test_bad_input_prints_one_line_and_exits_with_code_2(arguments, message, refusal):
    write(objective="scl.yaml")
    Path("bad.yaml").write_text("trainer: {}")
    Path("lost.yaml").write_text("objective: nowhere.yaml")
    assert refusal(nc_sweep.main, arguments).startswith(f"nc-sweep: error: {message}")
    assert not list(Path().rglob("log.txt"))


def test_options_of_nc_train_may_be_separated_from_their_value(capsys):
    write(objective="scl.yaml")
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(nc_sweep, "run_locally", lambda folders, jobs, ended: seen.extend(folders) or 0)
        with pytest.raises(SystemExit), exit_on_error():
            nc_sweep.main(["mine.yaml", "--model.temperature", "0.5", "--trainer.max_epochs=1", "--data", "a.Module"])
    assert seen[0].cell.arguments[-3:] == ["--model.temperature=0.5", "--trainer.max_epochs=1", "--data=a.Module"]


STAND_INS = {
    "srun": '#!/bin/bash\nwhile [[ $1 != *python* ]]; do shift; done\nexec "$@"\n',
    "sbatch": """#!/bin/bash
count=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$1")
for task in $(seq 0 $count); do
  SLURM_JOB_ID=7$task SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$task bash "$1" > sbatch-$task.txt 2>&1 &
done
echo "Submitted batch job 7"
""",
    "sacct": "#!/bin/bash\necho 'JobID|State|NodeList'\n",
}


@pytest.mark.slow
def test_a_sweep_is_submitted_as_a_job_array(in_tmp, monkeypatch, capfd):
    """The commands of SLURM are mocked and run the jobs immediately."""
    for name, text in STAND_INS.items():
        (in_tmp / name).write_text(text)
        (in_tmp / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{in_tmp}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("nc_lightning.sweeps.slurm._ASK_EVERY", 0.5)
    write(
        objective="scl.yaml", all={"model.temperature": [0.5, -1]}, cluster={"timeout_min": 5, "slurm_partition": "x"}
    )
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        nc_sweep.main(["mine.yaml", "--submit"])
    assert exit_.value.code == 1
    said = capfd.readouterr().out
    assert "submitted 2 jobs, the first one 7_0; Ctrl-C leaves them running\n" in said
    assert "2 cells: 1 done, 1 failed\n" in said
    scripts = [path.read_text() for path in Path("sweeps/mine/submitit").glob("*.sh")]
    (script,) = {text for text in scripts if "#SBATCH --array=0-1" in text}
    assert "#SBATCH --partition=x\n" in script
    assert "#SBATCH --time=5\n" in script


@pytest.mark.parametrize(
    ("cluster", "message"),
    [({}, "--submit: got a machine without SLURM"), ({"pets": 3}, "cluster: ")],
)
def test_unsupported_cluster_options_are_refused(cluster, message, in_tmp, monkeypatch, refusal):
    if cluster:
        (in_tmp / "srun").touch(mode=0o755)
        monkeypatch.setenv("PATH", f"{in_tmp}{os.pathsep}{os.environ['PATH']}")
    write(objective="scl.yaml", cluster=cluster)
    assert refusal(nc_sweep.main, ["mine.yaml", "--submit"]).startswith(f"nc-sweep: error: {message}")


def test_a_missing_submitit_is_reported(monkeypatch, refusal):
    monkeypatch.setitem(sys.modules, "submitit", None)
    write(objective="scl.yaml")
    assert "pip install 'nc-lightning[slurm]'" in refusal(nc_sweep.main, ["mine.yaml", "--submit"])
