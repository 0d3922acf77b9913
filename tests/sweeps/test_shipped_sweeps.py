import re
import sys
from pathlib import Path

import pytest
import torch

from nc_lightning import HSCL
from nc_lightning.cli import find_config, main, shipped_configs
from nc_lightning.encoders import MLP
from nc_lightning.sweeps.plan import read_plan

SWEEPS = [name for name in shipped_configs() if name.startswith("paper/sweeps/")]
OF_CIFAR = {f"--config=paper/{name}.yaml" for name in ("official", "natural")}
OF_CIFAR |= {"--data=nc_lightning.data.CIFAR100DataModule"}
"""Sweeps that are only parsed, because tests download nothing."""


def one_of_each_kind(name):
    """Return one cell for each set of configs and option names, not for each value."""
    kinds = {}
    for cell in read_plan(find_config(name)).cells:
        kind = tuple(a if a.startswith("--config") else a.partition("=")[0] for a in cell.arguments)
        kinds.setdefault(kind, cell)
    return list(kinds.values())


def parameters():
    for name in SWEEPS:
        for cell in one_of_each_kind(name):
            yield pytest.param(cell.arguments, id=f"{name.removeprefix('paper/sweeps/')}-{cell.name}")


@pytest.fixture
def start(in_tmp):
    """Write the checkpoints that initialization.yaml starts from."""
    module = HSCL(encoder=MLP((1, 8, 16), [512, 512]), num_classes=100)
    folder = in_tmp / "sweeps/digit_pairs/cells/hscl-normalization=unit_ball-batches=balanced-beta=10-seed=0"
    folder.mkdir(parents=True)
    torch.save({"state_dict": module.state_dict(), "objective": "HSCL"}, folder / "last.ckpt")


def test_each_experiment_of_the_paper_has_a_sweep():
    names = {name.removeprefix("paper/sweeps/").removesuffix(".yaml") for name in SWEEPS}
    effects = {"balance", "initialization", "eta", "psi", "batch_size", "batch_size_epochs", "views", "imbalance"}
    effects |= {"detached", "detached_cifar100", "temperature"}
    effects |= {"natural", "natural_float32", "natural_cifar100", "natural_cifar100_views"}
    assert names == effects | {"digit_pairs", "cifar100_mlp", "official", "official_views"}


@pytest.mark.parametrize("name", SWEEPS)
def test_each_sweep_has_the_documented_number_of_cells(name):
    path = Path(find_config(name))
    said = re.search(r": (\d+) cells", path.read_text().partition("\n")[0])
    assert len(read_plan(path).cells) == int(said[1])


def test_the_cells_that_initialization_starts_from_are_in_the_grid():
    (checkpoint,) = {
        re.search(r"sweeps/digit_pairs/cells/([^\"]+)", " ".join(cell.arguments))[1]
        for cell in read_plan(find_config("paper/sweeps/initialization.yaml")).cells
        if cell.settings["seed"] == 1
    }
    assert checkpoint in {cell.name for cell in read_plan(find_config("paper/sweeps/digit_pairs.yaml")).cells}


@pytest.mark.some(10)
@pytest.mark.slow
@pytest.mark.parametrize("arguments", list(parameters()))
def test_the_cells_of_each_sweep_run(arguments, start, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    if OF_CIFAR & set(arguments):
        assert main(["fit", *arguments, "--print_config"]) is None
        assert "class_path: nc_lightning.data." in capsys.readouterr().out
    else:
        assert main(["fit", *arguments, "--trainer.fast_dev_run=2"]).trainer.global_step == 2
