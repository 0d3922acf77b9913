"""Each option and callback of Lightning works on the command line, compared with the plain run, or is refused.

docs/reference/trainer-options.md is the same table for readers.
"""

import inspect
import re
import sys
from importlib.util import find_spec
from typing import get_args

import lightning.pytorch.callbacks
import lightning.pytorch.loggers
import pytest
import torch
from lightning.fabric.connector import _PRECISION_INPUT_STR
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BaseFinetuning, BasePredictionWriter, Checkpoint, ProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import StrategyRegistry

from nc_lightning.callbacks import TensorBoardDashboard
from nc_lightning.cli import main
from nc_lightning.cli.command_error import exit_on_error

PLAIN = [
    *("fit", "--config=hscl.yaml", "--trainer.max_epochs=2", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--geometry.every_n_epochs=1"),
    *("--model.encoder.hidden_features=[8]", "--data=nc_lightning.data.LatentClassDataModule", "--data.num_classes=4"),
    *("--data.batch_size=16", "--data.samples_per_class=16"),
]
STEPS = 4
"""Number of steps in an epoch of the plain run."""


class Works:
    """The weights are those of the run with the arguments ``like``, by default the plain one.

    Or the distance is less than ``within`` times the distance from the initial weights.
    """

    words = "works"

    def __init__(self, *like, within=0.0):
        self.like, self.within = like, within


WORKS = Works()


class Refused:
    """The run ends with code 2 and one line."""

    words = "refused"

    def __init__(self, message):
        self.message = message


def needs(package, message=None):
    """What happens without an optional package, or with it."""
    return Refused(message or package) if find_spec(package) is None else WORKS


def callback(name, *arguments):
    return [f"--trainer.callbacks+={name}", *(f"--trainer.callbacks.{argument}" for argument in arguments)]


HALF = ("--trainer.limit_train_batches=2",)
ACCUMULATED = ("--trainer.accumulate_grad_batches=2",)
ENDS = ("--trainer.max_epochs=1",)
NO_STEP = ("--model.optimizer.lr=1e-30",)
OPTIONS = [
    ("accelerator", "cpu", WORKS),
    ("accelerator", "auto", WORKS),
    ("accelerator", "abacus", Refused("--trainer.accelerator: got abacus, expected one that this machine has")),
    ("devices", "1", WORKS),
    ("devices", "auto", WORKS),
    ("devices", "0", Refused("devices")),
    ("devices", "many", Refused("devices")),
    ("num_nodes", "1", WORKS),
    ("num_nodes", "0", Refused("`num_nodes` must be a positive integer, but got 0")),
    ("fast_dev_run", "2", Works("--trainer.max_steps=2")),
    ("fast_dev_run", "-1", Refused("fast_dev_run=-1 is not a valid configuration")),
    ("max_epochs", "1", Works(f"--trainer.max_steps={STEPS}")),
    ("max_epochs", "-2", Refused("`max_epochs` must be a non-negative integer or -1")),
    ("min_epochs", "1", WORKS),
    ("max_steps", "8", WORKS),
    ("max_steps", "-2", Refused("`max_steps` must be a non-negative integer or -1")),
    ("min_steps", "3", WORKS),
    ("max_time", "00:01:00:00", WORKS),
    ("max_time", "soon", Refused("soon")),
    ("limit_train_batches", "1.0", WORKS),
    ("limit_train_batches", "0.5", Works(*HALF)),
    ("limit_train_batches", "1.5", Refused("invalid value 1.5 for limit_train_batches")),
    ("limit_val_batches", "0", WORKS),
    ("limit_val_batches", "2.5", Refused("invalid value 2.5 for limit_val_batches")),
    ("limit_test_batches", "1", WORKS),
    ("limit_test_batches", "-2", Refused("invalid value -2 for limit_test_batches")),
    ("limit_predict_batches", "1", WORKS),
    ("limit_predict_batches", "3.3", Refused("invalid value 3.3 for limit_predict_batches")),
    ("overfit_batches", "4 --trainer.max_epochs=1", Works(*ENDS)),
    ("overfit_batches", "-1", Refused("invalid value -1 for overfit_batches")),
    ("val_check_interval", "2", WORKS),
    ("val_check_interval", "0.5", WORKS),
    ("val_check_interval", "00:00:00:01", WORKS),
    ("val_check_interval", "0", Refused("val_check_interval: got 0, expected more")),
    ("val_check_interval", "1.5", Refused("invalid value 1.5 for val_check_interval")),
    ("check_val_every_n_epoch", "2", WORKS),
    ("check_val_every_n_epoch", "null", WORKS),
    ("check_val_every_n_epoch", "0", Refused("check_val_every_n_epoch: got 0, expected an integer >= 1")),
    ("num_sanity_val_steps", "0", WORKS),
    ("num_sanity_val_steps", "-1", WORKS),
    ("log_every_n_steps", "1", WORKS),
    ("log_every_n_steps", "0", WORKS),
    ("enable_checkpointing", "false", WORKS),
    ("enable_progress_bar", "true", WORKS),
    ("enable_model_summary", "true", WORKS),
    ("accumulate_grad_batches", "1", WORKS),
    ("accumulate_grad_batches", "0", Refused("accumulate_grad_batches: got 0, expected 1 or more")),
    ("gradient_clip_val", "1000", WORKS),
    ("gradient_clip_val", "-1", WORKS),
    ("gradient_clip_algorithm", "value --trainer.gradient_clip_val=1000", WORKS),
    ("gradient_clip_algorithm", "half", Refused("`gradient_clip_algorithm` half is invalid")),
    ("deterministic", "true", WORKS),
    ("deterministic", "warn", WORKS),
    ("deterministic", "maybe", Refused("--trainer.deterministic: got 'maybe', expected one of warn, true, false")),
    ("benchmark", "true", WORKS),
    ("inference_mode", "false", WORKS),
    ("use_distributed_sampler", "false", WORKS),
    ("profiler", "simple", WORKS),
    ("profiler", "advanced", WORKS),
    ("profiler", "pytorch", WORKS),
    ("profiler", "stopwatch", Refused("it can only be one of")),
    ("detect_anomaly", "true", WORKS),
    ("barebones", "true", WORKS),
    ("plugins", "nc_lightning.batch_norm.BatchNormSync", WORKS),
    ("plugins", "lightning.pytorch.plugins.io.AsyncCheckpointIO", WORKS),
    ("plugins", "nothing", Refused("--trainer.plugins: got nothing")),
    ("sync_batchnorm", "true", WORKS),
    ("reload_dataloaders_every_n_epochs", "1", WORKS),
    ("reload_dataloaders_every_n_epochs", "-1", Refused("should be an int >= 0, got -1")),
    ("default_root_dir", "elsewhere", WORKS),
    ("default_root_dir", "/proc/nothing", Refused("/proc/nothing")),
    ("enable_autolog_hparams", "false", WORKS),
    ("model_registry", "somewhere", WORKS),
    ("precision", "32-true", WORKS),
    ("precision", "64-true", Works(within=0.001)),
    ("precision", "bf16-mixed", Works(within=0.3)),
    ("precision", "16-mixed", Works(within=0.3)),
    ("precision", "bf16-true", Works(within=0.6)),
    ("precision", "16-true", Refused("optimizer: got eps = 1e-08 with weights in torch.float16")),
    ("precision", "transformer-engine", needs("transformer_engine")),
    ("precision", "transformer-engine-float16", needs("transformer_engine")),
    ("strategy", "auto", WORKS),
    ("strategy", "single_device", Works()),
    ("strategy", "ddp", WORKS),
    ("strategy", "ddp_find_unused_parameters_false", WORKS),
    ("strategy", "ddp_find_unused_parameters_true", WORKS),
    *(("strategy", name, Refused(f"--trainer.strategy: got {name}, expected ddp")) for name in (
        "deepspeed", "deepspeed_stage_1", "deepspeed_stage_2", "deepspeed_stage_2_offload", "deepspeed_stage_3",
        "deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme", "fsdp", "fsdp_cpu_offload",
    )),
    *(("strategy", name, Refused("")) for name in ("single_xla", "xla", "xla_debug", "single_tpu")),
    ("strategy", "anything", Refused("invalid strategy name: `strategy='anything'`")),
    ("logger", "true", WORKS),
    ("logger", "false", WORKS),
    ("logger", "CSVLogger --trainer.logger.save_dir=csv", WORKS),
    ("logger", "TensorBoardLogger --trainer.logger.save_dir=tb", WORKS),
    ("logger", "LitLogger", needs("litlogger", "LitLogger")),
    ("logger", "CometLogger", needs("comet_ml", "comet-ml")),
    ("logger", "MLFlowLogger", needs("mlflow")),
    ("logger", "WandbLogger --trainer.logger.offline=true", needs("wandb")),
]  # fmt: skip
CALLBACKS = [
    ("BackboneFinetuning --unfreeze_backbone_at_epoch=0 --backbone_initial_lr=0.001", Works(within=0.8)),
    ("BatchSizeFinder --init_val=8", Works("--data.batch_size=64")),
    ("BatchSizeFinder", Refused("BatchSizeFinder: init_val: got 2, expected a multiple of the 4 classes")),
    ("Callback", WORKS),
    ("DeviceStatsMonitor", needs("psutil")),
    ("DeviceStatsMonitor --cpu_stats=false", WORKS),
    ("EarlyStopping --monitor=loss/val", WORKS),
    ("EarlyStopping --monitor=loss/vall", Refused("loss/vall")),
    ("EMAWeightAveraging --decay=0", Works(within=1e-6)),
    ('GradientAccumulationScheduler --scheduling={"0":2}', Works(*ACCUMULATED)),
    ("LambdaCallback", WORKS),
    ("LearningRateFinder --update_attr=false", WORKS),
    ("LearningRateFinder --num_training_steps=2", WORKS),  # too few to find any other
    ("LearningRateMonitor", WORKS),
    ("LearningRateMonitor --trainer.logger=false", Refused("Cannot use `LearningRateMonitor` callback with")),
    ("ModelCheckpoint --dirpath=mine --monitor=loss/val", WORKS),
    ("ModelPruning --pruning_fn=l1_unstructured --amount=0", WORKS),
    ("ModelSummary --max_depth=2", WORKS),
    ("OnExceptionCheckpoint --dirpath=mine", WORKS),
    ("RichModelSummary", WORKS),
    ("RichProgressBar", Refused("RichProgressBar")),
    ("RichProgressBar --trainer.enable_progress_bar=true", WORKS),
    ("SpikeDetection", WORKS),
    ("StochasticWeightAveraging --swa_lrs=0.001 --swa_epoch_start=1", Works(within=0.8)),
    ("ThroughputMonitor --batch_size_fn=len", Refused("--trainer.callbacks.batch_size_fn: got 'len'")),
    ("Timer --duration=00:01:00:00", WORKS),
    ("TQDMProgressBar --trainer.enable_progress_bar=true", WORKS),
    ("WeightAveraging", Works(within=0.8)),
]  # fmt: skip
SLOW = {"profiler=pytorch"}


def arguments_of(option, setting):
    first, *more = setting.split()
    if option != "callbacks":
        return [f"--trainer.{option}={first}", *more]
    own = [name if name.startswith("--trainer") else name.replace("--", "--trainer.callbacks.", 1) for name in more]
    return [f"--trainer.callbacks+={first}", *own]


ROWS = [*OPTIONS, *(("callbacks", setting, outcome) for setting, outcome in CALLBACKS)]


@pytest.fixture(autouse=True)
def _as_before(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    monkeypatch.setattr(TensorBoardDashboard, "_draw", lambda *arguments: None)  # figures have tests of their own
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = False
    torch.set_default_dtype(torch.float32)


KNOWN = {}


def weights_of(*arguments):
    if arguments not in KNOWN:
        KNOWN[arguments] = weights(main([*PLAIN, *arguments]))
    return KNOWN[arguments]


def distance(one, other):
    return sum(float((one[key] - other[key]).square().sum()) for key in one if "running" not in key) ** 0.5


def weights(cli):
    """The weights and the statistics of BatchNorm, without its count of batches."""
    state = cli.model.state_dict().items()
    return {key: value.detach().clone().double() for key, value in state if not key.endswith("num_batches_tracked")}


def marked(row):
    name = f"{row[0]}={row[1]}"
    return pytest.param(*row, id=name, marks=[pytest.mark.slow] if name in SLOW else [])


@pytest.mark.some(8)
@pytest.mark.parametrize(("option", "setting", "outcome"), [marked(row) for row in ROWS])
def test_every_option_works_or_is_refused(option, setting, outcome, capsys):
    arguments = arguments_of(option, setting)
    if isinstance(outcome, Refused):
        with pytest.raises(SystemExit) as ended, exit_on_error():
            main([*PLAIN, *arguments])
        assert ended.value.code == 2
        err = capsys.readouterr().err
        (line,) = [line for line in err.splitlines() if line.startswith("nc-train: error: ")]
        assert "Traceback" not in err
        assert outcome.message in line
    else:
        expected, reached = weights_of(*outcome.like), weights(main([*PLAIN, *arguments]))
        assert reached.keys() == expected.keys()
        if outcome.within == 0:
            for key, value in expected.items():
                assert torch.equal(reached[key], value), key
        else:
            assert distance(reached, expected) <= outcome.within * distance(expected, weights_of(*NO_STEP))


def test_the_comparison_distinguishes_another_run():
    assert any(not torch.equal(value, weights_of(*ENDS)[key]) for key, value in weights_of().items())
    assert distance(weights_of(), weights_of(*NO_STEP)) > 0.05


def test_every_option_callback_logger_precision_and_strategy_is_in_the_table():
    settings = {}
    for option, setting, _ in ROWS:
        settings.setdefault(option, set()).add(setting.split()[0])
    assert settings.keys() == inspect.signature(Trainer).parameters.keys()
    bases = {kind.__name__ for kind in (BaseFinetuning, BasePredictionWriter, Checkpoint, Logger, ProgressBar)}
    assert settings["callbacks"] == set(lightning.pytorch.callbacks.__all__) - bases
    assert settings["logger"] >= set(lightning.pytorch.loggers.__all__) - bases
    assert settings["precision"] >= set(get_args(_PRECISION_INPUT_STR))
    started = ("ddp_spawn", "ddp_fork", "ddp_notebook")  # tests/cli/test_on_processes.py
    assert settings["strategy"] >= {n for n in StrategyRegistry.available_strategies() if not n.startswith(started)}


def test_the_documentation_has_the_same_rows_as_the_tests(repository):
    text = (repository / "docs" / "reference" / "trainer-options.md").read_text()
    written = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (works|refused)", text, re.MULTILINE)
    ours = [(option, setting, outcome.words) for option, setting, outcome in ROWS]
    assert [row[:2] for row in written] == [row[:2] for row in ours]
    with_packages = ("transformer", "Lit", "Comet", "MLF", "Wandb", "Device")
    optional = {row[:2] for row in ROWS if row[1].startswith(with_packages)}
    assert [row for row in written if row[:2] not in optional] == [row for row in ours if row[:2] not in optional]
