"""The floors of the house: what each part may know of the others."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import nc_lightning

PACKAGE = Path(nc_lightning.__file__).parent
FLOORS = [
    "checks",
    "distributed",
    "batch_norm",
    "batch",
    "geometry",
    "losses",
    "metrics",
    "data",
    "io",
    "encoders",
    "strategies",
    "schedules",
    "optim",
    "plots",
    "reports",
    "callbacks",
    "objectives",
    "integrations",
    "bolts",
    "cli",
    "sweeps",
]
NOT_EVEN_BESIDE = {
    "losses": {"data"},
    "metrics": {"losses"},
    "data": {"losses", "metrics"},
    "encoders": {"losses", "data", "metrics"},
}


def imports(path):
    """Modules of ours that a file imports when it is loaded: those inside functions come later."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("nc_lightning."):
            yield node.module.split(".")[1]


@pytest.mark.parametrize("floor", FLOORS)
def test_a_floor_stands_on_those_below_it(floor):
    files = [PACKAGE / f"{floor}.py"] if (PACKAGE / f"{floor}.py").exists() else sorted((PACKAGE / floor).rglob("*.py"))
    below = set(FLOORS[: FLOORS.index(floor) + 1]) - NOT_EVEN_BESIDE.get(floor, set())
    for path in files:
        assert set(imports(path)) <= below, path


def loads(module, heavy):
    code = f"import sys, {module}; sys.exit(any(m.split('.')[0] == {heavy!r} for m in sys.modules))"
    return subprocess.run([sys.executable, "-c", code]).returncode == 1


@pytest.mark.slow
def test_the_functional_core_does_not_load_lightning():
    assert not loads("nc_lightning.geometry", "lightning")
    assert not loads("nc_lightning.losses", "lightning")
    assert not loads("nc_lightning.geometry", "torchmetrics")
    assert loads("nc_lightning.objectives", "lightning"), "or the test above shows nothing"


CONTRACT = {
    "nc_lightning": "SCL HSCL UCL HUCL",
    "nc_lightning.losses": "SCLLoss HSCLLoss UCLLoss HUCLLoss ContrastiveLoss",
    "nc_lightning.callbacks": "HardNegativeSampler GeometryMonitor TensorBoardDashboard OnlineLinearProbe",
    "nc_lightning.metrics": "NeuralCollapse NC1 NC2 EffectiveRank",
    "nc_lightning.geometry": "ClassStatistics simplex_etf unit_ball unit_sphere effective_rank scl_lower_bound",
    "nc_lightning.data": "DigitsDataModule DigitPairsDataModule LatentClassDataModule ArrayDataModule",
}


@pytest.mark.parametrize("module", CONTRACT)
def test_public_names(module):
    loaded = import_module(module)
    for name in CONTRACT[module].split():
        assert callable(getattr(loaded, name))
        assert name in loaded.__all__
    assert not hasattr(loaded, "SSCL")


def test_every_module_has_a_docstring_and_stays_small():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), path
        assert len(text.splitlines()) <= 300, path
