import random
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

import nc_lightning
from nc_lightning import HSCL
from nc_lightning.cli import main
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import MLP
from nc_lightning.io.checkpoints import read_checkpoint
from nc_lightning.runs import find_run, load_data, load_module

SHORT = [
    *("--trainer.max_epochs", "1", "--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "0"),
    *(
        "--trainer.logger",
        "false",
        "--trainer.enable_progress_bar",
        "false",
    ),
    *("--geometry.every_n_epochs", "9", "--trainer.accelerator", "cpu"),
    *("--model.encoder", "nc_lightning.encoders.MLP", "--model.encoder.hidden_features", "[16]"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run of nc-train: its folder and its CLI."""
    root = tmp_path_factory.mktemp("runs")
    cli = main(["fit", "--config", "hscl.yaml", "--name=run", *SHORT, "--trainer.default_root_dir", str(root)])
    return root / "lightning_logs" / "run", cli


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the run, to damage."""
    return Path(shutil.copytree(trained[0], tmp_path / "run", symlinks=True))


def altered(run, change):
    """Change the content of the only checkpoint of a run."""
    path = find_run(run).checkpoint
    checkpoint = read_checkpoint(path)
    change(checkpoint)
    torch.save(checkpoint, path)


def test_module_and_data_of_a_run(trained):
    run, cli = trained
    module, data = nc_lightning.load(run)
    assert type(module) is HSCL
    assert type(data) is DigitsDataModule
    assert not any(part.training for part in module.modules())
    data.setup()
    x, _ = next(iter(data.val_dataloader()))
    with torch.no_grad():
        assert torch.equal(module(x), cli.model.eval()(x))
    assert (data.batch_size, module.class_names) == (250, cli.model.class_names)
    assert module.preprocess.settings() == cli.model.preprocess.settings()


def test_a_checkpoint_file_stands_for_its_run(trained, tmp_path):
    path = find_run(trained[0]).checkpoint
    assert type(nc_lightning.load(path)[1]) is DigitsDataModule
    alone = shutil.copy(path, tmp_path / "mine.ckpt")
    module, data = nc_lightning.load(alone)
    assert data is None
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), load_module(path).parameters(), strict=True))


def test_random_states_and_folders_stay_as_they_are(trained):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    files = sorted(trained[0].parent.rglob("*"))
    nc_lightning.load(trained[0])
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert sorted(trained[0].parent.rglob("*")) == files


DRAWING = """
import random, numpy, torch
from nc_lightning.encoders import MLP

def draw():
    random.random(), numpy.random.rand(), torch.rand(1)

class Drawing(MLP):
    def __init__(self, **settings):
        draw()
        super().__init__(**settings)

draw()
"""


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_stay_although_a_class_draws_numbers(run, tmp_path, monkeypatch, fails):
    monkeypatch.syspath_prepend(tmp_path)
    name = f"drawing_{fails}".lower()
    (tmp_path / f"{name}.py").write_text(DRAWING)
    altered(run, lambda checkpoint: checkpoint["hyper_parameters"]["encoder"].update(class_path=f"{name}.Drawing"))
    if fails:
        altered(run, lambda checkpoint: checkpoint["hyper_parameters"].update(margin=1))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    with pytest.raises(ValueError, match="margin") if fails else nullcontext():
        load_module(run)
    assert name in sys.modules
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


