import copy
import io
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import LearningRateMonitor
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nc_lightning import HSCL, SCL
from nc_lightning.callbacks import GeometryMonitor, HardNegativeSampler
from nc_lightning.cli import config_folder, find_config, main, resolve_configs, shipped_configs
from nc_lightning.cli.command_error import exit_on_error

OBJECTIVES = ["scl", "hscl", "ucl", "hucl"]
NAMED = ["supcon", "ntxent"]
CONFIGS = [name for name in shipped_configs() if "sweeps" not in name]
SHORT = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])


@pytest.fixture
def run():
    """The CLI and the folder of a short HSCL run."""
    cli = main(["fit", "--config", "hscl.yaml", *SHORT])
    return cli, Path(cli.trainer.log_dir)


ON_SMALL_IMAGES = ["--data=nc_lightning.data.ArrayDataModule", "--data.path=small.npz", "--data.batch_size=200"]


OF_IMAGES = ["cifar100", "paper/official", "paper/cifar10", "paper/tiny_imagenet", "paper/fast_gpu", "paper/natural"]
OF_IMAGES += ["paper/natural_cifar100"]
BEFORE = {
    "paper/fast_gpu": ["--config", "cifar100.yaml"],  # only data modules of images have a cache
    "paper/natural_cifar100": ["--config", "paper/natural.yaml"],
}
FEATURE_DIM = {"ntxent.yaml": 64, "paper/natural.yaml": 64, "paper/natural_cifar100.yaml": 256}
ALSO = {
    "paper/fast_gpu": ["--model.compile=false"],  # compiling needs a compiler, and minutes
    "paper/natural": ["--data.batch_size=20"],  # ten of the hundred classes
}


def complete(config):
    """Return the command line that completes a config: an objective alone, an overlay on an objective."""
    stem = config.removesuffix(".yaml")
    if stem in OBJECTIVES + NAMED:
        return [["--config", config]]
    also = (ON_SMALL_IMAGES if stem in OF_IMAGES else []) + ALSO.get(stem, [])
    hardened = [objective for objective in OBJECTIVES if objective.startswith("h")]
    on = hardened if stem in ("adaptive", "paper/exponential", "paper/polynomial") else OBJECTIVES
    before = BEFORE.get(stem, [])
    return [["--config", f"{objective}.yaml", *before, "--config", config, *also] for objective in on]


