from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from nc_lightning import HSCL, SCL
from nc_lightning.callbacks import InitialWeights
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import MLP


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp):
    pass


def model(objective=SCL, width=16):
    return objective(encoder=MLP((1, 8, 8), [width]), num_classes=10)


def trainer(*callbacks, epochs=1, steps=2):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return Trainer(
        max_epochs=epochs, limit_train_batches=steps, limit_val_batches=0, callbacks=list(callbacks), **quiet
    )


@pytest.fixture
def trained():
    """An HSCL whose weights, and running statistics, have moved."""
    module = model(HSCL)
    fit = trainer()
    fit.fit(module, DigitsDataModule())
    fit.save_checkpoint("runs/version_0/checkpoints/some.ckpt")
    return module


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("given", ["runs/version_0/checkpoints/some.ckpt", "runs"])
def test_another_objective_starts_from_the_weights_of_a_finished_training(trained, given):
    module = model()
    fit = trainer(InitialWeights(given), steps=0)
    fit.fit(module, DigitsDataModule())
    assert any("running_mean" in key for key in weights(module))
    for key, value in weights(trained).items():
        torch.testing.assert_close(weights(module)[key], value, rtol=0, atol=0)
    assert fit.global_step == 0
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(module.eval()(x), trained.eval()(x))


def test_the_newest_undamaged_checkpoint_is_used(trained):
    Path("runs/later.ckpt").write_bytes(b"cut off")
    module = model()
    trainer(InitialWeights("runs"), steps=0).fit(module, DigitsDataModule())
    torch.testing.assert_close(weights(module), weights(trained), rtol=0, atol=0)


def test_a_resumed_training_ignores_the_initial_weights(trained):
    module = model()
    fit = trainer(InitialWeights("runs"))
    fit.fit(module, DigitsDataModule())
    fit.save_checkpoint("own.ckpt")
    ended = weights(module)
    again = trainer(InitialWeights("runs"))
    again.fit(other := model(), DigitsDataModule(), ckpt_path="own.ckpt")
    torch.testing.assert_close(weights(other), ended, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("width", "given", "message"),
    [
        (16, "nowhere", "InitialWeights: got 'nowhere', expected a whole checkpoint, or a folder"),
        (8, "runs", r"InitialWeights: got \(16, 64\) for encoder.layers.1.weight in 'runs/.*', expected \(8, 64\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused(trained, width, given, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        trainer(InitialWeights(given)).fit(model(width=width), DigitsDataModule())


def test_an_encoder_with_more_layers_is_refused(trained):
    module = SCL(encoder=MLP((1, 8, 8), [16, 16]), num_classes=10)
    with pytest.raises(ValueError, match="InitialWeights: got nothing for encoder.layers.4.weight"):
        trainer(InitialWeights("runs")).fit(module, DigitsDataModule())
