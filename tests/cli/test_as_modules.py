"""The modules of the console scripts also run with ``python -m``."""

import runpy
import sys

import pytest

SCRIPTS = [
    ("nc-train", "nc_lightning.cli.train"),
    ("nc-measure", "nc_lightning.cli.measure"),
    ("nc-report", "nc_lightning.cli.report"),
    ("nc-sweep", "nc_lightning.sweeps.command"),
    ("nc-train", "nc_lightning.cli.commands"),
]
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # this process has imported them


@pytest.mark.parametrize(("name", "module"), [*SCRIPTS, ("nc-train", "nc_lightning")])
def test_a_module_runs_as_a_command(name, module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: {name}")


@pytest.mark.parametrize(("name", "module"), SCRIPTS)
def test_bad_input_has_a_nonzero_exit_code(name, module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "nothing/of/this/name"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"{name}: error: ")
