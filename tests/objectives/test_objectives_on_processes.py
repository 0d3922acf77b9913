"""Training on several processes gives the weights, queue, probe, losses and geometry of one process."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL, HUCL, SCL, UCL
from nc_lightning.callbacks import GeometryMonitor, HardNegativeSampler, OnlineLinearProbe
from nc_lightning.data import LatentClassDataModule
from nc_lightning.distributed.batch_norm import BatchNormSync
from nc_lightning.encoders import MLP
from tests.on_processes import on_processes

GLOBAL_BATCH = 120
OBJECTIVES = {
    "SCL": lambda encoder: SCL(encoder=encoder, num_classes=10),
    "UCL": lambda encoder: UCL(encoder=encoder, num_classes=10, temperature=0.5),
    "HSCL": lambda encoder: HSCL(encoder=encoder, num_classes=10, beta=5.0),
    "HUCL": lambda encoder: HUCL(encoder=encoder, num_classes=10, beta=5.0),
}
QUIET = {
    "accelerator": "cpu",
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "logger": False,
}


class Seen(Callback):
    """The losses and everything else that callbacks can see at the end."""

    def on_train_end(self, trainer, pl_module):
        self.metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}


def fit(rank, world_size, name, sync="global"):
    torch.manual_seed(0)
    model = OBJECTIVES[name](MLP((32,), [16]))
    model.loss.sync = sync
    probe = OnlineLinearProbe()
    # Two whole batches: with half a batch, the content of the queue would depend on the order.
    sampler, seen = HardNegativeSampler(schedule="adaptive", queue_size=2 * GLOBAL_BATCH), Seen()
    samplers = [sampler] if name.startswith("H") else []
    trainer = Trainer(
        max_epochs=3,
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        precision="64-true",
        log_every_n_steps=3,
        plugins=[BatchNormSync()],
        callbacks=[*samplers, probe, GeometryMonitor(), seen],
        **QUIET,
    )
    torch.manual_seed(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(model, LatentClassDataModule(batch_size=GLOBAL_BATCH // world_size, samples_per_class=50))
    state = {**model.state_dict(), **{f"probe.{k}": v for k, v in probe.classifier.state_dict().items()}}
    if samplers:
        queue = sampler.queue.features
        state |= {"beta": torch.tensor(sampler.hardness(1.0)), "queue": queue[queue[:, 0].argsort()]}
    return state, seen.metrics, [str(warning.message) for warning in caught]


def _fit_all(rank, world_size):
    return {name: fit(rank, world_size, name) for name in OBJECTIVES}


@pytest.fixture(scope="module")
def alone():
    return on_processes(1, _fit_all, 1)[0]


@pytest.mark.some(1)
@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_train_like_one(gloo, alone, world_size):
    for found in on_processes(world_size, _fit_all, world_size):
        for name, (state, metrics, messages) in found.items():
            expected_state, expected_metrics, _ = alone[name]
            for key, value in expected_state.items():
                assert torch.allclose(state[key], value, rtol=0, atol=1e-9), (name, key)
            assert metrics == pytest.approx(expected_metrics, rel=1e-6, abs=1e-6, nan_ok=True), name
            assert not [message for message in messages if "sync_dist" in message], messages


@pytest.mark.slow
def test_local_losses_train_to_other_weights(gloo, alone):
    (state, metrics, _), (other, others, _) = on_processes(2, fit, 2, "HUCL", "local")
    expected, _, _ = alone["HUCL"]
    assert not torch.allclose(state["projector.weight"], expected["projector.weight"], atol=1e-4)
    assert torch.equal(state["projector.weight"], other["projector.weight"])
    assert torch.equal(state["beta"], other["beta"])
    assert metrics == pytest.approx(others, nan_ok=True)


def loader(count):
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, 32, generator=generator, dtype=torch.float64)
    return DataLoader(TensorDataset(x, torch.arange(count) % 10), batch_size=20)


class NoBatchNorm(torch.nn.Linear):
    def __init__(self):
        super().__init__(32, 8)


def _unequal(rank):
    options = {"devices": 2, "strategy": "ddp", "precision": "64-true", "use_distributed_sampler": False, **QUIET}
    model = HSCL(encoder=NoBatchNorm(), num_classes=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Trainer(max_epochs=1, num_sanity_val_steps=0, **options)
        trainer.fit(model, loader(60), loader(40 + 20 * rank))
    value = trainer.callback_metrics["loss/val"].item()
    with pytest.raises(ValueError, match="train_dataloader: got 3, 4 batches on the 2 processes"):
        Trainer(max_epochs=1, **options).fit(model, loader(60 + 20 * rank))
    return value, [str(warning.message) for warning in caught], model.loss.sync


@pytest.mark.slow
def test_unequal_numbers_of_batches_are_reported_without_a_hang(gloo):
    (first, messages, sync), (second, _, _) = on_processes(2, _unequal)
    assert first == second > 0
    assert [m for m in messages if m.startswith("evaluation: got 2, 3 batches on the 2 processes")]
    assert sync == "global"


def _batch_norms(rank, plugins):
    model = HSCL(encoder=MLP((32,), [16]), num_classes=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = Trainer(max_epochs=1, devices=2, strategy="ddp", plugins=plugins, limit_train_batches=1, **QUIET)
        trainer.fit(model, LatentClassDataModule())
    return [str(w.message) for w in caught if "sync_batchnorm: got False with BatchNorm" in str(w.message)]


@pytest.mark.slow
def test_unsynchronized_batch_norm_is_warned_about(gloo):
    assert len(on_processes(2, _batch_norms, [])[0]) == 1
    assert on_processes(2, _batch_norms, [BatchNormSync()])[0] == []
