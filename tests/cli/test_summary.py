"""The summary of a run names only what exists, even when the run was in other processes."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, RunCheckpoint, TensorBoardDashboard
from nc_lightning.cli.summary import print_summary
from nc_lightning.encoders import MLP
from nc_lightning.io.run_folder import Trainer


@pytest.fixture
def printed(in_tmp, capsys):
    """Return the summary of a fit in other processes; the parent knows only its metrics and its folder."""

    def call(*loggers, metrics=(), files=(), module=None):
        callbacks = [GeometryMonitor(), TensorBoardDashboard(), RunCheckpoint(monitor="loss/val", save_last="link")]
        trainer = Trainer(accelerator="cpu", logger=list(loggers), callbacks=callbacks)
        trainer.run_folder = Path("run")
        for file in files:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            Path(file).touch()
        trainer.state.fn = TrainerFn.FITTING
        trainer.callback_metrics.update({key: torch.tensor(value) for key, value in dict(metrics).items()})
        print_summary(trainer, module or HSCL(encoder=MLP((32,)), num_classes=10))
        return capsys.readouterr().out

    return call


def test_the_summary_leaves_out_missing_values(printed):
    assert printed(TensorBoardLogger("."), CSVLogger(".")) == ""


def test_a_path_with_brackets_is_printed_whole(printed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    logger = TensorBoardLogger("of[seed]", version=0)
    path = "of[seed]/lightning_logs/version_0"
    assert "tensorboard --logdir 'of[seed]/lightning_logs'\n" in printed(
        logger, files=[f"{path}/events.out.tfevents.1"]
    )


def test_a_run_in_spawned_processes_has_a_summary(printed):
    metrics = {"geometry/train/nc1": 0.25, "geometry/val/nc1": 0.5, "loss/val": 0.75}
    files = ["run/checkpoints/last.ckpt", "run/report.html", "tb/lightning_logs/version_0/events.out.tfevents.1"]
    logger = TensorBoardLogger("tb", version=0)
    table, *lines = printed(logger, metrics=metrics, files=files).split("checkpoint: ")
    assert "Geometry of 10 classes in 9 dimensions" in table
    assert next(row for row in table.splitlines() if "nc1" in row).split()[:4] == ["nc1", "0.25", "0.5", "0"]
    rows = {row.split()[0]: row for row in table.splitlines() if row.strip()}
    assert rows["loss/val"].split() == ["loss/val", "0.75"]
    assert rows["loss/val"].index("0.75") > rows["nc1"].index("0.25") + 4, "it stands below val"
    assert lines[0].splitlines() == [
        "run/checkpoints/last.ckpt",
        "report: run/report.html",
        "logs: run",
        "see them: tensorboard --logdir tb/lightning_logs",
    ]


class Own(HSCL):
    """A module whose loss has its minimum at a shifted simplex."""

    optimal_gram = 0.5 * torch.eye(10, dtype=torch.float64) + 0.5


def test_a_loss_with_another_minimum_has_its_ideals_in_the_summary(printed):
    metrics = {"geometry/train/nc1": 0.0, "geometry/train/zero_sum": 0.74, "geometry/train/distance_to_optimum": 0.0}
    module = Own(encoder=MLP((32,)), num_classes=10, feature_dim=10)
    lines = printed(metrics=metrics | {"loss/train": 0.5, "loss/optimality_gap": 0.25}, module=module).splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["zero_sum"][:4] == ["0.74", "0.7416", "0", "yes"]
    assert rows["distance_to_optimum"][:3] == ["0", "0", "yes"]
    assert rows["loss/train"] == ["0.5"]
    assert rows["loss/optimality_gap"][:3] == ["0.25", "0", "loss"]
