"""What README and examples show must run."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from nc_lightning.callbacks import HardNegativeSampler, OnlineLinearProbe
from nc_lightning.cli import main, shipped_configs
from nc_lightning.cli import measure as nc_measure
from nc_lightning.cli import report as nc_report
from nc_lightning.sweeps import command as nc_sweep

QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]


@pytest.fixture
def readme(repository):
    return (repository / "README.md").read_text()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands_of(text, program):
    """The arguments of each command line of a program."""
    lines = [shlex.split(line) for block in blocks(text, "bash") for line in block.splitlines()]
    return [line[1:] for line in lines if line[0] == program]


def test_python_examples(readme, in_tmp, capsys):
    examples = blocks(readme, "python")
    assert len(examples) == 6
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
        assert capsys.readouterr().out


@pytest.mark.slow
def test_commands(readme, in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    measuring, reporting = commands_of(readme, "nc-measure"), commands_of(readme, "nc-report")
    commands = commands_of(readme, "nc-train")
    assert (len(commands), len(measuring), len(reporting)) == (18, 2, 2)
    images, labels = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8), np.arange(200) % 10
    np.savez("mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for split in ("train", "test"):
        for index in range(100):
            folder = in_tmp / "mine" / split / str(index % 10)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(folder / f"{index}.png")
    run = main([*commands[0], *QUICK]).trainer.log_dir
    for command in commands[1:]:
        if "bolts.yaml" in command:
            continue
        here = ["--data.batch_size=20"] if "mine" in command else []  # here the tree has few images
        if "ddp.yaml" in command:  # for two processes, see test_cli_on_processes.py
            here += ["--trainer.devices=1", "--data.batch_size=250"]
        main([argument.replace("RUN", run) for argument in command] + QUICK + here)
    for command in reporting:
        nc_report.main([argument.replace("RUN", run) for argument in command])
    assert (in_tmp / "comparison.html").is_file()
    (predictions,) = in_tmp.rglob("predictions.npz")
    predictions.rename(in_tmp / "predictions.npz")
    for command in measuring:
        nc_measure.main(command)
    assert (in_tmp / "geometry.png").is_file()


@pytest.mark.bolts
@pytest.mark.slow
def test_the_command_of_bolts(readme, in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    (command,) = (command for command in commands_of(readme, "nc-train") if "bolts.yaml" in command)
    main(command + QUICK)


@pytest.mark.slow
def test_settings_of_one_s_own(readme, in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    configs = [text for text in blocks(readme, "yaml") if text.startswith("trainer:")]
    assert len(configs) == 3
    callbacks = []
    for config in configs:
        (in_tmp / "mine.yaml").write_text(config)
        cli = main(["fit", "--config=hscl.yaml", "--config=mine.yaml", "--trainer.fast_dev_run=2"])
        callbacks += cli.trainer.callbacks
    samplers = [callback for callback in callbacks if isinstance(callback, HardNegativeSampler)]
    assert [sampler.schedule for sampler in samplers] == ["linear", "constant", "constant"]
    assert [sampler.queue is not None for sampler in samplers] == [False, True, False]
    assert sum(isinstance(callback, OnlineLinearProbe) for callback in callbacks) == 3  # one each


def test_sweeps(readme, in_tmp, capsys):
    (plan,) = (text for text in blocks(readme, "yaml") if not text.startswith("trainer:"))
    (in_tmp / "mine.yaml").write_text(plan)
    commands = commands_of(readme, "nc-sweep")
    assert len(commands) == 2
    for command, cells in zip([*commands, ["mine.yaml"]], (186, 36, 24), strict=True):
        nc_sweep.main([*command, "--list"])
        assert len(capsys.readouterr().out.splitlines()) == cells


def test_what_it_names_is_there(readme, repository):
    makefile = (repository / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", readme)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    names = {name.rpartition("/")[2] for name in shipped_configs()}
    assert set(re.findall(r"\b([a-z_]+\.yaml)", readme)) <= names | {"config.yaml"}
    for name in set(re.findall(r"python -m benchmarks\.(\w+)", readme)):
        assert (repository / "benchmarks" / f"{name}.py").is_file(), name
    for path in set(re.findall(r"\b(?:examples|benchmarks|docs)/\w+\.(?:py|sh|md)", readme)):
        assert (repository / path).is_file(), path


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


@pytest.mark.some(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "said"),
    [
        ("loss --rounds 1 --sizes 64", "paper / ours"),
        ("loss_memory --sizes 64", "ours"),
        ("training --rounds 1 --steps 2 --config hscl.yaml", "paper / ours"),
        ("input --rounds 1 --images 1024", "ours is"),
        ("dashboard --rounds 1 --epochs 1 --classes 10", "training with dashboard / without"),
        ("metrics --rounds 1 --samples 2000 --feature_dim 16", "two-pass / ours"),
    ],
)
def test_the_benchmarks_run(repository, benchmark, said):
    name, *arguments = benchmark.split()
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    assert said in subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout


def test_the_benchmark_compares_equal_things():
    from benchmarks.loss import paper_loop
    from nc_lightning.losses import HSCLLoss

    z, labels = torch.randn(60, 8), torch.arange(6).repeat(10)
    ours = HSCLLoss(5.0, include_self=True)(z, labels).item()
    assert paper_loop(z, labels, 5.0).item() == pytest.approx(ours, abs=5e-3)
