"""Constructors show every argument to type checkers, to notebooks and to the command line."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

import nc_lightning
from nc_lightning import data, losses
from nc_lightning.encoders import MLP

OBJECTIVES = [getattr(nc_lightning, name) for name in ("SCL", "HSCL", "UCL", "HUCL")]
DATA = [getattr(data, name) for name in data.__all__ if name.endswith("Module") and not name.startswith("Labeled")]
LOSSES = [getattr(losses, name) for name in ("SCLLoss", "HSCLLoss", "UCLLoss", "HUCLLoss")]


@pytest.mark.parametrize("kind", [*OBJECTIVES, *DATA, *LOSSES])
def test_the_signature_is_what_jsonargparse_finds_in_the_code(kind):
    shown = inspect.signature(kind).parameters
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in shown.values())
    parser = ArgumentParser()
    added = parser.add_class_arguments(kind, "it", fail_untyped=False)
    assert {name.removeprefix("it.") for name in added} == shown.keys()
    found = parser.get_defaults().it
    for name, parameter in shown.items():
        if parameter.default is not inspect.Parameter.empty and not inspect.isclass(parameter.default):
            assert found[name] == parameter.default, name


def test_a_subclass_of_a_user_keeps_its_own_signature():
    class Mine(nc_lightning.HSCL):
        def __init__(self, mine: int = 3, **kwargs):
            super().__init__(**kwargs)

    assert list(inspect.signature(Mine).parameters) == ["mine", "kwargs"]
    model = Mine(encoder=MLP((1, 8, 8)), num_classes=4, beta=2.0)
    assert model.loss.beta == 2.0
    assert not hasattr(model, "__signature__")
    with pytest.raises(TypeError, match="betta"):
        Mine(encoder=MLP((1, 8, 8)), num_classes=4, betta=2.0)


def mypy(repository, path):
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", f"--config-file={repository / 'pyproject.toml'}", str(path)],
        cwd=repository,
        env=os.environ | {"MYPYPATH": str(repository)},
        capture_output=True,
        text=True,
    )
    return run.stdout


@pytest.mark.exhaustive
def test_mypy_refuses_each_wrong_call_and_only_those(repository, tmp_path):
    text = (Path(__file__).parent / "wrong_calls.py").read_text()
    expected = [number for number, line in enumerate(text.splitlines(), 1) if "# type: ignore" in line]
    assert len(expected) == 16
    path = tmp_path / "calls.py"
    path.write_text(re.sub(r"  # type: ignore.*", "", text))
    refused = {int(number) for number in re.findall(r"calls\.py:(\d+): error", mypy(repository, path))}
    assert sorted(refused) == expected