def small_images(side):
    """Images of a hundred classes in a file, instead of CIFAR-100."""
    shape, labels = (400, side, side, 3), np.arange(400) % 100
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez("small.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)


class Sent(pickle.Pickler):
    """Records the packages of the objects that it pickles."""

    def __init__(self):
        super().__init__(io.BytesIO())
        self.packages = set()

    def reducer_override(self, obj):
        self.packages.add(type(obj).__module__.partition(".")[0])
        return NotImplemented


def can_be_sent_to_a_process(module):
    """Copying or pickling a module does not copy the command line, its Trainer and their locks."""
    sent = Sent()
    sent.dump(module)
    assert "jsonargparse" not in sent.packages
    copy.deepcopy(module)


def on_all():
    """Each config with each objective; `make test` runs each config with one of them, in rotation."""
    for turn, config in enumerate(CONFIGS):
        lines = complete(config)
        yield from (marked(line, exhaustive=line is not lines[turn % len(lines)]) for line in lines)


def marked(configs, exhaustive):
    marks = [pytest.mark.exhaustive] if exhaustive else []
    marks += [pytest.mark.slow] if {"cifar100.yaml", "paper/official.yaml"} & set(configs) else []
    marks += [pytest.mark.bolts] if "bolts.yaml" in configs else []
    return pytest.param(configs, marks=marks, id="+".join(name for name in configs if name.endswith(".yaml")))


@pytest.mark.parametrize("configs", on_all())
def test_every_config_runs(configs):
    if "--data.path=small.npz" in configs:
        # A strided convolution of a single position in bfloat16 reads memory that nothing has written (torch 2.14.1).
        small_images(side=16 if any("natural" in config for config in configs) else 8)
    before = set(Path.cwd().iterdir())
    cli = main(["fit", *configs, "--trainer.fast_dev_run=2", *SHORT])
    assert cli.trainer.global_step == 2
    assert cli.model.num_classes == cli.datamodule.num_classes
    chosen = [FEATURE_DIM[config] for config in configs if config in FEATURE_DIM]
    assert cli.model.feature_dim == (chosen[-1] if chosen else cli.datamodule.num_classes - 1)
    assert set(Path.cwd().iterdir()) == before, "fast_dev_run writes nothing"
    if "fsdp.yaml" not in configs:  # shards belong to their processes
        can_be_sent_to_a_process(cli.model)


def test_each_objective_has_a_config():
    ours = {name for name in CONFIGS if "/" not in name}
    assert {
        f"{name}.yaml" for name in (*OBJECTIVES, *NAMED, "digit_pairs", "adaptive", "cifar100", "bolts", "ddp", "fsdp")
    } == ours


def test_a_run_leaves_logs_config_and_checkpoint(run):
    _, folder = run
    assert folder == Path.cwd() / "lightning_logs" / "hscl-digits-beta10"
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["class_path"].endswith("HSCL")
    events = EventAccumulator(str(folder))
    events.Reload()
    expected = {"geometry/train/nc1", "geometry/val/ncc_accuracy", "loss/train", "loss/bound", "loss/optimality_gap"}
    assert expected | {"negatives/hardness", "negatives/effective"} <= set(events.Tags()["scalars"])
    assert {"geometry/train/nc3", "geometry/val/nc4", "probe/val_accuracy"} <= set(events.Tags()["scalars"])
    assert "hp_metric" not in events.Tags()["scalars"]
    assert "figures/cosines" in events.Tags()["images"]
    assert "class_path: nc_lightning.HSCL" in (folder / "report.html").read_text()


def test_fit_ends_with_the_results_and_their_paths(capsys):
    main(["fit", "--config", "hscl.yaml", *SHORT])
    output = capsys.readouterr().out
    for text in ("Geometry of 10 classes in 9 dimensions", "effective_rank", "loss/bound", "ideal"):
        assert text in output
    assert "checkpoint: lightning_logs/hscl-digits-beta10/checkpoints/last.ckpt" in output
    assert "report: lightning_logs/hscl-digits-beta10/report.html" in output
    assert "tensorboard --logdir lightning_logs\n" in output


@pytest.mark.slow
def test_a_second_run_overwrites_nothing(run):
    _, folder = run
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    main(["fit", "--config", "hscl.yaml", *SHORT])
    assert all(path.read_bytes() == content for path, content in before.items())
    assert (folder.parent / "hscl-digits-beta10-1" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_each_run_has_its_own_folder_without_a_logger(capsys):
    for suffix in ("", "-1"):
        main(["fit", "--config", "hscl.yaml", "--trainer.logger=false", *SHORT])
        folder = Path("lightning_logs", f"hscl-digits-beta10{suffix}")
        files = {path.name for path in folder.iterdir()}
        assert files == {"config.yaml", "report.html", "report.json", "checkpoints", "figures"}
        assert len({path.resolve() for path in (folder / "checkpoints").iterdir()}) == 1
        output = capsys.readouterr().out
        assert f"checkpoint: {folder}/checkpoints/last.ckpt" in output
        assert "tensorboard" not in output, "there are no event files"
    assert [path.name for path in Path.cwd().iterdir()] == ["lightning_logs"]


def test_a_checkpoint_of_the_command_line_loads_without_arguments(run):
    cli, folder = run
    loaded = HSCL.load_from_checkpoint(folder / "checkpoints" / "last.ckpt", weights_only=True)
    x = torch.rand(5, 1, 8, 8)
    assert torch.equal(loaded.eval()(x), cli.model.eval()(x))
    assert loaded.loss.beta == cli.model.loss.beta


@pytest.mark.slow
@pytest.mark.parametrize("by_saved_config", [False, True])
def test_validate_prints_the_same_table(run, capsys, by_saved_config):
    cli, folder = run
    before = next(c for c in cli.trainer.callbacks if isinstance(c, GeometryMonitor)).results
    capsys.readouterr()
    config = str(folder / "config.yaml") if by_saved_config else "hscl.yaml"
    cli = main(["validate", "--config", config, "--ckpt_path", str(folder / "checkpoints/last.ckpt"), *SHORT])
    after = next(c for c in cli.trainer.callbacks if isinstance(c, GeometryMonitor)).results
    for name in ("train", "val"):
        assert after[name] == pytest.approx(before[name], rel=1e-6, abs=1e-9)
    assert "Geometry of 10 classes in 9 dimensions" in capsys.readouterr().out


@pytest.mark.slow
def test_nc_train_test_measures_the_test_set(run, capsys):
    _, folder = run
    main(["test", "--config", "hscl.yaml", "--ckpt_path", str(folder / "checkpoints/last.ckpt"), *SHORT])
    output = capsys.readouterr().out
    assert " test " in output
    assert "loss/test" in output


@pytest.mark.slow
def test_predict_writes_the_training_features_and_those_of_other_splits_and_layers(run):
    cli, folder = run
    arguments = ["predict", "--config", "hscl.yaml", "--ckpt_path", str(folder / "checkpoints/last.ckpt"), *SHORT]
    predicted = main(arguments)
    with np.load(Path(predicted.trainer.log_dir) / "predictions.npz", allow_pickle=False) as file:
        features, labels = file["z"], file["labels"]
    x, expected = cli.datamodule._splits["train"].x, cli.datamodule._splits["train"].labels
    with torch.no_grad():
        assert np.allclose(features, cli.model.eval()(x).numpy(), atol=1e-6)
    assert np.array_equal(labels, expected.numpy())
    Path("layers.yaml").write_text("predict:\n  splits: [train, val]\n  layers: [z]\n")
    cli = main([*arguments, "--config=layers.yaml", "--predict.layers=encoder,z", "--predict.path=out/f.safetensors"])
    assert cli.trainer.predict_loop.return_predictions is False
    assert sorted(path.name for path in Path("out").iterdir()) == ["f_train.safetensors", "f_val.safetensors"]
    tensors = load_file("out/f_train.safetensors")
    assert np.array_equal(tensors["z"], features)
    with torch.no_grad():
        assert np.allclose(tensors["encoder"], cli.model.eval().encoder(x).numpy(), atol=1e-6)


def test_the_command_line_overrides_the_checkpoint(run):
    _, folder = run
    ckpt = str(folder / "checkpoints/last.ckpt")
    cli = main(
        ["fit", "--config=hscl.yaml", f"--ckpt_path={ckpt}", "--model.beta=2", *SHORT[1:], "--trainer.max_epochs=3"]
    )
    assert cli.model.loss.beta == 2.0
    assert cli.trainer.current_epoch == 3


@pytest.mark.slow
def test_user_callbacks_are_added_to_ours():
    Path("mine.yaml").write_text(
        "trainer:\n  callbacks:\n    - class_path: lightning.pytorch.callbacks.LearningRateMonitor\n"
        "    - class_path: nc_lightning.callbacks.HardNegativeSampler\n      init_args: {beta: 3.0}\n"
    )
    cli = main(["fit", "--config", "hscl.yaml", "--config", "mine.yaml", *SHORT])
    kinds = [type(callback).__name__ for callback in cli.trainer.callbacks]
    for name in (LearningRateMonitor, HardNegativeSampler, GeometryMonitor):
        assert kinds.count(name.__name__) == 1
    assert cli.model.loss.beta == 3.0


@pytest.mark.slow
def test_a_user_callback_of_the_same_type_replaces_ours():
    Path("mine.yaml").write_text(
        "trainer:\n  callbacks:\n"
        "    - class_path: nc_lightning.callbacks.GeometryMonitor\n      init_args: {every_n_epochs: 2}\n"
        "    - class_path: nc_lightning.callbacks.TensorBoardDashboard\n      init_args: {max_points: 7}\n"
        "    - class_path: nc_lightning.callbacks.OnlineLinearProbe\n"
        "    - class_path: lightning.pytorch.callbacks.ModelCheckpoint\n      init_args: {monitor: loss/val}\n"
    )
    cli = main(["fit", "--config", "hscl.yaml", "--config", "mine.yaml", *SHORT])
    named = {type(callback).__name__: callback for callback in cli.trainer.callbacks}
    kinds = [type(callback).__name__ for callback in cli.trainer.callbacks]
    for name in ("GeometryMonitor", "TensorBoardDashboard", "OnlineLinearProbe"):
        assert kinds.count(name) == 1
    assert kinds.count("ModelCheckpoint") == kinds.count("RunCheckpoint") == 1  # several of these are useful
    assert named["TensorBoardDashboard"].max_points == 7
    assert named["GeometryMonitor"].every_n_epochs == 2


def test_a_local_config_takes_precedence_over_a_shipped_one():
    assert Path(find_config("hscl.yaml")).parent == config_folder()
    Path("hscl.yaml").write_text("seed_everything: 7\n")
    assert find_config("hscl.yaml") == "hscl.yaml"
    assert resolve_configs(["-c", "scl.yaml", "--config=hscl.yaml"]) == [
        "-c",
        str(config_folder() / "scl.yaml"),
        "--config=hscl.yaml",
    ]


def test_a_custom_encoder_needs_no_input_shape():
    Path("theirs.py").write_text(
        "import torch\n"
        "class Encoder(torch.nn.Sequential):\n"
        "    def __init__(self, width: int = 8):\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, width))\n"
        "        self.out_features = width\n"
    )
    sys.path.insert(0, os.getcwd())
    try:
        cli = main(["fit", "--config=hscl.yaml", "--model.encoder=theirs.Encoder", "--model.encoder.width=12", *SHORT])
    finally:
        sys.path.remove(os.getcwd())
    assert cli.model.projector.in_features == 12


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.encoder=nc_lightning.encoders.SmallCNN", "--model.encoder.width=4"],
        ["--data=nc_lightning.data.LatentClassDataModule", "--data.num_classes=5", "--data.batch_size=20"],
        ["--data.batches=random", "--model.normalization=unit_sphere", "--model.feature_dim=20"],
        ["--model.projector=nc_lightning.encoders.ProjectionHead", "--model.projector.hidden_features=16"],
        ["--model.lr_scheduler=null", "--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=0.1"],
        ["--model.lr_interval=step", "--model.num_negatives=16", "--model.include_self=true"],
    ],
    ids=lambda arguments: arguments[0].removeprefix("--"),
)
def test_every_part_can_be_replaced(arguments):
    cli = main(["fit", "--config=hscl.yaml", "--trainer.fast_dev_run=2", *SHORT, *arguments])
    assert cli.trainer.global_step == 2


