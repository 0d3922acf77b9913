"""Package structure: small modules, no cycles, a core without Lightning; the import contracts are in pyproject."""

import ast
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


def test_every_module_has_a_docstring_and_stays_small():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert ast.get_docstring(ast.parse(text)), path
        assert len(text.splitlines()) <= 300, path
