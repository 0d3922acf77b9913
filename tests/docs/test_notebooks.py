"""The tutorials open in Colab as they are: installed by the first cell, without outputs, and they run."""

import json
import re

import pytest

TUTORIALS = ["hscl-on-digits", "drop-in-your-pipeline", "measure-any-features", "dimensional-collapse", "sweeps"]


@pytest.fixture
def path(repository, name):
    return repository / "docs" / "tutorials" / f"{name}.ipynb"


@pytest.fixture
def cells(path):
    return json.loads(path.read_text())["cells"]


@pytest.mark.parametrize("name", TUTORIALS)
def test_without_outputs(cells):
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 3
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.parametrize("name", TUTORIALS)
def test_first_cell_installs_only_where_the_package_is_missing(cells):
    first, second = ("".join(cell["source"]) for cell in cells[:2])
    assert re.search(
        r'^if find_spec\("nc_lightning"\) is None:\n    %pip install -q nc-lightning$', first, re.MULTILINE
    )
    assert second.startswith("# "), "then the title"


def test_every_notebook_is_tested(repository):
    found = {path.stem for path in (repository / "docs" / "tutorials").glob("*.ipynb")}
    assert found == set(TUTORIALS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["measure-any-features"])  # test_site.py runs all, as `make docs` does
def test_runs_and_draws(path, repository, in_tmp, monkeypatch):
    import nbclient
    import nbformat

    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(in_tmp)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in outputs)
