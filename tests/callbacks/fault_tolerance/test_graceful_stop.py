import os
import signal
import threading

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from nc_lightning import HSCL
from nc_lightning.callbacks import GracefulStop
from nc_lightning.callbacks.fault_tolerance.graceful_stop import Interrupted
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "limit_train_batches": 4}


class Sends(Callback):
    """Signals at a step, or in the validation after it."""

    def __init__(self, *signals, step=2, in_validation=False):
        self.signals, self.step, self.in_validation = signals, step, in_validation

    def send(self, trainer, here):
        if trainer.global_step == self.step and here and not trainer.sanity_checking:
            for signum in self.signals:
                os.kill(os.getpid(), signum)

    def on_train_batch_end(self, trainer, *_):
        self.send(trainer, not self.in_validation)

    def on_validation_start(self, trainer, *_):
        self.send(trainer, self.in_validation)


@pytest.fixture(autouse=True)
def handlers():
    """The previous signal handlers, which must be restored."""
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    yield
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before


def fit(folder, *callbacks, ckpt_path=None, **settings):
    seed_everything(0)
    callbacks = [*callbacks, ModelCheckpoint(folder, save_last=True), GracefulStop()]
    trainer = Trainer(**{"max_epochs": 2, "callbacks": callbacks, "default_root_dir": folder, **QUIET, **settings})
    data = LatentClassDataModule(batch_size=80)
    trainer.fit(HSCL(encoder=MLP((32,)), num_classes=10), data, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize(
    ("sends", "code", "saved"),
    [
        (Sends(signal.SIGTERM), 143, "epoch=0-step=2"),
        (Sends(signal.SIGINT), 130, "epoch=0-step=2"),
        (Sends(signal.SIGTERM, step=4), 143, "epoch=0-step=4"),
        (Sends(signal.SIGTERM, step=4, in_validation=True), 143, "epoch=0-step=4"),
    ],
    ids=["SIGTERM", "Ctrl-C", "last batch", "validation"],
)
def test_a_signal_finishes_the_step_saves_a_checkpoint_and_reports_it(in_tmp, capfd, sends, code, saved):
    with pytest.raises(Interrupted) as stopped:
        fit(in_tmp, sends)
    assert stopped.value.code == code
    checkpoint = torch.load(in_tmp / f"interrupted-{saved}.ckpt", weights_only=True)
    assert checkpoint["global_step"] == sends.step
    assert f"saved; resume with --ckpt_path interrupted-{saved}.ckpt\n" in capfd.readouterr().err


def test_a_signal_before_a_mid_epoch_validation_takes_effect_after_the_next_step(in_tmp):
    with pytest.raises(Interrupted):
        fit(in_tmp, Sends(signal.SIGTERM), val_check_interval=2)
    assert [path.name for path in in_tmp.glob("interrupted-*")] == ["interrupted-epoch=0-step=3.ckpt"]


def test_a_stop_waits_for_accumulated_gradients_so_that_the_resumed_run_is_the_same(in_tmp):
    options = {"accumulate_grad_batches": 3, "limit_train_batches": 5}
    whole = fit(in_tmp / "whole", **options)
    with pytest.raises(Interrupted):
        fit(in_tmp, Sends(signal.SIGTERM, step=0), **options)  # after the first batch
    saved = in_tmp / "interrupted-epoch=0-step=1.ckpt"
    loops = torch.load(saved, weights_only=True)["loops"]["fit_loop"]
    assert loops["epoch_loop.batch_progress"]["current"]["processed"] == 3
    resumed = fit(in_tmp, ckpt_path=saved, **options)
    assert resumed.global_step == whole.global_step == 4
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_second_ctrl_c_stops_immediately(in_tmp, capfd):
    with pytest.raises(SystemExit) as stopped:
        fit(in_tmp, Sends(signal.SIGINT, signal.SIGINT))
    assert stopped.value.code == 1
    assert not list(in_tmp.glob("interrupted-*"))
    assert "stopping after this step; press Ctrl-C again to stop at once" in capfd.readouterr().err


@pytest.mark.parametrize(
    "end", [{"max_epochs": 1}, {"max_epochs": -1, "max_steps": 4}], ids=["max_epochs", "max_steps"]
)
def test_a_finished_training_ends_normally(in_tmp, end):
    assert fit(in_tmp, Sends(signal.SIGTERM, step=4), **end).global_step == 4
    assert not list(in_tmp.glob("interrupted-*"))


def test_an_error_in_the_run_restores_the_signal_handlers(in_tmp):
    class Fails(Callback):
        def on_train_batch_end(self, *_):
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fit(in_tmp, Fails())


def test_outside_the_main_thread_no_signal_handler_is_installed(in_tmp):
    before = signal.getsignal(signal.SIGTERM)
    during = []

    class Looks(Callback):
        def on_train_batch_end(self, *_):
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: fit(in_tmp, Looks(), num_sanity_val_steps=0))
    thread.start()
    thread.join()
    assert set(during) == {before}
