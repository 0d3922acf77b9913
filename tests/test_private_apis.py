"""Each private name of Lightning, torch and jsonargparse that we use exists and does what we need."""

import ast
import importlib
import inspect
import re
import threading
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.fabric.strategies.launchers import subprocess_script
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import CombinedLoader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, OneCycleLR, SequentialLR
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.tensorboard import SummaryWriter

import nc_lightning
import nc_lightning.private_apis.jsonargparse as of_jsonargparse
import nc_lightning.private_apis.lightning as of_lightning
import nc_lightning.private_apis.torch as of_torch

PACKAGE = Path(nc_lightning.__file__).parent

INHERITED = {
    "callbacks.run_checkpoint.RunCheckpoint": {
        "_format_checkpoint_name",
        "_fs",
        "_link_checkpoint",
        "_save_checkpoint",
        "_save_last_checkpoint",
    },
    "cli.train.ContrastiveCLI": {"_get", "_parse_ckpt_path", "_parser", "_run_subcommand"},
    "data.preprocess.Preprocess": {"_load_from_state_dict", "_save_to_state_dict"},
    "distributed.batch_norm._Synced": {"_check_input_dim"},
    "losses.scheduled_beta.ScheduledBeta": {"_load_from_state_dict", "_save_to_state_dict"},
    "metrics.base.ClassStatisticsMetric": {"_computed"},
    "metrics.base.Float64Metric": {"_apply", "_computed", "_defaults", "_device", "_forward_cache"},
    "strategies.FSDP2Strategy": {"_data_parallel_size", "_layer_sync"},
}
"""Private names of bases that our classes override or use: lightning 2.6.6, torch 2.14.1, torchmetrics 1.9.0."""


class Data(LightningDataModule):
    def train_dataloader(self):
        return DataLoader(torch.ones(6, 1), batch_size=2)

    def other_dataloader(self):
        assert self.trainer is not None
        return DataLoader(torch.ones(4, 1), batch_size=2)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return batch + 1 + dataloader_idx


class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        self.log("x", float(batch_idx), on_step=False, on_epoch=True)
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Look(Callback):
    """Calls a function at a moment of the fit."""

    def __init__(self, look, hook="on_train_batch_end"):
        setattr(self, hook, lambda trainer, *_: look(trainer))


def fit(*callbacks, **options):
    options = {"logger": False, "enable_checkpointing": False, "max_epochs": 1, **options}
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(callbacks=list(callbacks), **quiet, **options)
    trainer.fit(Model(), datamodule=Data())
    return trainer


def test_loops_that_may_stop_early_have_the_private_names_we_use():
    found = []
    trainer = fit(Look(lambda trainer: found.append(of_lightning.can_stop_early(trainer))), min_epochs=0, min_steps=3)
    assert found == [False, False, True]
    assert of_lightning.can_stop_early(trainer)


def test_means_that_are_added_to_are_those_that_lightning_logs():
    def add(trainer):
        module, values = trainer.lightning_module, {"x": torch.tensor(5.0), "new": torch.tensor(1.0)}
        module._current_fx_name, before = "training_step", module._current_fx_name
        found.append(of_lightning.add_to_means(module, values, 2))
        module._current_fx_name = before

    found = []
    trainer = fit(Look(add), max_epochs=2)
    # Three batches of 2 log 0, 1 and 2, and each time 5 is added with weight 2.
    assert trainer.callback_metrics["x"] == pytest.approx((0 + 1 + 2 + 3 * 5) / 6)
    assert found == [{"new": torch.tensor(1.0)}] * 6
    assert of_lightning.add_to_means(Model(), {"x": torch.tensor(1.0)}, 1) == {"x": torch.tensor(1.0)}


