import subprocess
import sys
from types import SimpleNamespace

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerFn

from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, NeuralCollapseReached
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
COLLAPSED = {"nc1": 0.002, "equal_inner_product": 0.001, "zero_sum": 0.003, "effective_rank": 9.95}


def stopped_at(callback, measurements, num_classes=11, feature_dim=20, fn=TrainerFn.FITTING):
    """Return the index of the measurement at which training is stopped, or None."""
    trainer = SimpleNamespace(state=SimpleNamespace(fn=fn), current_epoch=4, should_stop=False)
    statistics = SimpleNamespace(num_classes=num_classes, feature_dim=feature_dim)
    for index, values in enumerate(measurements):
        monitor = SimpleNamespace(epoch=5, results={"train": values}, statistics={"train": statistics})
        callback.on_geometry_measured(trainer, None, monitor)
        if trainer.should_stop:
            return index
    return None


def test_training_stops_once_all_measures_are_met_several_times_in_a_row():
    far = COLLAPSED | {"nc1": 0.02}
    assert stopped_at(NeuralCollapseReached(), [far, COLLAPSED, COLLAPSED, COLLAPSED]) == 2
    assert stopped_at(NeuralCollapseReached(), [COLLAPSED, far] * 3) is None
    assert stopped_at(NeuralCollapseReached(patience=1), [COLLAPSED]) == 0


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nc1", 0.011),
        ("equal_inner_product", 0.021),
        ("zero_sum", 0.021),
        ("effective_rank", 9.89),
        ("nc1", float("nan")),
    ],
)
def test_each_measure_can_prevent_the_stop(key, value):
    assert stopped_at(NeuralCollapseReached(patience=1), [COLLAPSED | {key: value}]) is None
    wider = NeuralCollapseReached(**{key: 0.2}, patience=1)
    assert (stopped_at(wider, [COLLAPSED | {key: value}]) is None) == (value != value)
    assert stopped_at(NeuralCollapseReached(**{key: 0.0}, patience=1), [COLLAPSED]) is None


def test_equal_inner_products_are_not_required_where_the_simplex_does_not_fit():
    values = COLLAPSED | {"equal_inner_product": 0.5, "effective_rank": 4.0}
    assert stopped_at(NeuralCollapseReached(patience=1), [values], num_classes=11, feature_dim=4) == 0
    assert stopped_at(NeuralCollapseReached(patience=1), [values], num_classes=5, feature_dim=4) is None


def test_only_measurements_of_training_stop_the_run():
    assert stopped_at(NeuralCollapseReached(patience=1), [COLLAPSED], fn=TrainerFn.VALIDATING) is None


def test_the_count_survives_a_checkpoint():
    before, resumed = NeuralCollapseReached(), NeuralCollapseReached()
    assert stopped_at(before, [COLLAPSED]) is None
    resumed.load_state_dict(before.state_dict())
    assert stopped_at(resumed, [COLLAPSED]) == 0


def test_it_ends_a_run_and_reports_the_epoch_and_the_measures(caplog, tmp_path):
    reached = NeuralCollapseReached(nc1=2.0, equal_inner_product=2.0, zero_sum=2.0, effective_rank=9.0)
    data = DigitsDataModule(batch_size=100)
    model = HSCL(encoder=MLP(data.input_shape, [8]), num_classes=10)
    callbacks = [GeometryMonitor(every_n_epochs=2), reached]
    trainer = Trainer(max_epochs=20, limit_train_batches=2, callbacks=callbacks, default_root_dir=tmp_path, **QUIET)
    with caplog.at_level("INFO"):
        trainer.fit(model, data)
    assert trainer.current_epoch == 4
    (line,) = [record.getMessage() for record in caplog.records if "neural collapse" in record.getMessage()]
    assert line.startswith("neural collapse: reached at epoch 4, training stops: nc1 ")
    assert set(reached.figures) == {"nc1", "equal_inner_product", "zero_sum", "effective_rank"}
    assert reached.figures["nc1"] == callbacks[0].results["train"]["nc1"]


IN_PROCESSES = """
import torch
from lightning.pytorch import Trainer
from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor, NeuralCollapseReached
from nc_lightning.data import DigitsDataModule
from nc_lightning.encoders import MLP

torch.set_num_threads(1)
reached = NeuralCollapseReached(nc1=2.0, equal_inner_product=2.0, zero_sum=2.0, effective_rank=9.0)
trainer = Trainer(max_epochs=9, limit_train_batches=2, accelerator="cpu", devices=2, strategy="ddp", logger=False,
                  enable_checkpointing=False, enable_progress_bar=False, callbacks=[GeometryMonitor(), reached])
data = DigitsDataModule(batch_size=100)
trainer.fit(HSCL(encoder=MLP(data.input_shape, [8]), num_classes=10), data)
assert trainer.current_epoch == 2, trainer.current_epoch
"""


@pytest.mark.exhaustive
def test_two_processes_stop_together(gloo, tmp_path):
    (tmp_path / "fit.py").write_text(IN_PROCESSES)
    run = subprocess.run([sys.executable, "fit.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert (run.stdout + run.stderr).count("neural collapse: reached at epoch 2") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nc1": -1}, "nc1: got -1, expected a finite number >= 0"),
        ({"zero_sum": float("nan")}, "zero_sum: got nan"),
        ({"patience": 0}, "patience: got 0, expected an integer >= 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        NeuralCollapseReached(**arguments)
