"""What an objective logs and says about the minimum of its loss."""

import math
import re

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL, HUCL, SCL, UCL
from nc_lightning.callbacks import HardNegativeSampler
from nc_lightning.data import ArrayDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.geometry import hucl_lower_bound, scl_lower_bound, scl_optimum, simplex_etf, ucl_lower_bound
from nc_lightning.losses import HUCLLoss, Logistic, Polynomial, Triplet

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
pytestmark = pytest.mark.filterwarnings("ignore")
COUNTS = [16, 8, 4, 4]


def unbalanced(folder, **options):
    labels = np.repeat(np.arange(4), COUNTS)
    x = np.random.default_rng(0).normal(size=(len(labels), 6)).astype(np.float32)
    path = folder / "unbalanced.npz"
    np.savez(path, x_train=x, y_train=labels, x_test=x, y_test=labels)
    return ArrayDataModule(path=str(path), val_share=0.0, **options)


def fit(objective, data, folder, callbacks=(), **options):
    module = objective(encoder=MLP(data.input_shape, [8]), num_classes=data.num_classes, **options)
    trainer = Trainer(max_epochs=1, default_root_dir=folder, callbacks=[*callbacks], **QUIET)
    trainer.fit(module, data)
    return module, {key: value.item() for key, value in trainer.callback_metrics.items()}


def test_hucl_logs_the_mean_of_the_bounds_of_its_batches(tmp_path):
    data = unbalanced(tmp_path, batch_size=8, batches="random")
    seen = []

    class Recorded(HUCL):
        def training_step(self, batch, batch_idx):
            seen.append(batch[1].bincount(minlength=4).tolist())
            return super().training_step(batch, batch_idx)

    _, logged = fit(Recorded, data, tmp_path, beta=3.0)
    expected = [hucl_lower_bound(4, 3.0, counts=counts) for counts in seen]
    assert len(seen) == 4
    assert len(set(expected)) > 1
    assert logged["loss/bound"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert logged["loss/optimality_gap"] > 0


def test_ucl_of_unbalanced_classes_is_bounded_by_its_batches(tmp_path):
    data = unbalanced(tmp_path, batch_size=32, batches="random")
    _, logged = fit(UCL, data, tmp_path)
    assert logged["loss/bound"] == pytest.approx(hucl_lower_bound(4, 0.0, counts=COUNTS), abs=1e-6)


@pytest.mark.parametrize("objective", [SCL, HSCL])
@pytest.mark.parametrize(("batches", "counts"), [("random", COUNTS), ("stratified", [8, 4, 2, 2])])
def test_scl_is_bounded_by_the_optimum_of_the_training_classes(objective, batches, counts, tmp_path):
    module, logged = fit(objective, unbalanced(tmp_path, batch_size=16, batches=batches), tmp_path)
    optimum = scl_optimum(counts=counts)
    assert module.class_counts == counts
    assert logged["loss/bound"] == pytest.approx(optimum.loss, abs=1e-6)
    assert optimum.loss < scl_lower_bound(4) - 1e-3
    if objective is SCL:
        assert torch.equal(module.optimal_gram, optimum.gram)
    else:
        assert module.optimal_gram is None  # hard negatives are not equally similar at this optimum


def test_balanced_batches_of_unbalanced_classes_have_the_balanced_bound(tmp_path):
    module, logged = fit(SCL, unbalanced(tmp_path, batch_size=8, batches="balanced"), tmp_path)
    assert logged["loss/bound"] == pytest.approx(scl_lower_bound(4), abs=1e-6)
    assert module.class_counts is None
    assert module.optimal_gram is None


def test_the_minimum_is_that_of_the_checkpoint(tmp_path):
    for objective, options in [(SCL, {}), (HUCL, {"beta": 3.0})]:
        data = unbalanced(tmp_path, batch_size=16, batches="balanced" if objective is HUCL else "stratified")
        module, _ = fit(objective, data, tmp_path, **options)
        module.trainer.save_checkpoint(tmp_path / "mine.ckpt")
        fresh = objective(encoder=MLP(data.input_shape, [8]), num_classes=4, **options)
        assert fresh.optimal_gram is None
        Trainer(**QUIET).validate(fresh, datamodule=data, ckpt_path=tmp_path / "mine.ckpt", verbose=False)
        assert torch.equal(fresh.optimal_gram, module.optimal_gram)
        torch.save(torch.load(tmp_path / "mine.ckpt") | {"batch_size": None}, tmp_path / "old.ckpt")
        Trainer(**QUIET).validate(fresh, datamodule=data, ckpt_path=tmp_path / "old.ckpt", verbose=False)
        assert fresh.optimal_gram is None


@pytest.mark.parametrize(
    ("objective", "options", "expected"),
    [
        (
            HUCL,
            {"beta": 5.0, "differentiate_weights": False},
            r"beta: got 5, above the critical .* differentiate_weights",
        ),
        (HUCL, {"beta": 5.0}, r"the minimum is a simplex of norm 0\.597, or needs feature_dim >= 10 for unit vectors$"),
        (HUCL, {"beta": 5.0, "feature_dim": 10}, r"the minimum has zero_sum 0\.\d+$"),
        (HUCL, {"beta": 5.0, "num_negatives": 8}, r"for unit vectors$"),
        (HUCL, {"beta": 0.1}, None),
        (HSCL, {"beta": 5.0}, None),
        (SCL, {"link": Triplet(margin=1.0)}, "link: Triplet"),
    ],
)
def test_a_minimum_other_than_neural_collapse_is_reported_once(objective, options, expected, tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(objective, LatentClassDataModule(), tmp_path, **options)
    lines = [record.message for record in caplog.records if record.message.startswith(("beta:", "link:"))]
    assert len(lines) == (expected is not None)
    if expected is not None:
        assert re.search(expected, lines[0])


def test_stratified_batches_of_rounded_sizes_have_no_bound(tmp_path):
    module, logged = fit(SCL, unbalanced(tmp_path, batch_size=10, batches="stratified"), tmp_path)
    assert module.class_counts == []
    assert module.optimal_gram is None
    assert "loss/bound" not in logged


@pytest.mark.parametrize("options", [{"hardening": Polynomial(2.0)}, {"link": Logistic(), "beta": 2.0}], ids=str)
def test_other_hardenings_and_links_of_hucl_have_the_bound_of_ucl(options, tmp_path):
    _, logged = fit(HUCL, LatentClassDataModule(batch_size=40), tmp_path, **options)
    link = options.get("link")
    assert logged["loss/bound"] == pytest.approx(ucl_lower_bound(10, link=link, collision=3 / 39), abs=1e-6)


def test_neural_collapse_is_that_of_the_batches(tmp_path):
    _, logged = fit(HUCL, unbalanced(tmp_path, batch_size=32, batches="random"), tmp_path, beta=0.5)
    simplex = simplex_etf(4, 3)[torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))]
    expected = HUCLLoss(0.5)(simplex, torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))).item()
    assert logged["loss/neural_collapse"] == pytest.approx(expected, abs=1e-6)
    assert logged["loss/bound"] < expected


