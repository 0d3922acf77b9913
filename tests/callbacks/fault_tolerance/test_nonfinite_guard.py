import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL, HUCL, SCL, UCL
from nc_lightning.callbacks import HardNegativeSampler, NonFiniteGuard, OnlineLinearProbe
from nc_lightning.callbacks.fault_tolerance.nonfinite_guard import _floats, ends, totals
from nc_lightning.cli import main
from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.data import ArrayDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.losses import LossResult

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}


class PoisonedGradient(torch.autograd.Function):
    """The identity with a wrong gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.full_like(gradient, torch.nan)


class Poison(nn.Module):
    """Poisons the gradient of one forward pass, counted from 0."""

    def __init__(self, at=2):
        super().__init__()
        self.at, self.calls = at, 0

    def forward(self, x):
        self.calls += self.training
        return PoisonedGradient.apply(x) if self.training and self.calls == self.at + 1 else x


class Watch(Callback):
    """Remembers the state before and after each step, and what callbacks see of it."""

    def __init__(self):
        self.before, self.after, self.optimizer, self.seen = [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before.append({key: value.clone() for key, value in pl_module.state_dict().items()})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.after.append({key: value.clone() for key, value in pl_module.state_dict().items()})
        state = trainer.optimizers[0].state_dict()["state"]
        self.optimizer.append([value.clone() for entry in state.values() for value in entry.values()])
        self.seen.append(outputs)


def make(objective=HSCL, **kwargs):
    normed = nn.Sequential(nn.Flatten(), nn.Linear(32, 24), nn.BatchNorm1d(24), nn.ReLU())
    normed.out_features = 24
    return objective(**({"encoder": normed, "num_classes": 10} | kwargs))


def loader(poisoned_batch=None, value=math.nan):
    x, labels = torch.randn(100, 32), torch.arange(10).repeat(10)
    if poisoned_batch is not None:
        x[20 * poisoned_batch + 5, 3] = value
    return DataLoader(TensorDataset(x, labels), batch_size=20)


def fit(model, data, folder, *callbacks, epochs=1, **kwargs):
    trainer = Trainer(max_epochs=epochs, default_root_dir=folder, callbacks=list(callbacks), **QUIET, **kwargs)
    trainer.fit(model, data)
    return trainer


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("objective", [SCL, HSCL, UCL, HUCL])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_poisoned_inputs_stop_every_objective(objective, value, tmp_path):
    with pytest.raises(ValueError, match="got NaN or infinite") as error:
        fit(make(objective), loader(1, value), tmp_path)
    (line,) = str(error.value).splitlines()
    assert line.startswith("data: got NaN or infinite inputs in batch 1 of epoch 0 (step 1, rank 0), expected finite")
    assert "look at the samples of this batch, or skip such steps with on_nonfinite; the state before this" in line


@pytest.mark.parametrize("checkpoints", [True, False])
def test_the_checkpoint_holds_the_state_before_the_bad_step(checkpoints, tmp_path):
    watch = Watch()
    callbacks = [watch, ModelCheckpoint(tmp_path / "mine")] if checkpoints else [watch]
    with pytest.raises(ValueError, match="data: ") as error:
        fit(make(), loader(3), tmp_path, *callbacks, enable_checkpointing=checkpoints)
    path = Path(str(error.value).rpartition(" is in ")[2])
    assert path == (tmp_path / "mine" if checkpoints else tmp_path) / "before-nonfinite-epoch=0-step=3.ckpt"
    saved = torch.load(path, weights_only=True)
    assert equal(saved["state_dict"], watch.before[3])  # the running statistics included
    assert saved["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_no_checkpoint_is_overwritten(tmp_path):
    for name in ("before-nonfinite-epoch=0-step=1.ckpt", "before-nonfinite-epoch=0-step=1-1.ckpt"):
        with pytest.raises(ValueError, match=re.escape(f"is in {tmp_path / name}")):
            fit(make(), loader(1), tmp_path, enable_checkpointing=False)


def test_a_full_disk_does_not_hide_the_reason(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    with pytest.raises(ValueError, match=r"data: got NaN .* could not be saved to .*No space left"):
        fit(make(), loader(1), tmp_path)


def test_non_finite_weights_stop_the_run(tmp_path):
    model = make()
    with torch.no_grad():
        model.projector.weight[0, 0] = torch.nan
    for on_nonfinite in ("raise", "skip"):  # every later step is bad too
        with pytest.raises(ValueError, match=r"features: got NaN or infinite z in batch 0 .* the weight projector"):
            fit(model, loader(), tmp_path, NonFiniteGuard(on_nonfinite))


def test_an_exploding_learning_rate_stops_the_run(tmp_path):
    model = make(SCL, encoder=MLP((32,), (24,)), normalization="none", optimizer=lambda p: torch.optim.SGD(p, lr=1e30))
    with pytest.raises(ValueError, match=r"^(features|loss|gradient): .*lower the learning rate"):
        fit(model, loader(), tmp_path, epochs=5)


def test_a_non_finite_loss_of_finite_features_is_named(tmp_path):
    model = make()
    model.loss.compute = lambda z, labels, instances: LossResult(z.sum() * math.inf, len(z), len(z))
    with pytest.raises(ValueError, match=r"loss: got (inf|nan) in batch 0 of epoch 0 \(step 0, rank 0\) from finite f"):
        fit(model, loader(), tmp_path)


def test_a_bad_gradient_is_reported_with_the_first_parameter_the_backward_pass_reaches(tmp_path):
    model = make()
    model.encoder.insert(3, Poison(at=2))
    with pytest.raises(ValueError, match="gradient: ") as error:
        fit(model, loader(), tmp_path)
    assert "in that of encoder.2.bias, in batch 2 of epoch 0 (step 2, rank 0) from a finite loss" in str(error.value)


@pytest.mark.parametrize("optimizer", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
@pytest.mark.parametrize("where", ["inputs", "gradient"])
def test_skip_leaves_weights_and_optimizer_unchanged(where, optimizer, tmp_path):
    model, watch, guard = make(optimizer=optimizer), Watch(), NonFiniteGuard("skip")
    if where == "gradient":
        model.encoder.append(Poison(at=2))
    with pytest.warns(UserWarning, match=r"(data|gradient): got .*in batch 2 .*; the step is skipped") as warned:
        trainer = fit(model, loader(2 if where == "inputs" else None), tmp_path, watch, guard, epochs=2)
    skipped = [2, 7] if where == "inputs" else [2]
    assert guard.skipped_steps == len(skipped)
    assert sum("is skipped" in str(warning.message) for warning in warned) == 1
    for step, (before, after) in enumerate(zip(watch.before, watch.after, strict=True)):
        if where == "gradient" and step in skipped:  # the batch was good, so the running statistics may include it
            before, after = ({key: state[key] for key, _ in model.named_parameters()} for state in (before, after))
        assert equal(before, after) == (step in skipped), step
        if step in skipped:
            assert all(torch.equal(a, b) for a, b in zip(*watch.optimizer[step - 1 : step + 1], strict=True))
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert trainer.callback_metrics["loss/skipped_steps"] == len(skipped)
    assert torch.isfinite(trainer.callback_metrics["loss/train"])
    assert trainer.global_step == 10
    assert not list(tmp_path.rglob("before-nonfinite*"))


def test_the_guard_does_not_change_a_finite_run(tmp_path):
    weights = []
    for guarded in (True, False):
        torch.manual_seed(0)
        model = make()
        if not guarded:
            model.configure_callbacks = lambda: []
        trainer = fit(model, loader(), tmp_path)
        assert any(isinstance(callback, NonFiniteGuard) for callback in trainer.callbacks) == guarded
        assert "loss/skipped_steps" not in trainer.callback_metrics
        weights.append(model.state_dict())
        assert not model._forward_hooks
    assert equal(*weights)


def test_skipped_features_do_not_poison_other_callbacks(tmp_path):
    sampler, probe = HardNegativeSampler(queue_size=50, queue_warmup=0), OnlineLinearProbe()
    with pytest.warns(UserWarning, match="is skipped"):
        fit(make(), loader(1), tmp_path, probe, sampler, NonFiniteGuard("skip"), epochs=2)
    assert torch.isfinite(sampler.queue.features).all()
    assert torch.isfinite(probe.classifier.weight).all()


def test_with_accumulated_gradients_the_bad_batch_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"data: .*in batch 1 of epoch 0 \(step 0, rank 0\)"):
        fit(make(SCL), loader(1), tmp_path, accumulate_grad_batches=3)


class Somebodys(LightningModule):
    """A classifier that does not use this package."""

    def __init__(self, manual=False):
        super().__init__()
        self.layer, self.automatic_optimization = nn.Linear(32, 10), not manual

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("manual", [False, True])
def test_the_guard_works_with_any_module(manual, tmp_path):
    with pytest.raises(ValueError, match="data: got NaN or infinite inputs in batch 2 of epoch 0"):
        fit(Somebodys(manual), loader(2), tmp_path, NonFiniteGuard())
    model, guard = Somebodys(manual), NonFiniteGuard("skip")
    with pytest.warns(UserWarning, match="is skipped"):
        fit(model, loader(2), tmp_path, guard)
    assert torch.isfinite(model.layer.weight).all()
    assert guard.skipped_steps == 1


def test_a_bad_parameter_outside_the_module_is_found(tmp_path):
    model, stranger = Somebodys(), nn.Parameter(torch.zeros(()))
    step = model.training_step
    model.training_step = lambda *args: step(*args) + PoisonedGradient.apply(stranger)
    model.configure_optimizers = lambda: torch.optim.SGD([*model.parameters(), stranger], lr=0.1)
    with pytest.raises(ValueError, match="gradient: .* in that of a parameter that is not the module's"):
        fit(model, loader(), tmp_path, NonFiniteGuard())


def test_infinite_fp16_gradients_are_left_to_the_gradient_scaler(tmp_path):
    model = make(SCL)
    model.encoder.append(Poison(at=2))
    guard, half = NonFiniteGuard(), MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    fit(model, loader(), tmp_path, guard, plugins=[half])
    assert guard.skipped_steps == 0
    assert half.scaler.get_scale() == 65536 / 2
    half = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(ValueError, match="data: got NaN"):
        fit(make(SCL), loader(1), tmp_path, plugins=[half])


def test_the_number_of_skipped_steps_is_checkpointed(tmp_path):
    guard = NonFiniteGuard("skip")
    with pytest.warns(UserWarning, match="is skipped"):
        trainer = fit(make(), loader(1), tmp_path, guard)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    again = NonFiniteGuard("skip")
    trainer = Trainer(max_epochs=2, callbacks=[again], default_root_dir=tmp_path, **QUIET)
    trainer.fit(make(), loader(), ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    assert again.skipped_steps == 1


def test_extremes_are_finite_exactly_if_all_values_are():
    values = [torch.tensor([1.0, -3.0]), torch.zeros(2, 2, dtype=torch.float64)]
    assert [[end.item() for end in of_one] for of_one in ends(values)] == [[-3.0, 1.0], [0.0, 0.0]]
    assert ends([]) == []
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for bad in (math.nan, math.inf, -math.inf):
            good, poisoned = ends([torch.ones(3, dtype=dtype), torch.tensor([1.0, bad, 2.0], dtype=dtype)])
            assert all(torch.isfinite(end) for end in good)
            assert not all(torch.isfinite(end) for end in poisoned)
        # Squares would overflow, so none is computed.
        (large,) = ends([torch.full((4,), torch.finfo(dtype).max, dtype=dtype)])
        assert all(torch.isfinite(end) for end in large)


def test_totals_are_finite_only_if_all_values_are():
    for bad in (math.nan, math.inf, -math.inf):
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            values = torch.randn(300).to(dtype)
            assert all(torch.isfinite(total) for (total,) in totals([values]))
            values[17] = bad
            assert [bool(torch.isfinite(total)) for (total,) in totals([torch.ones(3), values])] == [True, False]


class Steep(LightningModule):
    """Has finite gradients, whose sum overflows."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))

    def training_step(self, batch, batch_idx):
        return (self.weight * 2e38).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-38)


