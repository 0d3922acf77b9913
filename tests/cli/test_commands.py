"""The console scripts answer ``--help`` quickly and run the command of their name."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tomllib
import torch

from nc_lightning import __version__
from nc_lightning.cli import CommandError, ContrastiveCLI, main
from nc_lightning.cli.commands import NORMALIZATIONS, RUN_COMMANDS
from nc_lightning.cli.configs import shipped_configs
from nc_lightning.cli.parser import SUBCOMMANDS
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


@pytest.mark.parametrize("name", ["nc_train", "nc_measure", "nc_report", "nc_sweep"])
def test_each_command_has_a_version(name, monkeypatch, capsys):
    from nc_lightning.cli import commands

    monkeypatch.setattr(sys, "argv", [name, "--version"])
    with pytest.raises(SystemExit) as ended:
        getattr(commands, name)()
    assert not ended.value.code
    assert capsys.readouterr().out == f"nc-lightning {__version__}\n"


def test_measuring_a_file_does_not_load_lightning(tmp_path):
    labels = np.arange(40) % 4
    np.savez(tmp_path / "file.npz", features=np.random.default_rng(0).normal(size=(40, 8)), labels=labels)
    code = "import sys; from nc_lightning.cli.commands import nc_measure; nc_measure()\n"
    code += "sys.argv.append('--json'); nc_measure()\n"
    code += "print([m for m in ('torch', 'lightning', 'torchmetrics', 'torchvision') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "file.npz"], capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == "['torch']", run.stderr
    assert run.stdout.count("participation_ratio") == 4  # twice, also as feature_participation_ratio


WRONG = {
    "nc-train fitt": "nc-train: error: got 'fitt', expected .*; did you mean fit",
    "nc-train --model.help HSCL": "nc-train: error: got no subcommand, .* such as nc-train fit --model.help HSCL",
    "nc-train": "nc-train: error: got no subcommand",
    "nc-train fit --config hslc.yaml": "nc-train: error: --config: got 'hslc.yaml', .*; did you mean hscl.yaml",
    "nc-train export RUN --format onx": "nc-train export: error: .*; did you mean onnx",
    "nc-measure FILE --jsn": "nc-measure: error: .*--jsn; did you mean --json",
    "nc-measure FILE --js": "nc-measure: error: .*--js; did you mean --json",
    "nc-report RUN --outptu x.html": "nc-report: error: .*; did you mean --output",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_word_is_answered_in_one_line_before_torch_is_loaded(line):
    command, *arguments = line.split()
    code = f"import sys; from nc_lightning.cli import commands\ntry: commands.{command.replace('-', '_')}()\n"
    code += "finally: assert 'torch' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 2
    assert re.fullmatch(WRONG[line] + ".*\n", run.stderr), run.stderr


def test_the_subcommands_are_those_of_the_cli():
    assert set(SUBCOMMANDS) == {*ContrastiveCLI.subcommands(), *RUN_COMMANDS}


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


@pytest.mark.parametrize(
    ("module", "arguments", "text"),
    [
        ("nc_lightning.cli", ["--help"], "usage: nc-train {fit"),
        ("nc_lightning.cli", ["--version"], "nc-lightning "),
        ("nc_lightning.cli", ["evaluate", "--help"], "usage: nc-train evaluate"),
        ("nc_lightning.cli.measure", ["--help"], "usage: nc-measure"),
        ("nc_lightning.cli.report", ["--version"], "nc-lightning "),
    ],
)
def test_help_in_a_notebook_does_not_end_it(module, arguments, text, capsys):
    assert importlib.import_module(module).main(arguments) is None
    assert capsys.readouterr().out.startswith(text)


@pytest.mark.parametrize("command", RUN_COMMANDS)
def test_the_commands_for_runs_start_from_python(command):
    with pytest.raises(CommandError, match="run: got 'no'") as raised:
        main([command, "no", *(["--format=onnx"] if command == "export" else [])])
    assert raised.value.command == f"nc-train {command}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SCL", "HSCL", "UCL", "HUCL"])
def test_the_help_of_an_objective_is_readable(capsys, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    main(["fit", f"--model.help={name}"])
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