def test_the_step_of_what_is_logged(tmp_path):
    fit(
        Look(lambda trainer: of_lightning.shift_logged_step(trainer, 10), "on_train_start"),
        logger=(logger := CSVLogger(tmp_path, flush_logs_every_n_steps=1)),
    )
    assert (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[1].split(",")[1:] == ["12", "1.0"]


def test_the_step_of_an_evaluation(tmp_path):
    trainer = Trainer(logger=False, default_root_dir=tmp_path, accelerator="cpu")
    assert of_lightning.logged_step(trainer) == 0
    of_lightning.set_logged_step(trainer, 7)
    assert of_lightning.logged_step(trainer) == 7


def test_the_folder_of_a_tensorboard_logger(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="x", version=str(tmp_path / "y"))
    of_lightning.set_root(logger, str(tmp_path))
    assert logger.experiment.log_dir == str(tmp_path / "y")
    assert not (tmp_path / "x").exists()


def test_the_means_of_an_epoch():
    found = []

    def look(trainer):
        (mean,) = of_lightning.epoch_results(trainer).values()
        assert mean.is_tensor
        assert mean.meta.on_epoch
        assert mean.meta.is_mean_reduction
        assert not mean.has_reset
        found.append((mean.meta.name, float(mean.value), int(mean.cumulated_batch_size)))

    fit(Look(look))
    assert found == [("x", 0.0, 2), ("x", 2.0, 4), ("x", 6.0, 6)]


def test_the_means_of_an_epoch_are_logged_when_asked_for(tmp_path):
    logger = CSVLogger(tmp_path, flush_logs_every_n_steps=1)

    def stop(trainer):
        of_lightning.log_epoch_means(trainer)
        logger.save()
        found.append((Path(logger.log_dir) / "metrics.csv").read_text().split()[1])

    found = []
    fit(Look(stop, "on_train_epoch_end"), logger=logger)
    assert found == ["0,3,1.0"]


def test_a_metric_computes_again():
    def look(trainer):
        (mean,) = of_lightning.epoch_results(trainer).values()
        before = float(mean.compute())
        mean.value = mean.value + 6
        assert float(mean.compute()) == before, "else the workaround is no longer needed"
        of_lightning.forget_computed(mean)
        found.append(float(mean.compute()) - before)

    found = []
    fit(Look(look, "on_train_epoch_end"))
    assert found == [1.0]


def test_restarting_can_be_unset_in_all_loops():
    trainer = fit(max_epochs=-1, max_steps=3)
    trainer.fit_loop.epoch_loop.restarting = True
    trainer.fit_loop.restarting = False
    assert trainer.fit_loop.restarting, "else the workaround is no longer needed"
    of_lightning.unset_restarting(trainer)
    assert not trainer.fit_loop.restarting
    assert not trainer.fit_loop.epoch_loop.restarting


def test_training_data_are_loaded_again():
    def look(trainer):
        assert trainer.train_dataloader is not None
        of_lightning.drop_training_loader(trainer)
        assert trainer.train_dataloader is None

    fit(Look(look, "on_train_end"))


def test_given_loaders_are_found():
    def look(trainer):
        found.append(len(of_lightning.requested_loader(trainer)))
        found.append(len(of_lightning.loader_from_hook(trainer.datamodule, "other_dataloader")))

    found = []
    fit(Look(look, "on_fit_start"))
    assert found == [3, 2]
    trainer = Trainer(logger=False, accelerator="cpu")
    trainer.fit_loop._data_source.instance = Model()
    assert of_lightning.requested_loader(trainer) is None


def test_limits_and_shuffling_of_loaders():
    assert of_lightning.limited_batches(10, 0.5) == 5
    assert of_lightning.limited_batches(None, 3) == 3
    loader = DataLoader(range(4), sampler=RandomSampler(range(4)))
    with pytest.warns(UserWarning, match="overfit"):
        of_lightning.overfit(loaders := CombinedLoader([loader]))
    assert isinstance(loaders.flattened[0].sampler, SequentialSampler)


def test_loaders_are_prepared():
    loader = DataLoader(torch.ones(6, 1), batch_size=2)
    alone = Trainer(logger=False, accelerator="cpu")
    assert of_lightning.prepare_loader(alone, loader, RunningStage.VALIDATING) is loader
    one_of_two = Trainer(logger=False, accelerator="cpu", devices=2, strategy="ddp")
    assert len(of_lightning.prepare_loader(one_of_two, loader, RunningStage.VALIDATING).sampler) == 3


def test_a_wrapped_sampler_is_found():
    sampler = RandomSampler(range(4))
    assert of_lightning.wrapped_sampler(DistributedSamplerWrapper(sampler, num_replicas=2, rank=0)) is sampler
    assert of_lightning.wrapped_sampler(sampler) is None


def test_objects_attached_in_a_fit_have_the_private_names_we_use():
    def look(trainer):
        module = trainer.lightning_module
        assert of_lightning.attached_datamodule(trainer) is trainer.datamodule
        assert of_lightning.loaders_in_use(trainer) is not None
        assert of_lightning.attached_trainer(module) is trainer
        found.append(float(of_lightning.before_batch_transfer(module, torch.zeros(()), 2)))

    found = []
    fit(Look(look, "on_train_start"))
    assert found == [3.0]
    assert of_lightning.attached_trainer(Model()) is None
    assert of_lightning.attached_datamodule(Trainer(logger=False, accelerator="cpu")) is None


def test_borrowed_attributes_exist(tmp_path):
    """Setting a missing attribute would silently do nothing."""
    assert getattr(TensorBoardLogger(tmp_path, default_hp_metric=False), of_lightning.HP_METRIC) is False
    stopping = EarlyStopping("x", check_on_train_epoch_end=True)
    assert getattr(stopping, of_lightning.STOP_AT_EPOCH_END) is True
    checkpoint = ModelCheckpoint(save_on_train_epoch_end=True)
    assert getattr(checkpoint, of_lightning.SAVE_AT_EPOCH_END) is True
    assert list(inspect.signature(getattr(checkpoint, of_lightning.SAVE_BEST)).parameters) == [
        "trainer",
        "monitor_candidates",
    ]


def test_lightning_saves_the_best_checkpoint_by_the_borrowed_method(tmp_path):
    checkpoint, called = ModelCheckpoint(tmp_path, monitor="x"), []
    setattr(checkpoint, of_lightning.SAVE_BEST, lambda trainer, candidates: called.append(float(candidates["x"])))
    fit(checkpoint, enable_checkpointing=True)
    assert called == [1.0]


def test_checkpoints(tmp_path):
    assert of_lightning.saves_by_epochs(ModelCheckpoint())
    assert not of_lightning.saves_by_epochs(ModelCheckpoint(every_n_train_steps=2))
    checkpoint = ModelCheckpoint(tmp_path)
    assert of_lightning.latest_checkpoint(checkpoint) == ("", 0)
    fit(checkpoint, enable_checkpointing=True)
    assert of_lightning.latest_checkpoint(checkpoint) == (str(tmp_path / "epoch=0-step=3.ckpt"), 3)


def test_the_batch_size_finder_has_the_private_names_we_use():
    finder = BatchSizeFinder(mode="binsearch", init_val=4, max_trials=9, max_val=100)
    assert of_lightning.size_search(finder) == ("binsearch", 4, 100)
    of_lightning.limit_trials(finder, 3)
    of_lightning.limit_trials(finder, 5)
    source = inspect.getsource(BatchSizeFinder.scale_batch_size)
    assert (finder._max_trials, "self._max_trials" in source) == (3, True)


@pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger])
def test_loggers(kind, tmp_path):
    logger = kind(tmp_path, prefix="mine")
    assert of_lightning.tag_prefix_of(logger) == "mine"
    assert of_lightning.asked_version(logger) is None
    of_lightning.set_version(logger, 7)
    assert logger.version == 7
    assert Path(logger.log_dir).name == "version_7"
    assert of_lightning.asked_version(kind(tmp_path, version="named")) == "named"


