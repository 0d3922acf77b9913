"""The examples and the benchmarks run."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.docs.pages import PAGES, ROOT, commands, commands_of


@pytest.mark.slow
def test_examples_run(in_tmp):
    torch.manual_seed(0)
    from examples import (
        compare_geometry,
        drop_in,
        loss_in_your_classifier,
        plain_pytorch,
        timm_encoder,
        watch_your_module,
    )

    ranks = compare_geometry.main("cosines.png", "--trainer.max_epochs=1", "--data.pairs_per_class=10")
    assert ranks.keys() == {"SCL", "HSCL"}
    assert (in_tmp / "cosines.png").stat().st_size > 5000
    assert drop_in.main(max_epochs=3)["effective_rank"] > 2
    assert plain_pytorch.main(epochs=5)["effective_rank"] > 5
    assert {"nc1", "nc3", "nc4"} <= watch_your_module.main(max_epochs=1).keys()
    assert loss_in_your_classifier.main(max_epochs=2) < loss_in_your_classifier.main(max_epochs=1)
    assert 0.28 < timm_encoder.main(max_epochs=1) < 0.9


def test_three_lines_of_the_classifier_are_new(repository):
    assert (repository / "examples" / "loss_in_your_classifier.py").read_text().count("# new\n") == 3


QUICK = {
    "loss": ("--rounds 1 --sizes 64", "paper / ours"),
    "loss_memory": ("--sizes 64", "ours"),
    "training": ("--rounds 1 --steps 2 --config hscl.yaml", "s a step"),
    "input": ("--rounds 1 --images 1024", "ours is"),
    "sweep": ("--rounds 1 --trainings tiny --cells 1", "nc-sweep / nc-train"),
    "dashboard": ("--rounds 1 --epochs 1 --classes 10", "training with dashboard / without"),
    "metrics": ("--rounds 1 --samples 2000 --feature_dim 16", "two-pass / ours"),
    "scale": ("--rounds 1 --divide 32", "k-NN, k = 20"),
    "many_classes": ("--classes 30 --feature_dim 8", "all of it"),
    "evaluate": ("--rounds 1 --bank 2000 --queries 300 --feature_dim 16", "fastest other / ours"),
}
"""Options that make a benchmark short, and what its output has."""


def documented(name):
    """The arguments with which the documentation runs a benchmark, each once."""
    found = [" ".join(arguments) for page in PAGES for arguments in commands_of(page, f"benchmarks.{name}")]
    return list(dict.fromkeys(found)) or [""]


@pytest.mark.some(1)
@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), [(name, arguments) for name in QUICK for arguments in documented(name)])
def test_the_benchmarks_run(tmp_path, name, arguments):
    short, said = QUICK[name]
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments.split(), *short.split(), "--json", "a/b.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert said in ran.stdout
    result = json.loads((tmp_path / "a" / "b.json").read_text())
    assert result["command"].startswith(f"python -m benchmarks.{name}")
    assert "--json" not in result["command"]
    assert all(row.keys() == result["rows"][0].keys() for row in result["rows"])


def test_every_documented_benchmark_is_run():
    named = {program for page in PAGES for program, *_ in commands(page) if program.startswith("benchmarks.")}
    assert named <= {f"benchmarks.{name}" for name in QUICK}


def test_the_benchmark_compares_equal_things():
    from benchmarks.loss import paper_loop
    from nc_lightning.losses import HSCLLoss

    z, labels = torch.randn(60, 8), torch.arange(6).repeat(10)
    ours = HSCLLoss(5.0, include_self=True)(z, labels).item()
    assert paper_loop(z, labels, 5.0).item() == pytest.approx(ours, abs=5e-3)


def test_a_part_of_a_step_does_not_include_those_that_it_calls(monkeypatch):
    from benchmarks import parts

    now = [0.0]
    monkeypatch.setattr(parts.time, "process_time", lambda: now[0])
    clock, of_training = parts.Clock(), SimpleNamespace(loss=lambda: now.__setitem__(0, now[0] + 4))
    loss = of_training.loss
    clock.time_calls(of_training, "loss", "loss")
    with clock.profile("run_training_batch"), clock.profile("[Strategy]Any.optimizer_step"):
        now[0] += 1
        with clock.profile("[Strategy]Any.training_step"):
            of_training.loss()
            now[0] += 2
        with clock.profile("[Callback]NonFiniteGuard{'mode': 'any.thing'}.on_after_backward"):
            now[0] += 8
        with clock.profile("[LightningModule]HSCL.optimizer_zero_grad"):
            now[0] += 16
    now[0] += 32
    clock.stop(clock.start("run_training_batch"))
    step = "training step without encoder, loss and logging"
    assert clock.seconds == {"optimizer": 17, step: 2, "loss": 4, "NonFiniteGuard": 8, parts.REST: 32}
    clock.restore()
    assert of_training.loss is loss