def test_values_of_sparse_gradients_are_checked():
    indices, values = torch.tensor([[0, 0, 2]]), torch.tensor([1.0, torch.nan, 2.0])
    (found,) = _floats([torch.sparse_coo_tensor(indices, values, (3,))])
    assert found.isnan().tolist() == [True, False]


def test_large_finite_gradients_are_not_reported(tmp_path):
    guard = NonFiniteGuard("skip")
    module = Steep()
    trainer = Trainer(max_steps=1, callbacks=guard, default_root_dir=tmp_path, enable_checkpointing=False, **QUIET)
    trainer.fit(module, DataLoader(torch.zeros(12, 1), batch_size=4))
    assert guard.skipped_steps == 0
    assert module.weight.tolist() == pytest.approx([-2.0] * 8)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="on_nonfinite: got 'ignore', expected one of raise, skip"):
        NonFiniteGuard("ignore")


def arrays():
    x, y = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32), np.arange(60) % 3
    np.savez("mine.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    return ["--data=nc_lightning.data.ArrayDataModule", "--data.path=mine.npz", "--data.batch_size=30"]


SHORT = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def test_the_guard_can_be_set_from_the_command_line(in_tmp, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])

    def poisoned(self):
        # In the file itself, bad values would be refused before training.
        splits = read(self)
        splits["train"].x[:, 2] = math.nan
        return splits

    read = ArrayDataModule.make_splits
    monkeypatch.setattr(ArrayDataModule, "make_splits", poisoned)
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        main(["fit", "--config=hscl.yaml", *arrays(), *SHORT])
    monkeypatch.setattr(ArrayDataModule, "make_splits", read)
    assert exit_.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert re.match(
        r"nc-train: error: data: got NaN or infinite inputs in batch \d of epoch 0 \(step \d, rank 0\)", line
    )
    (saved,) = Path().glob("lightning_logs/*/checkpoints/before-nonfinite-*.ckpt")
    assert line.endswith(f" is in {saved.absolute()}")
    cli = main(["fit", "--config=hscl.yaml", "--nonfinite.on_nonfinite=skip", *arrays(), *SHORT])
    (guard,) = [callback for callback in cli.trainer.callbacks if isinstance(callback, NonFiniteGuard)]
    assert guard.on_nonfinite == "skip"


