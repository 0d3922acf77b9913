"""Each console script is a module that ``python -m`` runs as well."""

import re
import runpy
import sys
from pathlib import Path

import pytest

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
SCRIPTS = re.findall(r'^(nc-\w+) = "([\w.]+):console_script"$', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules")  # this process has imported them


def test_the_scripts_are_found():
    assert {name for name, _ in SCRIPTS} == {"nc-train", "nc-measure", "nc-report", "nc-sweep"}


@pytest.mark.parametrize(("name", "module"), [*SCRIPTS, ("nc-train", "nc_lightning")])
def test_a_module_runs_as_a_command(name, module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out.lower().startswith("usage:")


@pytest.mark.parametrize(("name", "module"), SCRIPTS)
def test_bad_input_is_no_success(name, module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "nothing/of/this/name"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(module, run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"{name}: error: ")
