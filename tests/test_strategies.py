"""Each strategy of Lightning and torch.compile gives the results of the plain run or is refused in one line."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn

from nc_lightning import HSCL, HUCL
from nc_lightning.callbacks import GeometryMonitor, HardNegativeSampler, NonFiniteGuard, OnlineLinearProbe, ProcessWatch
from nc_lightning.cli import main
from nc_lightning.data import DigitsDataModule, LatentClassDataModule
from nc_lightning.distributed.batch_norm import BatchNormSync
from nc_lightning.encoders import MLP, ResNet, SmallCNN, SmallResNet
from nc_lightning.io.checkpoints import AtomicCheckpointIO
from nc_lightning.strategies import FSDP2Strategy, _by_name
from tests.on_processes import on_processes

QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}


class End(NamedTuple):
    """The final state of a training, as unsharded tensors."""

    weights: dict
    metrics: dict
    is_sharded: bool


class Seen(Callback):
    def on_train_end(self, trainer, pl_module):
        is_sharded = all(hasattr(weight, "full_tensor") for weight in pl_module.parameters())
        whole = {key: getattr(v, "full_tensor", v.clone)().detach() for key, v in pl_module.state_dict().items()}
        self.end = End(whole, {key: value.item() for key, value in trainer.callback_metrics.items()}, is_sharded)


def fit(strategy, processes=2, folder=None, epochs=2, resume=None, callbacks=(), data=None, **options):
    torch.manual_seed(0)
    model = HUCL(encoder=MLP((32,), [16]), num_classes=10, beta=5.0)
    sampler, seen = HardNegativeSampler(schedule="adaptive", queue_size=240), Seen()
    saving = [ModelCheckpoint(folder, filename="end")] if folder else []
    trainer = Trainer(
        max_epochs=epochs,
        devices=processes,
        strategy=FSDP2Strategy() if strategy == "fsdp2" else strategy,
        plugins=[BatchNormSync(), AtomicCheckpointIO()],
        callbacks=[sampler, OnlineLinearProbe(), GeometryMonitor(), ProcessWatch(), *callbacks, *saving, seen],
        enable_checkpointing=bool(folder),
        **QUIET,
        **options,
    )
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = data or LatentClassDataModule(batch_size=120 // processes, samples_per_class=50)
        trainer.fit(model, data, ckpt_path=resume)
    return seen.end


def assert_same(one, other):
    assert one.weights.keys() == other.weights.keys()
    for key, weight in one.weights.items():
        torch.testing.assert_close(other.weights[key], weight, rtol=0, atol=1e-5, msg=key)
    assert other.metrics == pytest.approx(one.metrics, rel=1e-3, abs=1e-4, nan_ok=True)


CASES = {
    "plain": {},
    "accumulated and clipped": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.05},
    "bf16-mixed": {"precision": "bf16-mixed"},
}


def _fit_cases(rank, strategy):
    return {name: fit(strategy, **options) for name, options in CASES.items()}


@pytest.mark.slow
def test_fsdp2_equals_ddp(gloo):
    ddp, fsdp2 = (on_processes(2, _fit_cases, strategy) for strategy in ("ddp", "fsdp2"))
    for name in CASES:
        assert not ddp[0][name].is_sharded
        assert fsdp2[0][name].is_sharded
        for rank in (0, 1):
            assert_same(ddp[rank][name], fsdp2[rank][name])


def _exchange(rank, folder):
    ends = {}
    for first in ("ddp", "fsdp2"):
        fit(first, folder=f"{folder}/{first}", epochs=1)
        for second in ("ddp", "fsdp2"):
            ends[first, second] = fit(second, resume=f"{folder}/{first}/end.ckpt")
    return ends


@pytest.mark.exhaustive
def test_checkpoints_resume_under_ddp_fsdp2_and_one_process(gloo, tmp_path):
    ends = on_processes(2, _exchange, str(tmp_path))[0]
    for pair in ends:
        assert_same(ends["ddp", "ddp"], ends[pair])
    alone = [fit("auto", processes=1, resume=tmp_path / first / "end.ckpt") for first in ("ddp", "fsdp2")]
    assert_same(*alone)


def test_optimizer_states_are_matched_by_position_in_the_groups():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    weights, biases = ([getattr(layer, name) for layer in model] for name in ("weight", "bias"))
    optimizer = torch.optim.Adam([{"params": weights}, {"params": biases}])
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    named = _by_name(optimizer.state_dict(), optimizer, model)
    assert [group["params"] for group in named["param_groups"]] == [["0.weight", "1.weight"], ["0.bias", "1.bias"]]
    for name, parameter in model.named_parameters():
        assert named["state"][name]["exp_avg"].shape == parameter.shape


class Bad(Callback):
    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step == 2 and trainer.global_rank == 1:
            pl_module.projector.weight.grad.to_local().fill_(torch.nan)


def _fit_bad(rank):
    with pytest.raises(
        ValueError, match=r"gradient: got NaN .* of projector\.weight, in batch 2 of epoch 0 \(step 2, ra"
    ):
        fit("fsdp2", callbacks=[Bad(), NonFiniteGuard()], data=LatentClassDataModule(batch_size=60))
    return fit("fsdp2", callbacks=[Bad(), NonFiniteGuard("skip")], data=LatentClassDataModule(batch_size=60))


@pytest.mark.slow
def test_the_guard_finds_a_bad_gradient_in_the_share_of_one_process(gloo, in_tmp):
    for end in on_processes(2, _fit_bad):
        assert end.metrics["loss/skipped_steps"] == 1
        assert all(weight.isfinite().all() for weight in end.weights.values())


@pytest.mark.exhaustive
@pytest.mark.parametrize("strategy", ["ddp_fork", "ddp_spawn"])
def test_processes_can_be_forked_or_spawned_from_python(gloo, repository, strategy):
    expected = on_processes(2, _fit_briefly, "ddp")[0]
    # In a separate process: torch refuses to train in a fork of one that has trained.
    code = "import json; from tests.test_strategies import _fit_briefly as fit; "
    code += f"print(json.dumps(fit(None, {strategy!r})))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    # Callbacks stay in the processes; only metrics are returned.
    metrics = json.loads(run.stdout.splitlines()[-1])
    assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)


def _fit_briefly(rank, strategy):
    torch.manual_seed(0)
    model = HSCL(encoder=MLP((32,), [16]), num_classes=10)
    callbacks = [OnlineLinearProbe(), GeometryMonitor(), ProcessWatch()]
    trainer = Trainer(
        max_epochs=1, devices=2, strategy=strategy, callbacks=callbacks, enable_checkpointing=False, **QUIET
    )
    torch.manual_seed(1)
    trainer.fit(model, LatentClassDataModule(batch_size=60, samples_per_class=50))
    return {key: value.item() for key, value in trainer.callback_metrics.items()}


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed", "deepspeed_stage_2"])
def test_an_unsupported_strategy_is_refused(in_tmp, refusal, strategy):
    line = refusal(main, ["fit", "--config=hscl.yaml", f"--trainer.strategy={strategy}"])
    assert line.startswith(f"nc-train: error: --trainer.strategy: got {strategy}, expected ddp")
    assert not list(Path().iterdir())


def test_model_parallelism_of_lightning_is_refused():
    model = HSCL(encoder=MLP((32,), [16]), num_classes=10)
    trainer = Trainer(strategy=ModelParallelStrategy(), devices=1, max_epochs=1, enable_checkpointing=False, **QUIET)
    with pytest.raises(ValueError, match="strategy: got ModelParallelStrategy, expected ddp, or"):
        trainer.fit(model, LatentClassDataModule(batch_size=60, samples_per_class=50))


def test_fsdp2_synchronizes_batch_norm_before_sharding(gloo, monkeypatch):
    """As on GPUs, SyncBatchNorm of torch replaces each BatchNorm; only its kernels are those of a CPU."""

    def normalize(self, x):
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )

    monkeypatch.setattr("nc_lightning.distributed.batch_norm._meets_on_cpus", lambda: False)
    monkeypatch.setattr(nn.SyncBatchNorm, "forward", normalize)
    model = HSCL(encoder=MLP((32,), [16]), num_classes=10)
    options = {"strategy": FSDP2Strategy(), "plugins": [BatchNormSync()], "enable_checkpointing": False}
    trainer = Trainer(devices=1, max_epochs=1, **options, **QUIET)
    trainer.fit(model, LatentClassDataModule(batch_size=120, samples_per_class=50))
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(type(norm).__name__.endswith("SyncBatchNorm") for norm in norms)
    assert torch.isfinite(trainer.callback_metrics["loss/train"])


def test_fsdp2_is_refused_with_a_learned_temperature():
    model = HSCL(encoder=MLP((32,), [16]), num_classes=10)
    model.loss = nn.Linear(1, 1)
    model._device_mesh = {"data_parallel": None}
    with pytest.raises(ValueError, match="loss: got learned parameters, expected none under FSDP2"):
        model.configure_model()


ENCODERS = {
    "MLP": lambda: (MLP((1, 8, 8), [16]), torch.rand(20, 1, 8, 8)),
    "SmallCNN": lambda: (SmallCNN((3, 8, 8), width=4), torch.rand(20, 3, 8, 8)),
    "SmallResNet": lambda: (SmallResNet((3, 8, 8), widths=[4, 6]), torch.rand(20, 3, 8, 8)),
    "ResNet": lambda: (ResNet((3, 16, 16)), torch.rand(20, 3, 16, 16)),
}


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield torch._dynamo
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_compiles_into_one_graph(dynamo, name):
    encoder, x = ENCODERS[name]()
    explained = dynamo.explain(HSCL(encoder=encoder, num_classes=10).forward)(x)
    assert (explained.graph_count, explained.graph_break_count) == (1, 0)


def test_a_compiled_step_does_not_split_the_loss(dynamo):
    model = HSCL(encoder=MLP((1, 8, 8), [16]), num_classes=10)
    model._log_epoch = lambda *_, **__: None
    batch = torch.rand(20, 1, 8, 8), torch.arange(10).repeat(2)
    explained = dynamo.explain(model.training_step)(batch, 0)
    places = {frame.filename for reason in explained.break_reasons for frame in reason.user_stack}
    assert places
    assert not [place for place in places if "nc_lightning/losses" in Path(place).as_posix()]


@pytest.mark.exhaustive
def test_a_compiled_training_equals_the_plain_one(dynamo):
    metrics = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = HSCL(encoder=MLP((1, 8, 8), [16]), num_classes=10)
        model = torch.compile(model, backend="eager") if compiled else model
        trainer = Trainer(
            max_epochs=1,
            limit_train_batches=2,
            callbacks=[OnlineLinearProbe(), GeometryMonitor()],
            enable_checkpointing=False,
            **QUIET,
        )
        torch.manual_seed(1)
        trainer.fit(model, DigitsDataModule(batch_size=250))
        metrics.append({key: value.item() for key, value in trainer.callback_metrics.items()})
    assert metrics[0] == metrics[1]


def test_the_fsdp_overlay_runs_on_one_process(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    quick = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.devices=1"]
    cli = main(["fit", "--config=hscl.yaml", "--config=fsdp.yaml", *quick, "--trainer.enable_progress_bar=false"])
    assert isinstance(cli.trainer.strategy, FSDP2Strategy)
    assert all(hasattr(weight, "full_tensor") for weight in cli.model.parameters())
