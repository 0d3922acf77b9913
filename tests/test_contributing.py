"""A measure, link, encoder or data set is added by editing one file, as CONTRIBUTING.md says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nc_lightning

PACKAGE = Path(nc_lightning.__file__).parent
ROW = """    Measure("largest_norm", "largest norm of a class mean", lambda stats: stats.means.norm(dim=1).max(),
            ideal=1.0, tolerance=0.01, headline="largest norm", group="The paper's conditions"),
]
MEASURES:"""
LINK = '''
class Half(Link):
    """Half of what InfoNCE is.

    Example:
        >>> Half().mixture([0.0], [1.0]) < InfoNCE().mixture([0.0], [1.0])
        True
    """

    def __call__(self, t: Tensor, log_weights: Tensor, count: Tensor) -> Tensor:
        """Compute psi along the last dimension."""
        return InfoNCE()(t, log_weights, count) / 2
'''
ENCODER = '''"""One layer."""

import math

from torch import nn

from nc_lightning.encoders.base import Encoder


class OneLayer(Encoder):
    """A linear layer."""

    def __init__(self, input_shape: list[int], out_features: int = 12) -> None:
        super().__init__()
        self.layer, self.out_features = nn.Linear(math.prod(input_shape), out_features), out_features

    def forward(self, x):
        """Map inputs to features h."""
        return self.layer(x.flatten(1))
'''
DATA = '''"""Corners."""

import torch

from nc_lightning.data.sources.latent_class import LatentClassDataModule


class Corners(LatentClassDataModule):
    """Three latent classes."""

    def __init__(self, batch_size: int = 30) -> None:
        super().__init__(num_classes=3, input_dim=8, samples_per_class=20, batch_size=batch_size)
'''


@pytest.fixture
def copy(tmp_path, repository):
    """A copy of the package with one part of each kind added."""
    shutil.copytree(PACKAGE, tmp_path / "nc_lightning", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(repository / "configs", tmp_path / "configs")
    measures = tmp_path / "nc_lightning" / "geometry" / "measures.py"
    measures.write_text(measures.read_text().replace("]\nMEASURES:", ROW, 1))
    links = tmp_path / "nc_lightning" / "losses" / "links.py"
    links.write_text(links.read_text() + LINK)
    (tmp_path / "nc_lightning" / "encoders" / "one_layer.py").write_text(ENCODER)
    (tmp_path / "nc_lightning" / "data" / "sources" / "corners.py").write_text(DATA)
    return tmp_path


@pytest.mark.slow
def test_one_file_adds_each_kind_of_part(copy):
    command = [
        *(sys.executable, "-m", "nc_lightning", "fit", "--config", "hscl.yaml", "--trainer.max_epochs=2", "--name=new"),
        *("--model.link=nc_lightning.losses.links.Half", "--model.encoder=nc_lightning.encoders.one_layer.OneLayer"),
        *("--data=nc_lightning.data.sources.corners.Corners", "--data.batch_size=15"),
        *("--trainer.enable_progress_bar=false", "--geometry.every_n_epochs=1"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    row = next(line for line in run.stdout.splitlines() if "largest_norm" in line)
    assert "largest norm" in row
    folder = copy / "lightning_logs" / "new"
    record = json.loads((folder / "report.json").read_text())
    assert {"geometry/train/largest_norm", "geometry/val/largest_norm"} <= set(record["history"][-1])
    assert "Half" in record["settings"]["psi"]
    assert "largest_norm" in (folder / "report.html").read_text()
    events = b"".join(path.read_bytes() for path in folder.glob("events.out.tfevents.*"))
    assert b"largest norm of a class mean, training (ideal 1)" in events, "a chart of the dashboard"


def test_contributing_names_existing_files(repository):
    text = (repository / "CONTRIBUTING.md").read_text()
    for name in re.findall(r"`((?:\w+/)+(?:\w+\.py)?|\w+\.py)`", text):
        assert (PACKAGE / name).exists() or (repository / name).exists(), name