CORRUPT = b"not a checkpoint"
BAD = {
    "unknown config": (["--config", "nope.yaml"], r"--config: got 'nope.yaml', expected a file that exists"),
    "unknown key": (["--model.betta", "3"], r"betta"),
    "unknown option": (["--nonsense", "3"], r"nonsense"),
    "not a float": (["--model.beta", "x"], r"--model.beta: .*float.*x"),
    "not an int": (["--trainer.max_epochs", "1.5"], r"--trainer.max_epochs: got 1.5, expected int"),
    "temperature": (["--model.temperature", "0"], r"temperature: got 0.0, expected a finite number > 0"),
    "beta": (["--model.beta", "-1"], r"beta: got -1.0, expected a finite number >= 0"),
    "feature_dim": (["--model.feature_dim", "0"], r"feature_dim: got 0, expected an integer >= 1"),
    "num_classes": (["--model.num_classes", "5"], r"num_classes: got 5, expected 10"),
    "normalization": (["--model.normalization", "cube"], r"--model.normalization: got .cube., .*unit_ball"),
    "batch_size": (["--data.batch_size", "33"], r"batch_size: got 33, expected a multiple of the 10 classes"),
    "class": (["--model", "nc_lightning.SSCL"], r"--model: .*SSCL"),
    "no num_classes": (["--data", "lightning.LightningDataModule"], r"--data: got LightningDataModule without num_c"),
    "missing checkpoint": (["--ckpt_path", "no.ckpt"], r"--ckpt_path: got 'no.ckpt', expected a checkpoint file"),
    "corrupt checkpoint": (["--ckpt_path", "corrupt.ckpt"], r"--ckpt_path: got 'corrupt.ckpt', which is damaged"),
    "other checkpoint": (["--ckpt_path", "dict.ckpt"], r"--ckpt_path: got 'dict.ckpt', which is damaged or not"),
    "broken yaml": (["--config", "broken.yaml"], r"Problems parsing config"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_prints_one_line_and_exits_with_code_2(name, capsys):
    arguments, message = BAD[name]
    Path("corrupt.ckpt").write_bytes(CORRUPT)
    Path("broken.yaml").write_text("model: [1,\n")
    torch.save({"weights": 1}, "dict.ckpt")
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        main(["fit", "--config", "hscl.yaml", *SHORT, *arguments])
    assert exit_.value.code == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("nc-train: error: ")]
    assert len(error) == 1
    assert len(error[0]) < 400
    assert re.search(message, error[0]), error[0]
    assert sorted(p for p in Path.cwd().rglob("*") if p.suffix in (".ckpt", ".npz")) == sorted(
        p for p in before if p.suffix == ".ckpt"
    )


def test_checkpoints_that_do_not_fit_are_refused(run, capsys):
    _, folder = run
    ckpt = str(folder / "checkpoints/last.ckpt")
    for arguments, message in (
        (["--config", "scl.yaml"], "--ckpt_path: got a checkpoint of HSCL, expected one of SCL"),
        (["--config", "hscl.yaml", "--model.encoder.hidden_features=[7]"], "does not fit the configured model"),
    ):
        with pytest.raises(SystemExit) as exit_, exit_on_error():
            main(["fit", *arguments, "--ckpt_path", ckpt, *SHORT])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises((ValueError, ArgumentError), match="HSCL"):
        SCL.load_from_checkpoint(ckpt)


def test_debug_shows_the_traceback(monkeypatch):
    monkeypatch.setenv("NC_DEBUG", "1")
    with pytest.raises(Exception, match="temperature: got 0"):
        main(["fit", "--config", "hscl.yaml", "--model.temperature=0", *SHORT])


@pytest.mark.exhaustive
def test_nc_train_runs_as_a_program():
    def call(*arguments):
        environment = {key: value for key, value in os.environ.items() if key != "NC_DEBUG"}
        return subprocess.run(
            [sys.executable, "-m", "nc_lightning", *arguments], capture_output=True, text=True, env=environment
        )

    good = call("fit", "--config", "hscl.yaml", *SHORT)
    assert good.returncode == 0, good.stderr
    assert "Warning" not in good.stderr
    bad = call("fit", "--config", "hscl.yaml", "--model.temperature=0")
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr
    assert "temperature: got 0.0" in bad.stderr.splitlines()[-1]
    assert call("--help").returncode == 0
    assert "geometry" in call("fit", "--help").stdout
    printed = call("fit", "--config", "hscl.yaml", "--print_config")
    assert yaml.safe_load(printed.stdout)["model"]["init_args"]["beta"] == 10.0


OF_ALL = [
    *("temperature", "num_negatives", "normalization", "include_self", "link", "positives", "replacement"),
    *("share_draws", "sync", "encoder", "num_classes", "feature_dim", "projector", "optimizer", "lr_scheduler"),
    *("lr_interval", "channels_last", "compile"),
]
OF_HARD = ["beta", "differentiate_weights", "hardening"]
ARGUMENTS = {"SCL": [], "HSCL": OF_HARD, "UCL": ["tau_plus"], "HUCL": [*OF_HARD, "tau_plus"]}


@pytest.mark.parametrize("objective", ARGUMENTS)
def test_the_help_and_the_printed_config_of_an_objective_list_every_argument(objective, capsys):
    expected = {*OF_ALL, *ARGUMENTS[objective]}
    main(["fit", f"--model.help=nc_lightning.{objective}"])
    described = re.findall(r"\n  --model\.(\w+) [^\n]*\s+[^\s(]", capsys.readouterr().out)
    assert set(described) == expected
    main(["fit", "--config", f"{objective.lower()}.yaml", "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert printed.keys() == expected - {"num_classes"}, "the number of classes comes from the data"


@pytest.mark.slow
def test_a_run_without_checkpoints_works(capsys):
    cli = main(["fit", "--config", "hscl.yaml", "--trainer.enable_checkpointing=false", *SHORT])
    assert cli.trainer.current_epoch == 2
    assert not list(Path.cwd().rglob("*.ckpt"))
    output = capsys.readouterr().out
    assert "checkpoint:" not in output
    assert "report: lightning_logs/hscl-digits-beta10/report.html" in output
    assert main(["fit", "--config", "hscl.yaml", *SHORT]).trainer.checkpoint_callback is not None, (
        "the next run has them"
    )


@pytest.mark.slow
def test_a_barebones_run_works(capsys):
    bare = ["fit", "--config", "hscl.yaml", "--trainer.barebones=true", "--trainer.max_epochs=2"]
    weights = main(bare).model.state_dict()
    assert not list(Path.cwd().iterdir())
    assert "epoch" not in capsys.readouterr().out
    cli = main(["fit", "--config", "hscl.yaml", *SHORT])
    assert all(torch.equal(value, weights[key]) for key, value in cli.model.state_dict().items())
    Path("mine.yaml").write_text("trainer: {callbacks: [{class_path: lightning.pytorch.callbacks.ModelCheckpoint}]}")
    capsys.readouterr()
    with pytest.raises(SystemExit), exit_on_error():
        main([*bare, "--config", "mine.yaml"])
    assert "found `ModelCheckpoint` in callbacks list" in capsys.readouterr().err
