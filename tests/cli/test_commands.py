"""The console scripts answer ``--help`` quickly and run the command of their name."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import tomllib
import torch

from nc_lightning.cli import main
from nc_lightning.cli.commands import NORMALIZATIONS
from nc_lightning.cli.configs import shipped_configs
from nc_lightning.encoders import MLP, Encoder
from nc_lightning.geometry import Normalization


def scripts(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]["scripts"]


def test_all_four_commands_are_installed(repository):
    for path in scripts(repository).values():
        module, _, function = path.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    assert set(scripts(repository)) == {"nc-train", "nc-measure", "nc-report", "nc-sweep"}


@pytest.mark.parametrize("name", ["nc_train", "nc_measure", "nc_report", "nc_sweep"])
def test_help_loads_nothing_heavy(name):
    code = f"import sys; sys.argv[1:] = ['--help']; from nc_lightning.cli import commands\ntry: commands.{name}()\n"
    code += "except SystemExit: pass\nprint([m for m in ('torch', 'lightning', 'matplotlib') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"usage: {name.replace('_', '-')}")
    assert run.stdout.splitlines()[-1] == "[]"


def test_the_normalizations_of_the_help_are_those_of_geometry():
    assert get_args(Normalization) == NORMALIZATIONS


def test_the_help_of_nc_train_names_the_configs(monkeypatch, capsys):
    from nc_lightning.cli import commands

    monkeypatch.setattr(sys, "argv", ["nc-train", "--help"])
    with pytest.raises(SystemExit):
        commands.nc_train()
    text = capsys.readouterr().out
    assert all(name in text for name in shipped_configs() if "/" not in name)
    assert len(text.splitlines()) < 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SCL", "HSCL", "UCL", "HUCL"])
def test_the_help_of_an_objective_is_readable(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main(["fit", f"--model.help=nc_lightning.{name}"])
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 150
    assert "nc_lightning.encoders.ResNet" in text
    assert "torch.nn.Threshold" not in text
    assert all(f"--model.{option} " in text for option in ("temperature", "encoder", "optimizer", "positives"))


def test_any_module_can_be_an_encoder():
    assert isinstance(torch.nn.Flatten(), Encoder)
    assert issubclass(torch.nn.Linear, Encoder)
    assert not isinstance(3, Encoder)
    assert not isinstance(torch.nn.Flatten(), MLP), "no other class of this name exists"


@pytest.mark.slow
def test_the_script_finds_modules_in_the_working_folder(tmp_path):
    (tmp_path / "mine.py").write_text("from nc_lightning.encoders import MLP\n\n\nclass Mine(MLP):\n    pass\n")
    script = Path(sys.executable).with_name("nc-train")
    command = [script, "fit", "--config=hscl.yaml", "--model.encoder=mine.Mine", "--print_config"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "class_path: mine.Mine" in run.stdout, run.stderr
