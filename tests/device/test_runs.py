"""``nc-train`` on the pretend device, with every shipped config: it trains, evaluates, predicts and resumes."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from on_processes import on_processes
from pretend_device import Machine
from pretend_run import BACKEND, as_process
from test_cli import CONFIGS, complete

from nc_lightning.cli import main

WAITS = {
    ("item", "losses/layout.py sorted_layout"): 1,  # number of pairs
    ("item", "callbacks/nonfinite_guard.py _all_finite"): 1,
    ("item", "callbacks/hard_negative_sampler.py on_train_batch_end"): 1,  # adaptive.yaml alone: the fraction reached
}
"""What a step waits for, and how often."""
NOT_YET = ("losses/", "data/")
"""Parts of the package that wait more often than this list says."""
SHORT = {
    "accelerator": {"class_path": "pretend_run.PretendAccelerator"},
    "max_epochs": 1,
    "limit_train_batches": 2,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "num_sanity_val_steps": 0,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
MARKS = [{"class_path": "pretend_run.Begin"}, {"class_path": "pretend_run.End"}]


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    images, labels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 10
    np.savez("small.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)


def settings(strategy, devices):
    """Write a config that puts a run on pretend devices, and marks where a step begins and ends."""
    trainer = {**SHORT, "strategy": {"class_path": f"pretend_run.{strategy}"}, "devices": devices}
    Path("device.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    Path("marked.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": MARKS}}))


def on_hscl(config):
    """The command line that makes a config complete: an overlay is laid on HSCL."""
    configs = next(line for line in complete(config) if line[1] in (config, "hscl.yaml"))
    small = ["--data.batch_size=20"] if "--data.path=small.npz" in configs else []
    return [*configs, "--config", "device.yaml", "--config", "marked.yaml", *small]


def runs(configs, *commands):
    """Train, do what else there is to do, and resume; return the machine of the first training, and its steps."""
    with Machine() as machine:
        first = main(["fit", *configs])
    with Machine():
        for command in commands:
            cli = main([command, *configs, "--ckpt_path=last"])
            if command == "predict":
                assert np.isfinite(np.load(Path(cli.trainer.log_dir) / "predictions.npz")["features"]).all()
        resumed = main(["fit", *configs, "--ckpt_path=last", "--trainer.max_epochs=2"])
    assert (first.trainer.global_step, resumed.trainer.global_step) == (2, 4)
    assert np.isfinite(float(first.trainer.callback_metrics["loss/train"]))
    return machine, first.trainer.global_step


def check_waits(machine, steps):
    # What is not of the package, and what Lightning does for it, is on behalf of cli.py, which starts it all.
    waits = {k: n / steps for k, n in machine.waits_in("step").items() if not k[1].startswith(("cli.py", *NOT_YET))}
    assert waits
    assert not {key: n for key, n in waits.items() if n > WAITS.get(key, 0)}


@pytest.mark.parametrize("config", CONFIGS)
def test_every_config_trains_and_resumes(config, request):
    if config == "bolts.yaml":
        request.getfixturevalue("bolts")
    settings("PretendSingleDevice", 1)
    machine, steps = runs(on_hscl(config))
    if config != "bolts.yaml":  # whose evaluator reads its figures in every step
        check_waits(machine, steps)


EVALUATE = ("validate", "test", "predict")


@pytest.mark.parametrize(
    "config",
    [c if c in ("hscl.yaml", "hucl.yaml") else pytest.param(c, marks=pytest.mark.slow) for c in CONFIGS],
)
def test_every_config_is_evaluated(config, request):
    if config == "bolts.yaml":
        request.getfixturevalue("bolts")
    settings("PretendSingleDevice", 1)
    runs(on_hscl(config), *EVALUATE)


def _in_two(rank, folder):
    os.chdir(folder)
    as_process()
    configs = ["--config", "hscl.yaml", "--config", "ddp.yaml", "--config", "adaptive.yaml", "--config", "device.yaml"]
    runs([*configs, "--config", "marked.yaml", "--data.batch_size=50"], *EVALUATE)


def test_on_two_processes(gloo):
    settings("PretendDDP", 2)
    on_processes(2, _in_two, os.getcwd(), backend=BACKEND)
    assert len(list(Path().rglob("last.ckpt"))) == 2
