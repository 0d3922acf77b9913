"""``nc-train`` on the device runs fit, validate, test, predict and a resumed fit with every shipped config."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from nc_lightning.cli import main
from tests.cli.test_train import CONFIGS, complete
from tests.on_processes import on_processes
from tests.pretend_device import Machine
from tests.pretend_run import BACKEND, as_process

WAITS = {
    ("to the CPU", "losses/engines/sorted_batch.py sort_batch"): 1,  # number of pairs, and the windows of the classes
    ("item", "callbacks/fault_tolerance/nonfinite_guard.py _all_finite"): 1,
    ("item", "callbacks/hard_negative_sampler.py on_train_batch_end"): 1,  # adaptive.yaml alone: the fraction reached
}
"""Host waits of a step by cause."""
COMMANDS = ("validate", "test", "predict")
SHORT = {
    "accelerator": {"class_path": "tests.pretend_run.PretendAccelerator"},
    "max_epochs": 1,
    "limit_train_batches": 2,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "num_sanity_val_steps": 0,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
MARKS = [{"class_path": "tests.pretend_run.Begin"}, {"class_path": "tests.pretend_run.End"}]


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 10
    np.savez("small.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)


def settings(strategy, devices):
    """Write a config that runs on pretend devices and marks where a step begins and ends."""
    trainer = {**SHORT, "strategy": {"class_path": f"tests.pretend_run.{strategy}"}, "devices": devices}
    Path("device.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    Path("marked.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": MARKS}}))


def on_hscl(config):
    """Return the command line that completes a config: an overlay is applied to HSCL."""
    configs = next(line for line in complete(config) if line[1] in (config, "hscl.yaml"))
    # Two large batches an epoch: a measurement with fewer operations is faster.
    size = 20 if "--data.path=small.npz" in configs else 4000 if config == "digit_pairs.yaml" else 500
    smaller = [f"--data.batch_size={size}", *(["--model.encoder.depth=18"] if config == "paper/official.yaml" else [])]
    return [*configs, "--config", "device.yaml", "--config", "marked.yaml", *smaller]


def runs(configs, commands=()):
    """Train, run the other commands, and resume; return the machine of the first training and its number of steps.

    Args:
        configs: The config arguments of a complete command line.
        commands: Those of `COMMANDS` that run through ``nc-train``. Parsing all settings takes longer than running
            them, so the others run with the Trainer of the first training, as ``nc-train`` configured it.
    """
    with Machine() as machine:
        first = main(["fit", *configs])
        last = Path(first.trainer.log_dir) / "checkpoints" / "last.ckpt"
    with Machine():
        for command in COMMANDS:
            if command in commands:
                trainer = main([command, *configs, "--ckpt_path=last"]).trainer
            else:
                trainer = first.trainer
                getattr(trainer, command)(first.model, datamodule=first.datamodule, ckpt_path=last)
        assert np.isfinite(np.load(Path(trainer.log_dir) / "predictions.npz")["z"]).all()
        resumed = main(["fit", *configs, "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert (first.trainer.global_step, resumed.trainer.global_step) == (2, 4)
    assert np.isfinite(float(resumed.trainer.callback_metrics["loss/train"]))
    return machine, 2


def check_waits(machine, steps):
    # Code outside the package, including Lightning's, is attributed to cli.py, which starts it all.
    waits = {k: n / steps for k, n in machine.waits_in("step").items() if not k[1].startswith("cli/")}
    assert waits
    assert not {key: n for key, n in waits.items() if n > WAITS.get(key, 0)}


@pytest.mark.some(2)
@pytest.mark.parametrize(
    "config", [pytest.param(name, marks=pytest.mark.bolts) if name == "bolts.yaml" else name for name in CONFIGS]
)
def test_every_config_trains_evaluates_and_resumes(config):
    settings("PretendSingleDevice", 1)
    machine, steps = runs(on_hscl(config), COMMANDS if config in ("hscl.yaml", "adaptive.yaml") else ())
    if config != "bolts.yaml":  # its evaluator reads its metrics in every step
        check_waits(machine, steps)


def _in_two(rank, folder):
    os.chdir(folder)
    as_process()
    configs = ["--config", "hscl.yaml", "--config", "ddp.yaml", "--config", "adaptive.yaml", "--config", "device.yaml"]
    runs([*configs, "--config", "marked.yaml", "--data.batch_size=50"], COMMANDS)


@pytest.mark.exhaustive
def test_configs_run_on_two_processes(gloo):
    settings("PretendDDP", 2)
    on_processes(2, _in_two, os.getcwd(), backend=BACKEND)
    assert len(list(Path().rglob("last.ckpt"))) == 2
