import sys

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from nc_lightning import HSCL
from nc_lightning.cli import main
from nc_lightning.encoders import MLP

pytestmark = pytest.mark.bolts

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])


class FakeCIFAR10(torch.utils.data.Dataset):
    def __init__(self, root, train=True, transform=None, download=False):
        assert not download
        self.transform = transform

    def __len__(self):
        return 400

    def __getitem__(self, index):
        image = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        return self.transform(Image.fromarray(image)), index % 10


@pytest.mark.slow
def test_a_run_trains_with_lars_its_schedule_and_its_evaluator(all_threads):
    options = ["--trainer.max_epochs=40", "--trainer.enable_progress_bar=false"]
    cli = main(["fit", "--config", "hscl.yaml", "--config", "bolts.yaml", *options])
    optimizer = cli.trainer.optimizers[0]
    assert type(optimizer).__module__.startswith("pl_bolts")
    weights, others = optimizer.param_groups
    assert (weights["weight_decay"], others["weight_decay"]) == (1e-6, 0.0)
    assert {p.ndim for p in weights["params"]} == {2}
    assert {p.ndim for p in others["params"]} == {1}
    metrics = cli.trainer.callback_metrics
    assert metrics["loss/optimality_gap"] < 0.01  # measured: 0.0007, from 0.4 at the start
    assert metrics["online_val_acc"] > 0.8
    assert metrics["geometry/train/effective_rank"] > 8.9


def test_the_schedule_is_linear_and_then_a_cosine():
    from pl_bolts.optimizers import LARS, LinearWarmupCosineAnnealingLR

    optimizer = LARS([torch.nn.Parameter(torch.ones(2, 2))], lr=1.0)
    schedule = LinearWarmupCosineAnnealingLR(optimizer, warmup_epochs=4, max_epochs=12)
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert rates[8] == pytest.approx(0.5, abs=1e-6)


def test_cifar10_of_bolts_is_read(tmp_path):
    from nc_lightning.integrations.bolts import CIFAR10DataModule, SSLOnlineEvaluator

    data = CIFAR10DataModule(str(tmp_path), batch_size=50)
    data.data.dataset_cls = FakeCIFAR10
    model = HSCL(encoder=MLP(data.input_shape, [16]), num_classes=data.num_classes)
    evaluator = SSLOnlineEvaluator(z_dim=9)
    trainer = Trainer(max_epochs=1, callbacks=[evaluator], **QUIET)
    trainer.fit(model, data)
    assert trainer.global_step == 320 // 50
    assert {"online_train_acc", "online_val_acc"} <= set(trainer.callback_metrics)
    trainer.test(model, data)
    resumed = SSLOnlineEvaluator(z_dim=9)
    resumed.load_state_dict(evaluator.state_dict())
    Trainer(max_epochs=1, limit_train_batches=0, callbacks=[resumed], **QUIET).fit(model, data)
    weights = [dict(e.evaluator.online_evaluator.named_parameters()) for e in (evaluator, resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_several_processes_are_refused(monkeypatch):
    from nc_lightning.integrations.bolts import SSLOnlineEvaluator

    trainer = Trainer(**QUIET)
    monkeypatch.setattr(Trainer, "world_size", 2)
    with pytest.raises(ValueError, match="SSLOnlineEvaluator: got 2 processes, expected 1; use OnlineLinearProbe"):
        SSLOnlineEvaluator(z_dim=9).setup(trainer, HSCL(encoder=MLP((4,)), num_classes=10), "fit")


def test_a_missing_lightning_bolts_is_reported(monkeypatch):
    from nc_lightning.integrations.bolts import SSLOnlineEvaluator

    monkeypatch.setitem(sys.modules, "pl_bolts.callbacks", None)
    with pytest.raises(ImportError, match=r"install it by pip install 'nc-lightning\[bolts\]'"):
        SSLOnlineEvaluator(z_dim=9)
