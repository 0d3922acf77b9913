"""last.ckpt is the last state of training, and the checkpoint in the summary gives the values of the table."""

import re
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.plugins.io import AsyncCheckpointIO

from nc_lightning import HSCL
from nc_lightning.callbacks import GracefulStop, RunCheckpoint
from nc_lightning.callbacks.fault_tolerance.graceful_stop import Interrupted
from nc_lightning.cli import main
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.io.checkpoints import AtomicCheckpointIO
from tests.on_processes import on_processes

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
WORSE = {"monitor": "loss/val", "mode": "max"}
"""A monitored value that makes the first epoch the best."""


def fit(folder, saving, *callbacks, ckpt_path=None, **options):
    checkpoint = RunCheckpoint(folder, **{"save_last": "link"} | saving)
    options = {"max_epochs": 3, "limit_train_batches": 4, "limit_val_batches": 2, "num_sanity_val_steps": 0} | options
    trainer = Trainer(callbacks=[*callbacks, checkpoint], default_root_dir=folder, **QUIET, **options)
    model = HSCL(encoder=MLP((32,)), num_classes=10)
    trainer.fit(model, LatentClassDataModule(batch_size=80), ckpt_path=ckpt_path)
    return trainer, model, checkpoint


def is_last(trainer, model, path):
    saved = torch.load(path, weights_only=True)
    own = model.state_dict()
    assert saved["global_step"] == trainer.global_step
    assert all(torch.equal(saved["state_dict"][key], own[key]) for key in own)
    return saved


SAVING = {
    "default": {},
    "monitor": WORSE,
    "two best": {**WORSE, "save_top_k": 2},
    "all": {"save_top_k": -1},
    "none": {"save_top_k": 0},
    "every 2 epochs": {"every_n_epochs": 2},
    "never by epochs": {"every_n_epochs": 0},
    "every 5 steps": {"every_n_train_steps": 5},
    "every step, monitored": {**WORSE, "every_n_train_steps": 1},
    "every hour": {"train_time_interval": timedelta(hours=1)},
    "all the time": {"train_time_interval": timedelta(0)},
    "after validation": {"save_on_train_epoch_end": False},
    "monitor after validation": {**WORSE, "save_on_train_epoch_end": False},
    "a copy": {**WORSE, "save_last": True},
    "weights": {**WORSE, "save_weights_only": True},
    "name": {**WORSE, "filename": "{epoch}-{loss/val:.2f}"},
}
TRAINING = {
    "max_steps in mid-epoch": {"max_epochs": -1, "max_steps": 6},
    "10 ms": {"max_time": timedelta(milliseconds=10)},
    "validation every 2 epochs": {"check_val_every_n_epoch": 2},
    "validation in mid-epoch": {"val_check_interval": 2, "max_steps": 7},
    "no validation": {"limit_val_batches": 0},
    "accumulated": {"accumulate_grad_batches": 3},
}


@pytest.mark.parametrize("saving", SAVING)
def test_last_ckpt_is_the_last_state_with_every_checkpoint_option(tmp_path, saving):
    trainer, model, checkpoint = fit(tmp_path, SAVING[saving])
    is_last(trainer, model, tmp_path / "last.ckpt")
    assert Path(checkpoint.last_model_path) == tmp_path / "last.ckpt"
    if checkpoint.best_model_path and checkpoint.monitor and "every_n_train_steps" not in SAVING[saving]:
        best = torch.load(checkpoint.best_model_path, weights_only=True)
        assert best["global_step"] == 4, "the best checkpoint is that of the first epoch, under its own name"
    assert all(path.parent == tmp_path for path in tmp_path.rglob("*")), "file names contain no slashes"


@pytest.mark.parametrize("saving", ["default", "monitor", "every 5 steps"])
@pytest.mark.parametrize("options", TRAINING)
def test_last_ckpt_is_the_last_state_however_training_ends(tmp_path, options, saving):
    saving = SAVING[saving] if options != "no validation" or saving != "monitor" else {"monitor": "loss/train"}
    trainer, model, _ = fit(tmp_path, saving, **TRAINING[options])
    is_last(trainer, model, tmp_path / "last.ckpt")


class Stop(Callback):
    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.global_step == 6


@pytest.mark.parametrize(
    "stop", [Stop(), EarlyStopping("loss/val", mode="max", patience=1)], ids=["in mid-epoch", "early"]
)
def test_last_ckpt_is_the_last_state_of_a_stopped_training(tmp_path, stop):
    trainer, model, _ = fit(tmp_path, WORSE, stop, max_epochs=9)
    assert trainer.current_epoch < 9
    is_last(trainer, model, tmp_path / "last.ckpt")


