"""Every precision that Lightning supports on a CPU is close to float32 and can resume with another."""

import sys
import warnings
from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision

from nc_lightning import HUCL
from nc_lightning.callbacks import (
    GeometryMonitor,
    HardNegativeSampler,
    OnlineLinearProbe,
    PredictionWriter,
    RandomStates,
)
from nc_lightning.cli import main
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

# Absolute differences of loss and unit_norm from float32 after two epochs. In 16-true small gradients vanish.
CLOSE = {"64-true": (1e-5, 1e-5), "bf16-mixed": (1e-3, 5e-3), "bf16-true": (1e-3, 2e-2), "16-true": (2e-2, 0.3)}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}


def trainer_of(precision, folder, epochs=2, **more):
    callbacks = [HardNegativeSampler(schedule="adaptive", queue_size=240), OnlineLinearProbe(), GeometryMonitor()]
    callbacks += [RandomStates(), PredictionWriter()]
    options = {"max_epochs": epochs, "precision": precision, "default_root_dir": folder, "callbacks": callbacks}
    return Trainer(**options, enable_checkpointing=False, **QUIET, **more)


def fit(precision, folder, resume=None, **options):
    torch.manual_seed(0)
    # 16-true needs an eps that does not round to 0.
    optimizer = partial(torch.optim.Adam, lr=1e-2, eps=1e-4)
    # Adaptive hardness is for detached weights.
    detached = {"num_classes": 10, "optimizer": optimizer, "differentiate_weights": False}
    model = HUCL(encoder=MLP((32,), [16]), **detached)
    data, trainer = (
        LatentClassDataModule(batch_size=120, samples_per_class=50),
        trainer_of(precision, folder, **options),
    )
    torch.manual_seed(1)
    trainer.fit(model, data, ckpt_path=resume)
    assert trainer.callback_metrics
    assert all(value.isfinite() for value in trainer.callback_metrics.values())
    trainer.save_checkpoint(folder / f"{precision}.ckpt")
    return model, data, trainer


@pytest.mark.parametrize("precision", CLOSE)
def test_a_run_is_close_to_that_in_float32_and_predicts(tmp_path, precision):
    plain, (model, data, trainer) = fit("32-true", tmp_path)[2], fit(precision, tmp_path)
    loss, norm = CLOSE[precision]
    for key, tolerance in {"loss/train": loss, "loss/val": loss, "geometry/val/unit_norm": norm}.items():
        expected = float(plain.callback_metrics[key])
        assert float(trainer.callback_metrics[key]) == pytest.approx(expected, abs=tolerance), key
    dtype = {"64-true": torch.float64, "bf16-true": torch.bfloat16, "16-true": torch.float16}.get(
        precision, torch.float32
    )
    assert {weight.dtype for weight in model.parameters()} == {dtype}
    (batch, *_) = trainer_of(precision, tmp_path).predict(model, data, ckpt_path=tmp_path / f"{precision}.ckpt")
    assert batch["features"].dtype == (torch.float64 if precision == "64-true" else torch.float32)
    (path,) = tmp_path.glob("predictions*.npz")
    assert path.stat().st_size > 0


def test_16_mixed_works_with_the_gradient_scaler_of_the_cpu(tmp_path):
    """As on a GPU: autocast to float16, and losses are scaled so that gradients do not vanish."""
    plain = fit("32-true", tmp_path)[2]
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    mixed = fit(None, tmp_path, plugins=[plugin])[2]
    assert mixed.precision_plugin.scaler.get_scale() > 1
    for key, tolerance in {"loss/train": 2e-3, "loss/val": 2e-3, "geometry/val/unit_norm": 1e-2}.items():
        expected = float(plain.callback_metrics[key])
        assert float(mixed.callback_metrics[key]) == pytest.approx(expected, abs=tolerance), key


def test_16_mixed_on_a_cpu_becomes_bf16_mixed(tmp_path):
    with pytest.warns(
        UserWarning, match="AMP with fp16 is not supported on CPU. Using `precision='bf16-mixed'` instead"
    ):
        assert trainer_of("16-mixed", tmp_path).precision == "bf16-mixed"


@pytest.mark.some(3)
@pytest.mark.parametrize("second", ["32-true", *CLOSE])
@pytest.mark.parametrize("first", ["32-true", *CLOSE])
def test_a_run_resumes_with_any_other_precision(tmp_path, first, second):
    fit(first, tmp_path, epochs=1)
    model, data, trainer = fit(second, tmp_path, resume=tmp_path / f"{first}.ckpt")
    assert trainer.global_step == 2 * trainer.num_training_batches
    trainer_of(second, tmp_path).validate(model, data, ckpt_path=tmp_path / f"{first}.ckpt", verbose=False)


def test_an_eps_that_vanishes_in_half_precision_is_refused(in_tmp, refusal, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        line = refusal(main, ["fit", "--config=hscl.yaml", "--trainer.accelerator=cpu", "--trainer.precision=16-true"])
    assert "optimizer: got eps = 1e-08 with weights in torch.float16, in which it is 0" in line