IN_PROCESSES = """
import json, sys, torch
from pathlib import Path
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from nc_lightning import SCL
from nc_lightning.callbacks import NonFiniteGuard

what, on_nonfinite = sys.argv[1:]
tell = {}
torch.set_num_threads(1)
torch.manual_seed(0)

class Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()
    @staticmethod
    def backward(ctx, gradient):
        return torch.full_like(gradient, torch.nan)

class Encoder(nn.Sequential):
    out_features = 8
    def forward(self, x):
        h = super().forward(x)
        return Poison.apply(h) if what == "gradient" and trainer.global_rank == 1 and trainer.global_step == 2 else h

class Watch(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 2:
            if what == "inputs" and trainer.global_rank == 1:
                batch[0][3, 0] = torch.nan
            self.before = [p.clone() for p in pl_module.parameters()]
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            tell["unchanged"] = all(torch.equal(a, b) for a, b in zip(self.before, pl_module.parameters()))
    def on_train_end(self, trainer, pl_module):
        tell["weights"] = sum(p.double().sum() for p in pl_module.parameters()).item()
        tell["skipped"] = guard.skipped_steps

x, labels = torch.randn(160, 4), torch.arange(4).repeat(40)
guard = NonFiniteGuard(on_nonfinite)
trainer = Trainer(max_epochs=1, accelerator="cpu", devices=2, strategy="ddp", logger=False, callbacks=[Watch(), guard],
                  enable_progress_bar=False, enable_model_summary=False)
model = SCL(encoder=Encoder(nn.Linear(4, 8), nn.BatchNorm1d(8)), num_classes=4)
try:
    trainer.fit(model, DataLoader(TensorDataset(x, labels), batch_size=20))
except ValueError as error:
    tell["error"] = str(error)
Path(f"{trainer.global_rank}.json").write_text(json.dumps(tell))
"""


