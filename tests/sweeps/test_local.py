"""Cells run in processes of their own: what happens in one does not reach the others."""

import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
import yaml

from nc_lightning.sweeps.cell import CellFolder
from nc_lightning.sweeps.local import SERVER_IMPORTS, run_locally
from nc_lightning.sweeps.plan import Cell, read_plan


class Acting(CellFolder):
    """Acts in the process of the cell, which asks it whether it is done."""

    def __init__(self, name, act):
        super().__init__(Path(), Cell(name, {}, []))
        self.act = act

    @property
    def done(self):
        self.act()
        return True


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def fail():
    raise RuntimeError("this cell has a bug")


def leave_traces():
    os.environ["LEFT_BEHIND"] = "1"
    os.environ.pop("GIVEN")
    torch.manual_seed(99)
    torch.set_num_threads(1)
    os.chdir("/")


def report():
    found = {
        "left behind": os.environ.get("LEFT_BEHIND"),
        "given": os.environ.get("GIVEN"),
        "seed": torch.initial_seed() == 99,
        "folder": os.getcwd(),
        "threads": torch.get_num_threads(),
        "GPU in use": torch.cuda.is_initialized(),
    }
    Path(f"{os.getpid()}.json").write_text(json.dumps(found))


def run(*cells):
    ended = {}
    assert run_locally(cells, 1, lambda folder, code: ended.update({folder.cell.name: code})) == 0
    return ended


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_cell_neither_ends_nor_changes_the_others(in_tmp, monkeypatch):
    assert run(Acting("warm", report)) == {"warm": 0}
    monkeypatch.setenv("GIVEN", "after the server has started")
    acts = {"killed": kill, "failed": fail, "left": leave_traces, "first": report, "second": report}
    assert run(*(Acting(name, act) for name, act in acts.items())) == {
        **{"killed": -signal.SIGKILL, "failed": 1},
        **{"left": 0, "first": 0, "second": 0},
    }
    found = sorted((int(path.stem), json.loads(path.read_text())) for path in Path().glob("*.json"))
    assert len(found) == 3, "a process for each cell"
    expected = {"left behind": None, "given": None, "seed": False, "folder": str(in_tmp), "GPU in use": False}
    expected["threads"] = torch.get_num_threads()
    assert found[0][1] == expected
    assert found[1][1] == found[2][1] == {**expected, "given": "after the server has started"}


def sleep():
    time.sleep(20)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_cell_starts_reaches_it(number, in_tmp, monkeypatch):
    start = BaseProcess.start
    monkeypatch.setattr(BaseProcess, "start", lambda self: (start(self), signal.raise_signal(number)))
    ended = {}
    cells = [Acting("first", sleep), Acting("second", sleep)]
    assert run_locally(cells, 1, lambda folder, code: ended.update({folder.cell.name: code})) == number
    assert ended.keys() == {"first"}
    assert ended["first"] != 0, "it came to its end"


def test_a_signal_that_ends_the_starting_server_stops_the_sweep(in_tmp, monkeypatch):
    def start(self):
        signal.raise_signal(signal.SIGINT)
        raise EOFError

    monkeypatch.setattr(BaseProcess, "start", start)
    assert run_locally([Acting("first", sleep), Acting("second", sleep)], 1, lambda *_: None) == signal.SIGINT


@pytest.mark.parametrize("name", SERVER_IMPORTS)
def test_the_server_finds_what_it_is_to_import(name):
    """It would silently leave out a module that it does not find."""
    importlib.import_module(name)


@pytest.mark.parametrize(("platform", "method"), [("linux", "forkserver"), ("darwin", "spawn"), ("win32", "spawn")])
def test_processes_start_by_themselves_where_forks_are_not_safe(platform, method, monkeypatch):
    asked, get_context = [], multiprocessing.get_context
    monkeypatch.setattr(multiprocessing, "get_context", lambda name: asked.append(name) or get_context(name))
    monkeypatch.setattr(sys, "platform", platform)
    assert run() == {}
    assert asked == [method]


SCRIPT = "from nc_lightning.cli.commands import nc_{0}\nif __name__ == '__main__':\n    nc_{0}()\n"
MINE = "from nc_lightning.encoders import MLP\n\n\nclass Mine(MLP):\n    pass\n"


@pytest.mark.slow
def test_a_cell_trains_as_nc_train_does_to_the_last_digit_also_with_classes_of_this_folder(in_tmp, repository):
    """As console scripts, so that Python itself does not search this folder."""
    (in_tmp / "bin").mkdir()
    for command in ("train", "sweep"):
        (in_tmp / "bin" / f"{command}.py").write_text(SCRIPT.format(command))
    (in_tmp / "mine.py").write_text(MINE)
    settings = {"trainer.max_epochs": 2, "model.encoder": "mine.Mine", "geometry.every_n_epochs": 1}
    (in_tmp / "plan.yaml").write_text(yaml.safe_dump({"objective": "hscl.yaml", "seeds": [3], "all": settings}))
    alone = ["fit", *read_plan("plan.yaml").cells[0].arguments, "--name=alone"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    for arguments in (["bin/train.py", *alone], ["bin/sweep.py", "plan.yaml", "--output=swept"]):
        subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
    files = [next(Path(folder).rglob("last.ckpt")) for folder in ("lightning_logs/alone", "swept")]
    cold, warm = (torch.load(file, weights_only=True) for file in files)
    assert all(torch.equal(warm["state_dict"][key], value) for key, value in cold["state_dict"].items())
    cold, warm = (json.loads((file.parents[1] / "report.json").read_text())["history"] for file in files)
    assert cold == warm
    assert len(cold) == 2
