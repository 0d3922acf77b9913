"""Progress without a terminal: a first line, lines at most every 30 seconds, and one for the last epoch."""

import io
import re

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from rich.console import Console

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.cli import main, progress
from nc_lightning.cli.progress import Bar, EpochLines, progress_callbacks
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import MLP
from tests.on_processes import on_processes

QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def lines_of(capsys, seconds, monitor=1, **options):
    trainer = Trainer(
        callbacks=[GeometryMonitor(monitor), EpochLines(seconds)], enable_model_summary=False, **QUIET, **options
    )
    trainer.fit(HSCL(encoder=MLP((1, 8, 8), [8]), num_classes=10), DigitsDataModule(batch_size=500))
    return trainer, [line for line in capsys.readouterr().out.splitlines() if line.startswith(("training", "epoch"))]


def test_without_waiting_each_epoch_has_a_line_with_its_own_values(capsys):
    trainer, (first, *lines) = lines_of(capsys, 0.0, monitor=2, max_epochs=3)
    assert first == "training: epochs 1 to 3, 2 batches each"
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "NC1" not in lines[0], "not measured yet"
    assert re.fullmatch(
        r"epoch 2/3: loss over bound [\d.]+, NC1 [\d.]+, effective rank [\d.]+, 0:00:\d\d left", lines[1]
    )
    gap, nc1 = (float(trainer.callback_metrics[key]) for key in ("loss/optimality_gap", "geometry/train/nc1"))
    assert f"loss over bound {gap:.5g}" in lines[2]
    assert f"NC1 {nc1:.5g}" in lines[2]
    assert "left" not in lines[2]


def test_a_short_training_has_a_first_line_and_the_last_epoch(capsys):
    _, lines = lines_of(capsys, 30.0, max_epochs=4)
    assert [line.partition(":")[0] for line in lines] == ["training", "epoch 4/4"]


def test_an_older_measurement_is_named_and_the_pace_gives_the_time_left(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    _, (_, *lines) = lines_of(capsys, 30.0, monitor=2, max_steps=12)
    assert any("(epoch 2)" in line for line in lines)
    assert all(" left" in line for line in lines[:-1])


def test_a_terminal_has_a_bar_and_a_pipe_has_lines():
    terminal, pipe = Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO())
    terminal.is_interactive = True
    assert [type(c) for c in progress_callbacks([], terminal)] == [Bar]
    assert [type(c) for c in progress_callbacks([], pipe)] == [EpochLines]
    assert progress_callbacks([TQDMProgressBar()], pipe) == []


@pytest.mark.parametrize(("widgets", "kind"), [(True, Bar), (None, EpochLines)])
def test_a_notebook_has_a_bar_if_it_can_show_widgets(widgets, kind, monkeypatch):
    monkeypatch.setattr(progress, "find_spec", {"ipywidgets": widgets}.get)
    assert [type(c) for c in progress_callbacks([], Console(force_jupyter=True))] == [kind]


@pytest.mark.some(1)
@pytest.mark.parametrize(("option", "lines"), [([], 2), (["--trainer.enable_progress_bar=false"], 0)])
def test_nc_train_in_a_pipe(option, lines, in_tmp, capfd):
    tiny = ["--trainer.max_epochs=1", "--model.encoder.hidden_features=[8]", "--trainer.logger=false"]
    main(["fit", "--config=hscl.yaml", *tiny, *option])
    out, err = capfd.readouterr()
    assert sum(line.startswith(("training: ", "epoch ")) for line in out.splitlines()) == lines
    assert all(line == line.rstrip() for line in out.splitlines()), "no padding"
    for noise in ("v_num", "━", "TPU", "litlogger", "max_epochs"):
        assert noise not in out + err


def _fit(rank):
    trainer = Trainer(max_epochs=2, devices=2, strategy="ddp", callbacks=[GeometryMonitor(), EpochLines(0.0)], **QUIET)
    printed = io.StringIO()
    progress.sys = type("Sys", (), {"stdout": printed})
    trainer.fit(HSCL(encoder=MLP((1, 8, 8), [8]), num_classes=10), DigitsDataModule(batch_size=500))
    return printed.getvalue()


@pytest.mark.slow
def test_only_rank_0_prints_and_the_others_do_not_wait(gloo):
    first, second = on_processes(2, _fit)
    assert first.count("epoch ") == 2
    assert second == ""
