"""Every callback on the pretend device: the values of the CPU, and no tensor on the wrong device."""

import os
import signal

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric

import nc_lightning.callbacks
from nc_lightning import HSCL, HUCL
from nc_lightning.callbacks import (
    CheckpointStep,
    CollapseWatch,
    GeometryMonitor,
    GracefulStop,
    HardNegativeSampler,
    InitialWeights,
    NeuralCollapseReached,
    NonFiniteGuard,
    OnlineKNN,
    OnlineLinearProbe,
    PredictionWriter,
    ProcessWatch,
    RandomStates,
    ResumedEpoch,
    RunCheckpoint,
    TensorBoardDashboard,
)
from nc_lightning.callbacks.fault_tolerance.graceful_stop import Interrupted
from nc_lightning.callbacks.fault_tolerance.nonfinite_guard import ends
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import MLP
from nc_lightning.losses import FeatureQueue, HSCLLoss, HUCLLoss, Logistic, SCLLoss, UCLLoss
from tests.on_both import same_on_both
from tests.pretend_device import DEVICE, NAME, Backend, Machine
from tests.pretend_run import fit

DEVICES = ("cpu", NAME)


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp):
    """Run in a temporary folder, for files that callbacks write without a logger."""


def everything(schedule="adaptive"):
    """All callbacks except `InitialWeights`, by name."""
    callbacks = [
        HardNegativeSampler(schedule=schedule, queue_size=300, queue_warmup=0),
        TensorBoardDashboard(),
        GeometryMonitor(),
        OnlineLinearProbe(),
        OnlineKNN(k=5),
        CollapseWatch(share=1.0, patience=1),
        NeuralCollapseReached(1e3, 1e3, 1e3, 1e3, patience=2),
        NonFiniteGuard("skip"),
        PredictionWriter(),
        RandomStates(),
        ResumedEpoch(),
        ProcessWatch(),
        CheckpointStep(),
        RunCheckpoint(save_last=True),
        GracefulStop(),
    ]
    return {type(callback).__name__: callback for callback in callbacks}


def run(device, callbacks, objective=HUCL, data=None, seed=0, **options):
    seed_everything(seed, verbose=False)
    model = objective(encoder=MLP((1, 8, 8), [16]), num_classes=10)
    trainer, machine = fit(device, model, data or DigitsDataModule(batch_size=250), callbacks, **options)
    return model, trainer, machine


def figures(trainer):
    return {key: float(value) for key, value in trainer.callback_metrics.items()}


def weights(model):
    return torch.cat([parameter.detach().cpu().flatten() for parameter in model.parameters()])


def same(device, cpu):
    torch.testing.assert_close(device, cpu, rtol=0, atol=1e-6)


def test_every_callback_is_tested_on_the_device():
    exported = (getattr(nc_lightning.callbacks, name) for name in nc_lightning.callbacks.__all__)
    assert {kind.__name__ for kind in exported if issubclass(kind, Callback)} == {*everything(), "InitialWeights"}


def test_callbacks_in_training_give_the_values_of_the_cpu(tmp_path):
    found = {}
    for device in DEVICES:
        callbacks = everything()
        model, trainer, _ = run(device, callbacks.values(), max_epochs=3, logger=TensorBoardLogger(tmp_path / device))
        found[device] = (callbacks, weights(model), figures(trainer))
    (cpu, cpu_weights, cpu_figures), (device, device_weights, device_figures) = found.values()
    same(device_weights, cpu_weights)
    assert device_figures == pytest.approx(cpu_figures, rel=1e-5, abs=1e-6, nan_ok=True)
    sampler, monitor = device["HardNegativeSampler"], device["GeometryMonitor"]
    assert sampler.queue.features.device == sampler.queue.labels.device == DEVICE
    same(sampler.queue.features.cpu(), cpu["HardNegativeSampler"].queue.features)
    assert sampler.hardness(1.0) == pytest.approx(cpu["HardNegativeSampler"].hardness(1.0), rel=1e-5)
    same(device["OnlineLinearProbe"].classifier.weight.cpu(), cpu["OnlineLinearProbe"].classifier.weight)
    same(monitor.sample.z, cpu["GeometryMonitor"].sample.z)
    assert torch.equal(monitor.sample.images, cpu["GeometryMonitor"].sample.images)
    reached = [callbacks["NeuralCollapseReached"].figures for callbacks in (device, cpu)]
    assert reached[0] == pytest.approx(reached[1], rel=1e-5)
    assert device["CollapseWatch"].state_dict() == cpu["CollapseWatch"].state_dict() == {"in_a_row": 2, "warned": True}
    written = [{p.name for p in tmp_path.joinpath(device).rglob("*") if "tfevents" not in p.name} for device in DEVICES]
    assert written[0] == written[1] >= {"report.html", "projector_config.pbtxt"}


