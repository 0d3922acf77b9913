import subprocess
import sys
import threading

import pytest
import torch
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch import Trainer

from nc_lightning import HSCL
from nc_lightning.callbacks import ProcessWatch
from nc_lightning.callbacks.fault_tolerance.process_watch import _is_lost_peer
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.private_apis.lightning import dismiss_process_observers

# The death of a process is tested in tests/faults.


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"), True),
        (RuntimeError("Read error [127.0.0.1]:5: Connection reset by peer"), True),
        (torch.distributed.DistNetworkError("Failed to recv"), True),
        (torch.distributed.DistBackendError("NCCL communicator was aborted"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("closed by peer"), False),
    ],
)
def test_a_lost_peer_is_distinguished_from_other_errors(error, lost):
    assert _is_lost_peer(error) is lost


def test_a_single_process_is_not_watched(tmp_path):
    seen = []

    class Looks(ProcessWatch):
        def on_train_batch_end(self, *_):
            seen.extend(thread.name for thread in threading.enumerate())

    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(max_epochs=1, limit_train_batches=1, callbacks=[Looks()], default_root_dir=tmp_path, **quiet)
    trainer.fit(HSCL(encoder=MLP((32,)), num_classes=10), LatentClassDataModule(batch_size=80))
    assert seen
    assert "process-watch" not in seen


def test_lightnings_process_observer_can_be_stopped():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        observer = _ChildProcessObserver(main_pid=-1, child_processes=[child], sleep_period=0.05)
        observer.start()
        dismiss_process_observers()
        observer.join(30)
        assert not observer.is_alive()
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()