class Kept(Model):
    def __init__(self, width: int = 1):
        super().__init__()
        self.save_hyperparameters()


def test_a_module_made_by_the_command_line():
    cli = LightningCLI(Kept, Data, run=False, args=["--trainer.logger=false", "--trainer.accelerator=cpu"])
    assert of_lightning.is_from_command_line(cli.model.hparams)
    assert not of_lightning.is_from_command_line(Kept().hparams)


def test_callbacks_are_left_out_of_the_command_line():
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(ModelCheckpoint, "a")
    parser.add_lightning_class_args(ModelCheckpoint, "b")
    of_lightning.leave_out_callbacks(parser, {"a"})
    assert parser.callback_keys == ["b"]


def test_lightnings_observer_is_dismissed():
    child = SimpleNamespace(poll=lambda: None, returncode=None)
    observer = subprocess_script._ChildProcessObserver(main_pid=0, child_processes=[child], sleep_period=0.01)
    observer.start()
    assert observer in threading.enumerate()
    of_lightning.dismiss_process_observers()
    observer.join(10)
    assert not observer.is_alive()


def test_links_are_removed():
    parser = ArgumentParser()
    for name in ("a", "b", "c"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.link_arguments("a", "b")
    parser.link_arguments("a", "c")
    assert parser.parse_args(["--a=3"]).as_dict() == {"a": 3, "b": 3, "c": 3}
    of_jsonargparse.remove_links(parser, "b")
    assert parser.parse_args(["--a=3"]).as_dict() == {"a": 3, "c": 3}


def test_all_tensors_at_once():
    tensors = [torch.tensor([1.0, -3.0]), torch.tensor([2.0])]
    targets = [torch.zeros(2), torch.zeros(1)]
    of_torch.copy_all(targets, tensors)
    of_torch.divide_all(targets, torch.tensor(2.0))
    assert [target.tolist() for target in targets] == [[0.5, -1.5], [1.0]]
    assert [float(value) for value in of_torch.largest_of_all(tensors)] == [3.0, 2.0]
    assert list(of_torch.largest_of_all([])) == []
    assert of_torch.tree_leaves({"a": [1, (2,)], "b": 3}) == [1, 2, 3]


def test_modes_and_profilers_are_noticed():
    observers = [FlopCounterMode(display=False), torch.device("cpu"), torch.profiler.profile()]
    for observer in observers:
        assert not of_torch.is_observed()
        with observer:
            assert of_torch.is_observed()
    assert not of_torch.is_observed()


def test_the_base_of_batch_norms():
    assert issubclass(nn.BatchNorm1d, of_torch.BatchNormBase)
    assert issubclass(nn.BatchNorm3d, of_torch.BatchNormBase)


def test_schedules():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    parts = [ConstantLR(optimizer), ConstantLR(optimizer), ConstantLR(optimizer)]
    assert of_torch.schedule_parts(ChainedScheduler(parts)) == parts
    sequence = SequentialLR(optimizer, parts, milestones=[2, 5])
    assert of_torch.schedule_parts(sequence) == parts
    assert of_torch.milestones(sequence) == [2, 5]
    assert set(of_torch.SCHEDULE_RESULTS) <= vars(OneCycleLR(optimizer, 0.1, total_steps=9)).keys()


def test_a_summary_is_written_unchanged(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        of_torch.add_summary(writer, Summary(value=[Summary.Value(tag="mine", simple_value=2.0)]), 5)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("mine")] == [(5, 2.0)]


def classes_with_private_names_of_a_base():
    """Yield (class, private names that its body uses or defines and that belong to bases outside the package)."""
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        nodes = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]
        if not nodes or name.startswith("integrations"):
            continue
        module = importlib.import_module(f"nc_lightning.{name}")
        for node in nodes:
            used = set(private_names(node)) & names_of_foreign_bases(getattr(module, node.name))
            if used:
                yield f"{name}.{node.name}", used