class Sends(Callback):
    """Sends SIGTERM after step 3 of epoch 0."""

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 3:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("start", "end"), [(NAME, NAME), (NAME, "cpu"), ("cpu", NAME)])
def test_a_run_stopped_in_mid_epoch_resumes_on_either_device(tmp_path, start, end):
    whole, trainer, _ = run("cpu", everything("constant").values(), default_root_dir=tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(start, [*everything("constant").values(), Sends()], default_root_dir=tmp_path)
    (path,) = tmp_path.rglob("interrupted-*.ckpt")
    assert {value.device.type for value in torch.load(path, weights_only=True)["state_dict"].values()} == {"cpu"}
    callbacks = everything("constant")
    resumed, again, _ = run(end, callbacks.values(), ckpt_path=path, seed=1, default_root_dir=tmp_path)
    assert callbacks["HardNegativeSampler"].queue.features.device.type == end
    same(weights(resumed), weights(whole))
    assert figures(again) == pytest.approx(figures(trainer), rel=1e-5, abs=1e-6, nan_ok=True)


def test_predictions_and_initial_weights_equal_those_of_the_cpu(tmp_path):
    files = {}
    for device in DEVICES:
        folder = tmp_path / device
        _, trainer, _ = run(device, [], max_epochs=1, default_root_dir=folder)
        trainer.save_checkpoint(folder / "first.ckpt")
        writer = PredictionWriter()
        model, _, _ = run(device, [writer], does="predict", ckpt_path=folder / "first.ckpt", default_root_dir=folder)
        with np.load(writer.written["predict"]) as file:
            files[device] = file["z"], file["labels"]
        second, _, _ = run(device, [InitialWeights(str(folder))], HSCL, seed=1, max_steps=0, default_root_dir=folder)
        assert torch.equal(weights(second), weights(model))
    assert np.abs(files[NAME][0] - files["cpu"][0]).max() < 1e-6
    assert np.array_equal(files[NAME][1], files["cpu"][1])


class Poisoned(DigitsDataModule):
    """Puts a NaN into training batch 1."""

    count = 0

    def on_after_batch_transfer(self, batch, dataloader_idx):
        x, *rest = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.trainer.training:
            x = torch.full_like(x, torch.nan) if self.count == 1 else x
            self.count += 1
        return x, *rest


@pytest.mark.parametrize("device", DEVICES)
def test_the_guard_stops_at_a_bad_value(device):
    with pytest.raises(ValueError, match=r"data: got NaN or infinite inputs in batch 1 of epoch 0 \(step 1, rank 0\)"):
        run(device, [], data=Poisoned(batch_size=250), max_epochs=1)


def test_the_guard_skips_a_bad_step():
    found = {}
    for device in DEVICES:
        callbacks = everything()
        model, trainer, _ = run(device, callbacks.values(), data=Poisoned(batch_size=250), max_epochs=1)
        assert callbacks["NonFiniteGuard"].skipped_steps == 1
        assert torch.isfinite(callbacks["HardNegativeSampler"].queue.features).all()
        found[device] = weights(model), figures(trainer)
    same(found[NAME][0], found["cpu"][0])
    assert found[NAME][1] == pytest.approx(found["cpu"][1], rel=1e-5, abs=1e-6)
    assert 0 < found[NAME][1]["loss/train"] < 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_guard_sees_every_bad_value(dtype):
    with Machine() as machine:
        tensors = [torch.full((4,), torch.finfo(dtype).max, dtype=dtype).to(NAME) for _ in range(20)]
        machine.phase = "call"
        assert len(ends(tensors)) == 20
        assert machine.launches_in("call") == 1
        assert not machine.waits_in("call")
        assert all(torch.isfinite(end).item() for (end,) in ends(tensors))  # squares would overflow
        for bad in (torch.nan, torch.inf, -torch.inf):
            tensors[7][2] = bad
            assert [torch.isfinite(end).item() for (end,) in ends(tensors)].index(False) == 7


def test_callbacks_work_on_a_device_without_float64(tmp_path):
    found = []
    for device in DEVICES:
        logger = TensorBoardLogger(tmp_path / device)
        _, trainer, _ = run(device, everything().values(), HSCL, float64=False, logger=logger)
        found.append(figures(trainer))
    assert found[1] == pytest.approx(found[0], rel=1e-3, abs=1e-4, nan_ok=True)


def test_the_random_states_of_a_device_are_restored(monkeypatch):
    drawn = []
    monkeypatch.setattr(Backend, "get_rng_state", staticmethod(lambda device: torch.tensor([device.index, 5])))
    monkeypatch.setattr(Backend, "set_rng_state", staticmethod(lambda state, device: drawn.append(state.tolist())))
    states = RandomStates()
    states._device = DEVICE
    saved = states.state_dict()
    states.load_state_dict(saved)
    states.restore(0, 1)
    assert drawn == [[0, 5]]
    elsewhere = {"processes": [{("cuda" if k == NAME else k): v for k, v in saved["processes"][0].items()}]}
    for device, kind in ((DEVICE, NAME), (torch.device("cpu"), "cpu")):
        states._device = device
        states.load_state_dict(elsewhere)
        with pytest.warns(UserWarning, match=f"random states: got those of a run on cuda, expected {kind}"):
            states.restore(0, 1)
    assert drawn == [[0, 5]]


def test_random_states_of_an_older_cuda_checkpoint_are_restored(monkeypatch):
    """A checkpoint stores them under the name of the device."""
    drawn = []
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: drawn.append((state, device)))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: None)
    states = RandomStates()
    saved = states.state_dict()["processes"][0]
    states._device = torch.device("cuda", 1)
    states.load_state_dict({"processes": [saved | {"cuda": "state"}]})
    states.restore(0, 1)
    assert drawn == [("state", torch.device("cuda", 1))]
    assert "cuda" in states.state_dict()["processes"][0]


