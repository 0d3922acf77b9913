"""Every callback runs two different fits; the second does not depend on the first."""

import copy
import pickle

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils._pytree import tree_leaves

import nc_lightning.callbacks as ours
from nc_lightning import HSCL, HUCL, SCL
from nc_lightning.callbacks import GeometryMonitor, HardNegativeSampler, NonFiniteGuard, OnlineLinearProbe
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP

CALLBACKS = {
    "CheckpointStep": ours.CheckpointStep,
    "CollapseWatch": lambda: ours.CollapseWatch(share=1.0, patience=1),
    "GeometryMonitor": GeometryMonitor,
    "GracefulStop": ours.GracefulStop,
    "HardNegativeSampler": HardNegativeSampler,
    "HardNegativeSampler, adaptive": lambda: HardNegativeSampler(schedule="adaptive", max_beta=3.0),
    "HardNegativeSampler, linear": lambda: HardNegativeSampler(schedule="linear"),
    "HardNegativeSampler, queue": lambda: HardNegativeSampler(queue_size=50, queue_warmup=0),
    "InitialWeights": None,  # loads the weights of one checkpoint, which fit only one module
    "NeuralCollapseReached": lambda: ours.NeuralCollapseReached(1e9, 1e9, 1e9, 1e9, patience=2),
    "NonFiniteGuard": lambda: NonFiniteGuard("skip"),
    "OnlineKNN": lambda: ours.OnlineKNN(k=3),
    "OnlineLinearProbe": OnlineLinearProbe,
    "PredictionWriter": ours.PredictionWriter,
    "ProcessWatch": ours.ProcessWatch,
    "RandomStates": ours.RandomStates,
    "ResumedEpoch": ours.ResumedEpoch,
    "RunCheckpoint": lambda: ours.RunCheckpoint(save_last=True),
    "TensorBoardDashboard": ours.TensorBoardDashboard,
}


def test_every_callback_is_tested():
    assert {name.partition(",")[0] for name in CALLBACKS} == set(ours.__all__)


def data(num_classes):
    return LatentClassDataModule(num_classes=num_classes, input_dim=8, samples_per_class=16)


def objective(kind, num_classes, **kwargs):
    torch.manual_seed(0)
    return kind(encoder=MLP((8,), hidden_features=[8]), num_classes=num_classes, **kwargs)


def fit(callback, module, datamodule, folder):
    seed_everything(1, verbose=False)
    trainer = Trainer(
        max_epochs=2,
        callbacks=[callback, *([] if type(callback) is GeometryMonitor else [GeometryMonitor()])],
        logger=TensorBoardLogger(folder),
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=isinstance(callback, Checkpoint),
    )
    trainer.fit(module, datamodule)
    return trainer


@pytest.mark.some(5)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, make in CALLBACKS.items() if make is not None])
def test_the_second_fit_does_not_depend_on_the_first(name, tmp_path):
    used, fresh = CALLBACKS[name](), CALLBACKS[name]()
    first = objective(HUCL, 3, beta=2.0, feature_dim=5)
    fit(used, first, data(3), tmp_path / "first")
    if name == "NonFiniteGuard":
        used.skipped_steps = 3  # as after a bad batch; the monitor would not measure a set with a real one
    results = []
    for callback in (used, fresh):
        module = objective(HSCL, 4, beta=7.0)
        trainer = fit(callback, module, data(4), tmp_path / str(len(results)))
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        state = [leaf for leaf in tree_leaves(callback.state_dict()) if not isinstance(leaf, str)]
        results.append((metrics, module.state_dict(), state, trainer.current_epoch))
        assert module.loss.queue is None
        assert module.loss.asked_beta == 7.0
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0, equal_nan=True)


def test_one_trainer_fits_objectives_of_different_hardness(tmp_path):
    betas = []

    class Trained(SCL):
        def training_step(self, batch, batch_idx):
            betas.append(self.loss.beta)
            return super().training_step(batch, batch_idx)

    trainer = fit(HardNegativeSampler(), objective(HSCL, 3, beta=2.0), data(3), tmp_path)
    for module, beta in ((objective(Trained, 3), 0.0), (objective(HSCL, 3, beta=5.0), 5.0)):
        trainer.fit_loop.max_epochs += 1
        trainer.fit(module, data(3))
        assert trainer.callback_metrics["negatives/hardness"] == beta
    assert set(betas) == {0.0}


def test_the_probe_forgets_a_classifier_of_another_module(tmp_path):
    probe, module, other = OnlineLinearProbe(), objective(HSCL, 3), objective(HSCL, 3)
    trainer = fit(probe, module, data(3), tmp_path)
    accuracy = trainer.callback_metrics["probe/val_accuracy"]
    (again,) = trainer.validate(module, data(3), verbose=False)
    assert again["probe/val_accuracy"] == accuracy
    (of_other,) = trainer.validate(other, data(3), verbose=False)
    assert "probe/val_accuracy" not in of_other


@pytest.mark.parametrize("name", [name for name, make in CALLBACKS.items() if make is not None])
@pytest.mark.filterwarnings("ignore")
def test_a_callback_can_be_copied_and_pickled_after_a_fit(name, tmp_path):
    callback = CALLBACKS[name]()
    module = objective(HSCL, 3)
    fit(callback, module, data(3), tmp_path)
    assert type(copy.deepcopy(callback)) is type(callback)
    assert type(pickle.loads(pickle.dumps(callback))) is type(callback)
    assert pickle.loads(pickle.dumps(module)).loss.beta == copy.deepcopy(module).loss.beta == module.loss.beta
