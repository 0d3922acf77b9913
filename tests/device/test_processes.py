"""Two processes on the pretend device, whose collectives refuse tensors of CPUs, as NCCL does."""

import os
import signal

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, seed_everything
from torch import nn

from nc_lightning import HSCL, HUCL
from nc_lightning.callbacks import (
    GeometryMonitor,
    GracefulStop,
    HardNegativeSampler,
    OnlineLinearProbe,
    PredictionWriter,
    ProcessWatch,
    RandomStates,
    ResumedEpoch,
)
from nc_lightning.callbacks.fault_tolerance.graceful_stop import Interrupted
from nc_lightning.data import LatentClassDataModule
from nc_lightning.distributed.batch_norm import BatchNormSync
from nc_lightning.distributed.collectives import all_gather_objects
from nc_lightning.encoders import MLP
from nc_lightning.geometry import ClassStatistics
from nc_lightning.losses import HSCLLoss, HUCLLoss, Logistic, SCLLoss, UCLLoss
from tests.on_processes import on_processes
from tests.pretend_device import DEVICE, NAME, Machine
from tests.pretend_run import BACKEND, as_process, fit

N = 48
Z = torch.randn(N, 6, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 5
SHARES = [slice(0, 20), slice(20, N)]
LOSSES = {"SCL": SCLLoss, "HSCL": HSCLLoss, "UCL": UCLLoss, "HUCL": HUCLLoss}
OPTIONS = [{}, {"link": Logistic()}, {"num_negatives": 8}, {"temperature": 0.01}, {"positives": "view"}]
CASES = [(name, options) for name in LOSSES for options in OPTIONS]


def value_and_gradient(loss, z, labels, instances):
    torch.manual_seed(0)
    z = z.detach().requires_grad_()
    value = loss(z, labels, instances)
    value.backward()
    return value.detach().cpu(), z.grad.cpu()


def _losses(rank):
    as_process()
    share, found = SHARES[rank], []
    with Machine() as machine:
        z, labels = Z[share].to(NAME), LABELS[share].to(NAME)
        machine.phase = "without instances"
        SCLLoss()(z, labels)
        machine.phase = ""
        for name, options in CASES:
            loss, z, instances = LOSSES[name](**options), Z[share].to(NAME), torch.arange(N)[share] // 2
            # Labels left on the CPU must work in every collective.
            found.append(value_and_gradient(loss, z, LABELS[share], instances))
            statistics = loss.negative_statistics(z, LABELS[share], instances)
            found[-1] += ({key: value.cpu() for key, value in statistics.items()},)
            assert {part.device for part in loss.whole_batch(z, LABELS[share])} == {DEVICE}
        assert all_gather_objects(rank) == [0, 1]
        assert len(all_gather_objects(ClassStatistics(5, 6).update(Z, LABELS))) == 2
    return found, machine.waits_in("without instances")


def test_losses(gloo):
    found, waits = zip(*on_processes(2, _losses, backend=BACKEND), strict=True)
    once = {
        ("to the CPU", "distributed/global_batch.py share_rows"): 1,
        ("to the CPU", "losses/engines/sorted_batch.py sort_batch"): 1,
    }
    assert waits == (once, once)
    for i, (name, options) in enumerate(CASES):
        loss = LOSSES[name](**options)
        value, gradient = value_and_gradient(loss, Z, LABELS, torch.arange(N) // 2)
        statistics = loss.negative_statistics(Z, LABELS, torch.arange(N) // 2)
        for rank, share in enumerate(SHARES):
            torch.testing.assert_close(found[rank][i][0], value, rtol=1e-5, atol=1e-6)
            # Rounding is relative to the largest terms, which temperature 0.01 makes a hundred times as large.
            slack = 1e-6 * max(1.0, 2 * gradient.abs().max().item())
            torch.testing.assert_close(found[rank][i][1], 2 * gradient[share], rtol=1e-4, atol=slack)
            torch.testing.assert_close(found[rank][i][2], statistics, rtol=1e-5, atol=1e-6, equal_nan=True)


NORMS = [(nn.BatchNorm1d, {}), (nn.BatchNorm2d, {}), (nn.BatchNorm1d, {"momentum": None})]


def norm_steps(place, kind, options, share=slice(None)):
    model = BatchNormSync().apply(nn.Sequential(kind(6, **options))).to(place)
    x = (Z if kind is nn.BatchNorm1d else Z[:, :, None, None].expand(-1, -1, 2, 3))[share].to(place)
    found = []
    for step in range(2):
        x = (x + step).detach().requires_grad_()
        y = model(x)
        y.sin().sum().backward()
        found += [y.detach().cpu(), x.grad.cpu()]
    return found, [buffer.cpu() for buffer in model.buffers()]


def _norms(rank):
    as_process()
    with Machine() as machine:
        machine.phase = "steps"
        found = [norm_steps(NAME, *case, SHARES[rank]) for case in NORMS]
        return found, [key for key in machine.waits_in("steps") if "_remember" in key[1] or "_normalize" in key[1]]


def test_batch_norm(gloo):
    found = on_processes(2, _norms, backend=BACKEND)
    for i, case in enumerate(NORMS):
        tensors, buffers = norm_steps("cpu", *case)
        for j, tensor in enumerate(tensors):
            torch.testing.assert_close(torch.cat([f[0][i][0][j] for f in found]), tensor, rtol=1e-4, atol=1e-5)
        for f in found:
            torch.testing.assert_close(f[0][i][1], buffers, rtol=1e-5, atol=1e-6)
    assert [f[1] for f in found] == [[], []]


@pytest.mark.parametrize(
    ("backends", "by_torch"),
    [("nccl", True), ("gloo", False), ("cpu:gloo,cuda:nccl", True), ("xpu:xccl", True), ("cpu:gloo,cuda:gloo", False)],
)
def test_on_gpus_batch_norm_sync_is_that_of_torch(monkeypatch, backends, by_torch):
    """Lightning converts while the parameters are still on the CPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.distributed, "is_initialized", lambda: True)
        patch.setattr(torch.distributed, "get_backend", lambda: backends)
        model = BatchNormSync().apply(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()))
    assert isinstance(model[0], nn.SyncBatchNorm) == by_torch
    kind = type(model[0])
    assert kind is not nn.BatchNorm2d
    assert type(BatchNormSync().revert(model)[0]) is not kind


WAITS = {
    ("to the CPU", "distributed/global_batch.py share_rows"): 1,  # sizes of the shares
    ("to the CPU", "losses/engines/sorted_batch.py sort_batch"): 1,  # number of pairs, and the windows of the classes
    ("item", "callbacks/fault_tolerance/nonfinite_guard.py _all_finite"): 1,
}
"""Host waits of a step by cause. The decision of rank 0 on whether to stop is sent during the step."""
ADAPTIVE_WAITS = WAITS | {("item", "callbacks/hard_negative_sampler.py on_train_batch_end"): 1}  # the fraction reached


def train(device, objective, adaptive):
    """Return weights, metrics and the host waits of a step."""
    seed_everything(0, verbose=False)
    model = objective(encoder=MLP((32,), [16]), num_classes=10)
    data = LatentClassDataModule(batch_size=60, samples_per_class=50)
    sampler = HardNegativeSampler(schedule="adaptive", queue_size=240, queue_warmup=0)
    probe, watch = OnlineLinearProbe(), [RandomStates(), ResumedEpoch(), ProcessWatch(), GracefulStop()]
    callbacks = [*([sampler] if adaptive else []), probe, GeometryMonitor(every_n_epochs=2), *watch]
    trainer, machine = fit(device, model, data, callbacks, plugins=[BatchNormSync()])
    weights = [parameter.detach().cpu() for parameter in [*model.parameters(), *probe.classifier.parameters()]]
    figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
    waits = {key: n / trainer.global_step for key, n in machine.waits_in("step").items() if key[1] != "elsewhere"}
    fit(device, model, data, [PredictionWriter()], does="predict")
    return weights, figures, waits


def _train(rank, device, folder):
    os.chdir(folder)
    if device == NAME:
        as_process()
    return [train(device, HSCL, False), train(device, HUCL, True)]


def test_training(gloo, tmp_path):
    cpu = on_processes(2, _train, "cpu", str(tmp_path))
    device = on_processes(2, _train, NAME, str(tmp_path), backend=BACKEND)
    for rank in (0, 1):
        for (weights, figures, waits), expected, allowed in zip(
            device[rank], cpu[rank], (WAITS, ADAPTIVE_WAITS), strict=True
        ):
            torch.testing.assert_close(weights, expected[0], rtol=0, atol=1e-6)
            assert figures == pytest.approx(expected[1], rel=1e-5, abs=1e-6, nan_ok=True)
            assert waits.keys() == allowed.keys()
            assert not {key: n for key, n in waits.items() if n > allowed[key]}
    on_device, on_cpu = (np.load(tmp_path / f"predictions{i}.npz") for i in ("-3", "-1"))
    assert np.abs(on_device["z"] - on_cpu["z"]).max() < 1e-5


class SignalAt(Callback):
    """Sends SIGTERM to rank 0 in step 3, before or after rank 0 broadcasts its decision."""

    def __init__(self, place):
        self.place = place

    def send(self, trainer, place):
        if (trainer.global_rank, trainer.global_step, self.place) == (0, 2 + (place == "end"), place):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_before_backward(self, trainer, *_):
        self.send(trainer, "backward")

    def on_train_batch_end(self, trainer, *_):
        self.send(trainer, "end")


def _stop(rank, folder):
    as_process()
    os.chdir(folder)
    codes = []
    for place in ("backward", "end"):
        model = HSCL(encoder=MLP((32,), [16]), num_classes=10)
        data = LatentClassDataModule(batch_size=30, samples_per_class=50)
        options = {"default_root_dir": place, "max_epochs": 1}
        try:
            fit(NAME, model, data, [SignalAt(place), GracefulStop()], **options)
        except Interrupted as interrupted:
            codes.append(interrupted.code)
    return codes


def test_processes_stop_after_the_same_step(gloo, tmp_path):
    assert on_processes(2, _stop, str(tmp_path), backend=BACKEND) == [[143, 143]] * 2
    saved = [next(tmp_path.joinpath(place).rglob("interrupted-*")).name for place in ("backward", "end")]
    assert saved == ["interrupted-epoch=0-step=3.ckpt", "interrupted-epoch=0-step=4.ckpt"]