def private_names(node):
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and ast.unparse(part.value) in ("self", "cls", "super()"):
            yield part.attr
        if isinstance(part, ast.FunctionDef):
            yield part.name


def names_of_foreign_bases(cls):
    names = set()
    for base in cls.__mro__[:-1]:
        if base.__module__.partition(".")[0] in ("lightning", "torch", "torchmetrics"):
            with suppress(OSError):  # parts of torch are not written in Python
                names |= {*vars(base), *re.findall(r"self\.(\w+)", inspect.getsource(base))}
    return {name for name in names if re.fullmatch("_[a-z]\\w*", name)}


def test_private_names_of_bases_are_listed():
    """Fails when a release drops a name or a class of ours uses another one."""
    assert dict(classes_with_private_names_of_a_base()) == INHERITED


def test_no_private_name_is_imported_outside_of_the_fence():
    """SLF001 of Ruff checks attributes, not imports."""
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and any(is_private(name) for name in imported(node))
    }
    assert found == {"private_apis/lightning.py", "private_apis/torch.py"}


def imported(node):
    if node.module.partition(".")[0] not in ("nc_lightning", "__future__"):
        yield from [*node.module.split("."), *(alias.name for alias in node.names)]


def is_private(name):
    return name.startswith("_") and not name.startswith("__")
