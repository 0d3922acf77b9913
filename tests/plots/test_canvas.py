"""Figures show themselves in a notebook, also without pyplot and its magic commands."""

import nbformat
import pytest
from nbclient import NotebookClient

from nc_lightning.plots import to_png, trajectory_figure

CELLS = {
    "import matplotlib.figure\nmatplotlib.figure.Figure()": False,  # as matplotlib has it
    "from nc_lightning.plots import trajectory_figure\ntrajectory_figure({'train': [(1.0, 2.0)]}, rank=9)": True,
    """
import torch
from nc_lightning.metrics import NC2
metric = NC2(3, 2)
metric.update(torch.randn(30, 2), torch.arange(30) % 3)
figure, axes = metric.plot()
""": True,
}


@pytest.mark.slow
def test_figures_are_shown_without_a_magic_command(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    pictures = [["image/png" in output.get("data", {}) for output in cell.outputs] for cell in notebook.cells]
    assert [sum(shown) for shown in pictures] == list(CELLS.values()), notebook.cells


def test_a_figure_is_a_picture_for_ipython():
    figure = trajectory_figure({"train": [(1.0, 2.0)]}, rank=9)
    assert figure._repr_png_() == to_png(figure)