@pytest.mark.some(1)
@pytest.mark.slow
@pytest.mark.parametrize("on_nonfinite", ["raise", "skip"])
@pytest.mark.parametrize("what", ["inputs", "gradient"])
def test_two_processes_make_the_same_decision(gloo, tmp_path, what, on_nonfinite):
    (tmp_path / "fit.py").write_text(IN_PROCESSES)
    command = [sys.executable, "fit.py", what, on_nonfinite]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    one, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    on, first = ("rank 1", "data: got NaN") if what == "inputs" else ("every rank", "gradient: got NaN")
    if on_nonfinite == "raise":
        assert one["error"].startswith(first)
        assert f"in batch 2 of epoch 0 (step 2, {on})" in one["error"]
        assert len(list(tmp_path.rglob("before-nonfinite-epoch=0-step=2*.ckpt"))) == 1
    else:
        assert one["unchanged"]
        assert one["skipped"] == 1
        assert math.isfinite(one["weights"])
        assert run.stderr.count("the step is skipped") == 1


def test_under_16_true_the_error_names_the_precision(tmp_path):
    model = SCL(encoder=MLP((32,), [8]), num_classes=10, optimizer=lambda p: torch.optim.SGD(p, lr=6e4))
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(precision="16-true", max_epochs=3, default_root_dir=tmp_path, **options)
    with pytest.raises(ValueError, match="16-true holds nothing above 65504 and nothing below 6e-8: set precision to"):
        trainer.fit(model, LatentClassDataModule(batch_size=40, samples_per_class=30))