def test_values_reduced_over_processes_are_on_the_device(monkeypatch, in_tmp):
    """A value is reduced on its own device, and NCCL does not support CPUs."""
    update, places = _ResultMetric.update, {}

    def noted(self, value, batch_size):
        if self.meta.sync.should:
            places.setdefault(value.device.type, set()).add(self.meta.name)
        update(self, value, batch_size)

    monkeypatch.setattr(_ResultMetric, "update", noted)
    monkeypatch.setattr(_AcceleratorConnector, "is_distributed", True)  # else Lightning drops the values to reduce
    with pytest.raises(Interrupted):
        run(NAME, [*everything().values(), Sends()])
    callbacks = everything()
    # All sums of the checkpoint must be logged at the end of the epoch, including those of keys no longer logged.
    callbacks["ResumedEpoch"].on_train_batch_end = lambda *_: None
    run(NAME, callbacks.values(), ckpt_path=next(in_tmp.rglob("interrupted-*.ckpt")))
    run(NAME, everything().values(), does="test")
    assert len(places.pop(NAME)) > 60
    assert places == {}


# ------------------------------------------------------------------------------------- what callbacks ask of the losses

Z = torch.randn(24, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 5
LOSSES = {"SCL": SCLLoss, "HSCL": HSCLLoss, "UCL": UCLLoss, "HUCL": HUCLLoss}


def test_a_loaded_queue_is_moved_to_the_device():
    for use in ("push", "loss"):
        with Machine() as machine:
            queue, loss, z, labels = FeatureQueue(100), HSCLLoss(), Z.to(NAME), LABELS.to(NAME)
            queue.load_state_dict({"features": Z, "labels": LABELS, "oldest": 0})
            loss.queue = queue
            for machine.phase in ("first", "later"):
                queue.push(z, labels) if use == "push" else loss(z, labels)
            assert queue.features.device == queue.labels.device == DEVICE
            assert not [k for k in machine.waits_in("later") if "queue" in k[1] or "contrastive" in k[1]]


@pytest.mark.parametrize("options", [{}, {"link": Logistic()}, {"num_negatives": 8}, {"positives": "view"}], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_labels_may_stay_on_the_cpu(name, options):
    loss, instances = LOSSES[name](**options), torch.arange(24) % 12

    def both(z):
        statistics = loss.negative_statistics(z, LABELS, instances)
        assert {value.device for value in statistics.values()} == {z.device}
        assert [part.device for part in loss.whole_batch(z, LABELS)] == [z.device] * 2
        return loss(z, LABELS, instances) + statistics["effective"]

    same_on_both(lambda: both, Z)


@pytest.mark.parametrize("name", ["HSCL", "HUCL"])
def test_statistics_of_negatives_need_no_synchronization(name):
    loss = LOSSES[name]()
    labels = torch.cat([LABELS[:-1], torch.tensor([9])])  # one anchor is unusable
    machine = same_on_both(lambda: loss.negative_statistics, Z, labels, gradient=False)
    assert not [key for key in machine.waits_in("call") if "hardness" in key[1]]
