"""Package structure: small modules, no cycles, a core without Lightning; the import contracts are in pyproject."""

import ast
import random
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import nc_lightning

PACKAGE = Path(nc_lightning.__file__).parent


def module_name(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    """Modules of the package that a file imports at load time."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "nc_lightning":
            for alias in node.names:
                module = PACKAGE.parent.joinpath(*node.module.split("."), f"{alias.name}.py")
                yield f"{node.module}.{alias.name}" if module.exists() else node.module


def test_there_are_no_import_cycles():
    graph = {module_name(path): set(imports(path)) for path in PACKAGE.rglob("*.py")}
    assert graph["nc_lightning.losses.links"] & graph.keys(), "else the test below proves nothing"
    list(TopologicalSorter(graph).static_order())


def loads(module, heavy):
    code = f"import sys, {module}; sys.exit(any(m.split('.')[0] == {heavy!r} for m in sys.modules))"
    return subprocess.run([sys.executable, "-c", code]).returncode == 1


@pytest.mark.exhaustive
def test_the_functional_core_does_not_load_lightning():
    assert not loads("nc_lightning.geometry", "lightning")
    assert not loads("nc_lightning.losses", "lightning")
    assert not loads("nc_lightning.evaluation", "lightning")
    assert not loads("nc_lightning.geometry", "torchmetrics")
    assert not loads("nc_lightning.private_apis.torch", "lightning")
    assert loads("nc_lightning.objectives", "lightning"), "else the test above proves nothing"


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


def test_subpackages_are_loaded_on_first_access_and_keep_the_random_state(monkeypatch):
    def drawing(name):
        random.random()
        return import_module(name)

    monkeypatch.setattr(nc_lightning, "import_module", drawing)
    monkeypatch.delattr(nc_lightning, "runs")
    before = random.getstate()
    assert nc_lightning.runs.load_module is import_module("nc_lightning.runs").load_module
    assert nc_lightning.load is import_module("nc_lightning.runs.loading").load
    assert random.getstate() == before
    with pytest.raises(AttributeError, match="module 'nc_lightning' has no attribute 'run'"):
        _ = nc_lightning.run


def test_completion_lists_what_can_be_loaded_and_loads_nothing():
    code = "import sys, nc_lightning as nc; print(*dir(nc)); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    listed, loaded = run.stdout.splitlines()
    assert {*nc_lightning.__all__, "losses", "metrics", "geometry", "callbacks", "data", "runs"} <= set(listed.split())
    assert loaded == "False"
    assert {"ContrastiveCLI", "main"} <= set(dir(nc_lightning.cli))


def test_every_module_has_a_docstring_and_stays_small():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), path
        assert len(text.splitlines()) <= 300, path