class Signal(Callback):
    def __init__(self, stop, step):
        self.stop, self.step = stop, step

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.seen = trainer, pl_module
        if trainer.global_step == self.step:
            self.stop._signal = 15


@pytest.mark.parametrize("step", [6, 8], ids=["in mid-epoch", "at its end"])
def test_last_ckpt_is_the_checkpoint_that_an_interruption_saved(tmp_path, step):
    stop = GracefulStop()
    signal = Signal(stop, step)
    with pytest.raises(Interrupted):
        fit(tmp_path, WORSE, signal, stop)
    is_last(*signal.seen, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").resolve().name == f"interrupted-epoch=1-step={step}.ckpt"


def test_saving_does_not_write_through_the_link_to_the_best_checkpoint(tmp_path):
    _, _, checkpoint = fit(tmp_path, WORSE)
    assert torch.load(checkpoint.best_model_path, weights_only=True)["epoch"] == 0
    assert not (tmp_path / "last.ckpt").is_symlink()


def test_another_run_in_the_same_folder_has_its_own_last_ckpt(tmp_path):
    fit(tmp_path, WORSE)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    trainer, model, checkpoint = fit(tmp_path, WORSE, max_epochs=2)
    assert all(path.read_bytes() == content for path, content in before.items())
    assert Path(checkpoint.last_model_path).name == "last-v1.ckpt"
    is_last(trainer, model, checkpoint.last_model_path)


def test_a_run_resumed_in_the_same_folder_keeps_its_last_ckpt(tmp_path):
    fit(tmp_path, WORSE)
    trainer, model, checkpoint = fit(tmp_path, WORSE, max_epochs=4, ckpt_path=tmp_path / "last.ckpt")
    assert trainer.current_epoch == 4
    assert Path(checkpoint.last_model_path).name == "last.ckpt"
    is_last(trainer, model, tmp_path / "last.ckpt")


def test_there_is_no_last_ckpt_if_it_is_off_or_in_a_dry_run(tmp_path):
    fit(tmp_path, {"save_last": None})
    assert [path.name for path in tmp_path.iterdir()] == ["epoch=2-step=12.ckpt"]
    fit(tmp_path / "dry", {}, fast_dev_run=True)
    assert not (tmp_path / "dry").exists()


def _in_two(rank, folder):
    trainer, model, _ = fit(folder, {**WORSE, "every_n_epochs": 2}, devices=2, strategy="ddp", max_epochs=3)
    is_last(trainer, model, Path(folder) / "last.ckpt")
    return trainer.global_step


def test_two_processes_save_together(gloo, tmp_path):
    assert on_processes(2, _in_two, str(tmp_path)) == [12, 12]


OPTIONS = {
    "default": [],
    "monitor": ["--checkpoint.monitor=loss/val", "--checkpoint.mode=max"],
    "every_n_epochs": ["--checkpoint.every_n_epochs=2"],
    "every_n_train_steps": ["--checkpoint.every_n_train_steps=2"],
    "train_time_interval": ["--checkpoint.train_time_interval=1:0:0"],
    "save_top_k 0": ["--checkpoint.save_top_k=0"],
    "save_top_k -1": ["--checkpoint.save_top_k=-1"],
    "save_last": ["--checkpoint.save_last=true", "--checkpoint.monitor=loss/val", "--checkpoint.mode=max"],
    "save_on_train_epoch_end": ["--checkpoint.save_on_train_epoch_end=false"],
    "save_weights_only": ["--checkpoint.save_weights_only=true"],
    "dirpath": ["--checkpoint.dirpath=mine", "--checkpoint.monitor=loss/train", "--checkpoint.mode=max"],
    "filename": ["--checkpoint.monitor=loss/val", "--checkpoint.mode=max", "--checkpoint.filename={loss/val}"],
    "max_steps": ["--trainer.max_steps=5", "--checkpoint.every_n_epochs=2"],
}


def table(output):
    """The printed values by set and measure, as strings."""
    values = {}
    for line in output.partition("Geometry of")[2].partition("checkpoint: ")[0].splitlines():
        row = line.split()
        if len(row) > 1 and re.match(r"[-\d]", row[1]):
            values["train", row[0]] = row[1]
            if len(row) > 2 and not row[0].startswith("loss/"):
                values["val", row[0]] = row[2]
    return values


@pytest.mark.some(3)
@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_validating_the_printed_checkpoint_repeats_the_printed_table(in_tmp, capsys, option):
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--data.batch_size=500"]
    quiet.append("--geometry.measures=all")
    short = ["--config=hscl.yaml", *quiet, "--probe.optimizer.init_args.lr=0.1", "--trainer.max_epochs=3"]
    main(["fit", *short, *OPTIONS[option]])
    output = capsys.readouterr().out
    before = table(output)
    (checkpoint,) = re.findall(r"^checkpoint: (.*)$", output, re.MULTILINE)
    best = re.findall(r"^best .*: (.*)$", output, re.MULTILINE)
    assert bool(best) == any("monitor" in argument for argument in OPTIONS[option])
    assert checkpoint not in best
    assert all(Path(path).is_file() for path in best)
    cli = main(["validate", *short, f"--ckpt_path={checkpoint}"])
    after = table(capsys.readouterr().out)
    of_callbacks = ("nc3", "nc4") if option == "save_weights_only" else ()  # not in checkpoints saved before validation
    compared = {key for _, key in before if not key.startswith("loss/") and key not in of_callbacks}
    if option != "max_steps":  # where no validation follows the last step
        compared.add("loss/val")
    measured = {key: value for key, value in before.items() if key[1] in compared}
    assert ("train", "nc1") in measured
    assert {key: after[key] for key in measured} == measured
    if option != "save_weights_only":
        main(["validate", *short, "--ckpt_path=last", *(a for a in OPTIONS[option] if "dirpath" in a)])
        again = table(capsys.readouterr().out)
        assert {key: again[key] for key in measured} == measured, "--ckpt_path last is the last state"
    assert cli.config.validate.ckpt_path == checkpoint


@pytest.mark.parametrize("save_last", ["link", True])
def test_asynchronous_checkpoints_end_with_the_last_state(save_last, tmp_path):
    class Slow(AtomicCheckpointIO):
        def save_checkpoint(self, *args, **kwargs):
            time.sleep(0.2)
            super().save_checkpoint(*args, **kwargs)

    folder = tmp_path / "not" / "there"
    trainer, model, checkpoint = fit(folder, {"save_last": save_last}, plugins=[AsyncCheckpointIO(Slow())])
    is_last(trainer, model, checkpoint.last_model_path)


def test_runs_that_fork_from_one_checkpoint_keep_their_last_states(tmp_path):
    fit(tmp_path, {"save_top_k": -1}, max_epochs=2)
    forks = [
        fit(tmp_path, {"save_top_k": -1}, max_epochs=3, ckpt_path=tmp_path / "epoch=1-step=8.ckpt") for _ in range(2)
    ]
    assert [Path(checkpoint.last_model_path).name for _, _, checkpoint in forks] == ["last.ckpt", "last-v1.ckpt"]
    for trainer, model, checkpoint in forks:
        is_last(trainer, model, checkpoint.last_model_path)
    assert not list(tmp_path.glob(".*")), "claims are released"


def test_a_checkpoint_name_is_claimed_before_the_file_exists(tmp_path):
    names = []

    class Other(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 0:
                names.append(Path(fit(tmp_path, {}, max_epochs=1)[2].last_model_path).name)

    names.append(Path(fit(tmp_path, {}, Other())[2].last_model_path).name)
    assert names == ["last-v1.ckpt", "last.ckpt"]


TABLE = [
    *("fit", "--config=hscl.yaml", "--name=table", "--trainer.max_epochs=3", "--trainer.enable_progress_bar=false"),
    *("--model.encoder.hidden_features=[8]", "--data=nc_lightning.data.LatentClassDataModule", "--data.num_classes=4"),
    "--data.batch_size=16",
]


@pytest.mark.parametrize("save_last", ["true", "link"])
def test_the_summary_names_our_last_state_with_any_user_checkpoint_callback(save_last, in_tmp, capsys):
    own = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks.dirpath=mine"]
    own += [f"--trainer.callbacks.save_last={save_last}", "--trainer.callbacks.every_n_epochs=2"]
    main([*TABLE, *own])
    assert "checkpoint: lightning_logs/table/checkpoints/last.ckpt" in capsys.readouterr().out


def test_without_last_ckpt_the_summary_names_the_newest_checkpoint_and_its_step(in_tmp, capsys):
    main([*TABLE, "--checkpoint.save_last=false", "--checkpoint.every_n_train_steps=2"])
    assert re.search(r"checkpoint of step \d+: lightning_logs/table/checkpoints/epoch=", capsys.readouterr().out)