@pytest.mark.exhaustive
def test_the_first_load_of_a_process_keeps_the_random_states(trained):
    code = (
        "import random, sys, nc_lightning\n"
        "before = random.getstate()\n"
        "nc_lightning.load(sys.argv[1])\n"
        "print(random.getstate() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code, trained[0]], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_the_last_of_several_configs_is_used(run):
    text = (run / "config.yaml").read_text()
    for name, size in (("config-2", 20), ("config-10", 100), ("config-mine", 7)):
        (run / f"{name}.yaml").write_text(text.replace("batch_size: 250", f"batch_size: {size}"))
    assert find_run(run).config.name == "config-10.yaml"
    assert load_data(run).batch_size == 100


def test_the_last_whole_checkpoint_is_used(run):
    last = find_run(run).checkpoint
    later = last.with_name("later.ckpt")
    later.write_bytes(last.read_bytes()[:1000])
    assert find_run(run).checkpoint == last


def test_weights_alone_are_enough(run):
    altered(run, lambda checkpoint: [checkpoint.pop(key) for key in ("loops", "optimizer_states", "callbacks")])
    assert type(load_module(run)) is HSCL


def test_averaged_weights_are_those_that_validate_measures(tmp_path):
    average = ["--trainer.callbacks+", "lightning.pytorch.callbacks.EMAWeightAveraging"]
    cli = main(
        [
            "fit",
            "--config",
            "hscl.yaml",
            *SHORT,
            *average,
            "--trainer.max_epochs",
            "2",
            "--trainer.default_root_dir",
            str(tmp_path),
        ]
    )
    checkpoint = read_checkpoint(find_run(tmp_path).checkpoint)
    module, weight = load_module(tmp_path), "encoder.layers.1.weight"
    assert not torch.equal(checkpoint["state_dict"][weight], checkpoint["current_model_state"][weight])
    assert torch.equal(module.state_dict()[weight], checkpoint["state_dict"][weight])
    assert cli.model is not module


def test_data_of_a_checkpoint_that_holds_their_settings(run, tmp_path):
    settings = {"_class_path": "nc_lightning.data.DigitsDataModule", "batch_size": 30}
    altered(run, lambda checkpoint: checkpoint.update(datamodule_hyper_parameters=settings))
    alone = shutil.copy(find_run(run).checkpoint, tmp_path / "mine.ckpt")
    assert load_data(alone).batch_size == 30


def rename_a_weight(checkpoint):
    weights = checkpoint["state_dict"]
    weights["encoder.old"] = weights.pop("encoder.layers.1.weight")
    checkpoint["nc_lightning_version"] = "0.0.1"


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (rename_a_weight, ValueError, r"^run: got '.*' of version 0\.0\.1, whose weights do not fit.*encoder\.layers"),
        (
            lambda checkpoint: checkpoint["hyper_parameters"].update(margin=1),
            ValueError,
            r"^run: got '.*' of version 0\.1\.0, from which nc_lightning\.HSCL cannot be created: .*'margin'",
        ),
        (
            lambda checkpoint: checkpoint["hyper_parameters"]["encoder"].update(class_path="mine.MyEncoder"),
            ImportError,
            r"the class mine\.MyEncoder, which cannot be imported: No module named 'mine'; run Python in the folder",
        ),
        (
            lambda checkpoint: checkpoint["hyper_parameters"]["encoder"].update(class_path="nc_lightning.encoders.No"),
            ImportError,
            r"the class nc_lightning\.encoders\.No, which cannot be imported: module 'nc_lightning.encoders' has no",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit(run, change, kind, message):
    altered(run, change)
    with pytest.raises(kind, match=message) as raised:
        load_module(run)
    assert "\n" not in str(raised.value)


WRONG = {
    "hyper_parameters": (None, 3, [1], "x", [("a", 1)]),
    "datamodule_hyper_parameters": (None, 3, [1]),
    "state_dict": (None, [1], {3: torch.ones(1)}),
    "epoch": (None, [1], "x"),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG.items() for value in values])
def test_a_checkpoint_with_an_entry_of_another_kind_is_damaged(run, tmp_path, key, value):
    path = find_run(run).checkpoint
    torch.save({**read_checkpoint(path), key: value}, alone := tmp_path / "alone.ckpt")
    with pytest.raises(ValueError, match=r"^run: got '.*alone\.ckpt', which is damaged or not a Lightning checkpoint$"):
        nc_lightning.load(alone)


def test_an_encoder_whose_arguments_are_no_mapping(run):
    altered(run, lambda checkpoint: checkpoint["hyper_parameters"]["encoder"].update(init_args=3))
    with pytest.raises(ValueError, match=r"^run: got '.*, from which nc_lightning\.HSCL cannot be created: 'int'"):
        load_module(run)


def test_no_such_run_no_checkpoint_and_only_damaged_ones(run, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^run: got 'no', expected the folder of a run, or a checkpoint file$"):
        nc_lightning.load("no")
    path = find_run(run).checkpoint
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"^run: got '.*run', whose checkpoints are all damaged \(.*\.ckpt\)"):
        nc_lightning.load(run)
    with pytest.raises(ValueError, match=r"^run: got '.*\.ckpt', which is damaged or not a Lightning checkpoint$"):
        nc_lightning.load(path)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(FileNotFoundError, match=r"^run: got '.*run', which has no checkpoint, expected"):
        nc_lightning.load(run)
    (run / "checkpoints" / "a.ckpt").mkdir(parents=True)
    (run / "checkpoints" / "a.ckpt" / ".metadata").touch()
    with pytest.raises(ValueError, match=r"^run: got the sharded checkpoint '.*a\.ckpt', expected one in a single"):
        nc_lightning.load(run)


@pytest.mark.parametrize("text", ["data: [", "model: 1", "data: 3", "data: {init_args: {}}"])
def test_a_damaged_config(run, text):
    (run / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"^run: got '.*config\.yaml', which is damaged or has no data"):
        nc_lightning.load(run)
    assert isinstance(load_module(run), LightningModule)


def test_a_module_trained_from_python_needs_its_encoder(tmp_path):
    module = HSCL(encoder=MLP((4,), [8]), num_classes=2)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_steps=1, accelerator="cpu", default_root_dir=tmp_path, **quiet)
    x, labels = torch.randn(8, 4), torch.arange(2).repeat(4)
    trainer.fit(module, DataLoader(TensorDataset(x, labels), batch_size=8))
    with pytest.raises(ValueError, match=r"by a training of HSCL in Python, .*; use load_from_checkpoint of the class"):
        nc_lightning.load(tmp_path)