@pytest.mark.parametrize("labels", [[0] * 6, [0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4]], ids=str)
def test_batches_of_one_class_or_without_pairs_train(labels, tmp_path):
    loader = DataLoader(TensorDataset(torch.randn(6, 4), torch.tensor(labels)), batch_size=6)
    module = HUCL(encoder=MLP((4,), [8]), num_classes=6, beta=3.0)
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    trainer.fit(module, loader)
    if len(set(labels)) == 1:
        assert trainer.callback_metrics["loss/bound"].item() == pytest.approx(math.log(2))


def test_with_a_queue_the_minimum_is_not_known(tmp_path):
    sampler = HardNegativeSampler(queue_size=20, queue_warmup=0)
    module, _ = fit(HUCL, LatentClassDataModule(), tmp_path, callbacks=[sampler], beta=5.0)
    assert module.optimal_gram is None


def test_a_scheduled_hardness_is_not_reported(tmp_path, caplog):
    sampler = HardNegativeSampler(schedule="linear", start=1.0, duration=0.5)
    with caplog.at_level("INFO"):
        fit(HUCL, LatentClassDataModule(), tmp_path, callbacks=[sampler], beta=5.0)
    assert not [record for record in caplog.records if record.message.startswith("beta:")]


def test_of_too_many_classes_the_minimum_is_not_measured(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("nc_lightning.objectives.references.MOST_CLASSES", 3)
    module, logged = fit(SCL, unbalanced(tmp_path, batch_size=16, batches="stratified"), tmp_path)
    assert module.optimal_gram is None
    assert logged["loss/bound"] == pytest.approx(scl_optimum(counts=[8, 4, 2, 2]).loss, abs=1e-6)
    assert "num_classes: got 4, above 3, so that ideals are those of neural collapse" in caplog.text
