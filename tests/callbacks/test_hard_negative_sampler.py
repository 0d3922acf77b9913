import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nc_lightning import HSCL, HUCL
from nc_lightning.callbacks import HardNegativeSampler
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.losses import Threshold

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Recorder(Callback):
    def __init__(self):
        self.betas = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.betas.append(pl_module.loss.beta)


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [8] * 5), ("linear", [2, 5, 8, 8, 8]), ("cosine", [2, 5, 8, 8, 8])]
)
def test_schedules(schedule, expected):
    sampler = HardNegativeSampler(beta=8.0, schedule=schedule, start=2.0, duration=0.5)
    assert [sampler.hardness(p) for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(expected)


def test_cosine_starts_and_ends_gently():
    sampler = HardNegativeSampler(beta=1.0, schedule="cosine")
    assert sampler.hardness(0.1) < 0.1
    assert sampler.hardness(0.9) > 0.9


def test_hardness_follows_the_schedule_in_training(tmp_path):
    recorder = Recorder()
    sampler = HardNegativeSampler(beta=10.0, schedule="linear")
    trainer = Trainer(
        max_epochs=2, limit_train_batches=5, callbacks=[sampler, recorder], default_root_dir=tmp_path, **QUIET
    )
    trainer.fit(HSCL(encoder=MLP((32,)), num_classes=10), LatentClassDataModule())
    assert recorder.betas == pytest.approx([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])


def test_beta_comes_from_the_loss_and_its_effect_is_logged(tmp_path):
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    trainer.fit(HUCL(beta=4.0, encoder=MLP((32,)), num_classes=10), LatentClassDataModule(batch_size=80))
    metrics = trainer.callback_metrics
    assert metrics["negatives/hardness"] == 4.0
    assert 1 < metrics["negatives/effective"] < 79
    assert 7 / 79 < metrics["negatives/false_share"] < 1  # hardness finds them more often than chance


def test_a_hardening_without_a_beta(tmp_path):
    def fit(*callbacks):
        trainer = Trainer(max_epochs=1, callbacks=list(callbacks), default_root_dir=tmp_path, **QUIET)
        module = HSCL(encoder=MLP((32,)), num_classes=10, hardening=Threshold(0.1))
        trainer.fit(module, LatentClassDataModule(batch_size=80))
        return trainer.callback_metrics

    metrics = fit()
    assert "negatives/hardness" not in metrics
    assert metrics["negatives/effective"].item() == pytest.approx(8, abs=1)  # a tenth of 72, ties included
    with pytest.raises(ValueError, match=r"beta: got 3.0 for Threshold\(fraction=0.1\), expected None"):
        fit(HardNegativeSampler(beta=3.0))


def test_a_module_without_a_contrastive_loss(tmp_path):
    class Other(LightningModule):
        loss = torch.nn.MSELoss()

        def training_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return None

    trainer = Trainer(max_epochs=1, callbacks=[HardNegativeSampler()], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="HardNegativeSampler: got Other with a loss of type MSELoss"):
        trainer.fit(Other(), LatentClassDataModule())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta: got -1.0"),
        ({"start": -1.0}, "start: got -1.0"),
        ({"duration": 0}, "duration: got 0"),
        ({"duration": 1.5}, "duration: got 1.5, expected a share"),
        ({"schedule": "step"}, "schedule: got 'step', expected one of constant, linear, cosine"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        HardNegativeSampler(**arguments)
