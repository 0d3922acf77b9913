import random

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from nc_lightning import HSCL
from nc_lightning.callbacks import RandomStates
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": 2}


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()


def reloaded(states, tmp_path):
    torch.save(states.state_dict(), tmp_path / "states.pt")
    return torch.load(tmp_path / "states.pt", weights_only=True)


def test_every_random_generator_resumes_at_its_saved_state(tmp_path):
    states = RandomStates()
    saved = reloaded(states, tmp_path)
    expected = [draw() for _ in range(3)]
    states.load_state_dict(saved)
    states.restore(0, 1)
    assert [draw() for _ in range(3)] == expected
    states.restore(0, 1)  # once only
    assert draw() not in expected


def test_each_process_restores_its_own_state_or_that_of_rank_0():
    first, second = RandomStates().state_dict(), (draw(), RandomStates().state_dict())[1]
    both = {"processes": first["processes"] + second["processes"]}
    values = []
    for rank in (0, 1):
        states = RandomStates()
        states.load_state_dict(both)
        states.restore(rank, 2)
        values.append(draw())
    assert values[0] != values[1]
    states.load_state_dict(both)
    with pytest.warns(UserWarning, match="got those of 2 processes, expected 1; all processes continue with those of"):
        states.restore(0, 1)
    assert draw() == values[0]


class Draws(Callback):
    def __init__(self, in_validation):
        self.in_validation, self.drawn = in_validation, []

    def on_train_batch_start(self, *_):
        self.drawn.append(draw())

    def on_validation_batch_start(self, *_):
        if self.in_validation:
            draw()


def fit(tmp_path, draws, epochs, states=None, ckpt_path=None):
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    callbacks = [draws, states or RandomStates()]
    trainer = Trainer(max_epochs=epochs, callbacks=callbacks, default_root_dir=tmp_path, **QUIET)
    trainer.fit(HSCL(encoder=MLP((32,)), num_classes=10), LatentClassDataModule(batch_size=80), ckpt_path=ckpt_path)
    return trainer, draws.drawn


def test_a_resumed_run_draws_the_same_numbers_and_validation_consumes_none(tmp_path):
    _, whole = fit(tmp_path, Draws(False), 3)
    half, first = fit(tmp_path, Draws(True), 2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    resumed = RandomStates()
    _, rest = fit(tmp_path, Draws(True), 3, resumed, tmp_path / "half.ckpt")
    assert first + rest == whole
    assert len(rest) == 2
    _, restarted = fit(tmp_path, Draws(True), 3, resumed)  # a further fit resumes nothing
    assert restarted == whole
