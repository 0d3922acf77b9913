import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL, HUCL
from nc_lightning.callbacks import HardNegativeSampler
from nc_lightning.callbacks.hard_negative_sampler import meets_itself
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.geometry import hucl_critical_beta
from nc_lightning.losses import Polynomial, Threshold

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Recorder(Callback):
    def __init__(self):
        self.betas = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.betas.append(pl_module.loss.beta)


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [8] * 5), ("linear", [2, 5, 8, 8, 8]), ("cosine", [2, 5, 8, 8, 8])]
)
def test_schedules_give_the_expected_hardness(schedule, expected):
    sampler = HardNegativeSampler(beta=8.0, schedule=schedule, start=2.0, duration=0.5)
    assert [sampler.hardness(p) for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(expected)


def test_the_cosine_schedule_is_flat_at_both_ends():
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


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("schedule", ["linear", "adaptive"])
def test_a_loaded_checkpoint_has_the_hardness_and_the_loss_of_training(schedule, averaged, tmp_path):
    def trainer(*callbacks):
        average = [EMAWeightAveraging(decay=0.5, update_every_n_steps=1)] if averaged else []
        return Trainer(max_epochs=2, callbacks=[*callbacks, *average], default_root_dir=tmp_path, **QUIET)

    data, fitted = LatentClassDataModule(), HSCL(encoder=MLP((32,)), num_classes=10)
    fit = trainer(HardNegativeSampler(beta=20.0, schedule=schedule, start=1.0, fraction=0.05))
    fit.fit(fitted, data)
    loss, beta = fit.callback_metrics["loss/val"].item(), fitted.loss.beta
    assert beta != fitted.loss.asked_beta == 5.0
    fit.save_checkpoint(tmp_path / "end.ckpt")

    (again,) = fit.validate(fitted, data, verbose=False)
    assert again["loss/val"] == loss
    fresh = HSCL(encoder=MLP((32,)), num_classes=10)
    (of_checkpoint,) = trainer().validate(fresh, data, ckpt_path=tmp_path / "end.ckpt", verbose=False)
    assert of_checkpoint["loss/val"] == loss
    loaded = HSCL.load_from_checkpoint(tmp_path / "end.ckpt", encoder=MLP((32,)))
    assert loaded.loss.beta == beta
    (in_a_script,) = trainer().validate(loaded, data, verbose=False)
    assert in_a_script["loss/val"] == loss


def test_one_module_evaluates_checkpoints_of_different_hardness(tmp_path):
    saving = ModelCheckpoint(tmp_path, save_top_k=-1)
    sampler = HardNegativeSampler(schedule="linear", duration=0.5)
    module, data = HSCL(beta=8.0, encoder=MLP((32,)), num_classes=10), LatentClassDataModule()
    options = QUIET | {"enable_checkpointing": True}
    fit = Trainer(max_epochs=4, callbacks=[sampler, saving], default_root_dir=tmp_path, **options)
    fit.fit(module, data)
    first, *_, last = sorted(tmp_path.glob("*.ckpt"))

    def loss(path):
        return Trainer(**QUIET).validate(module, data, ckpt_path=path, verbose=False)[0]["loss/val"], module.loss.beta

    assert loss(last) == (fit.callback_metrics["loss/val"].item(), 8.0)
    assert loss(first)[1] < 8.0
    assert loss(last) == (fit.callback_metrics["loss/val"].item(), 8.0)


def test_a_checkpoint_saved_during_weight_averaging_has_the_hardness_of_training(tmp_path):
    class Save(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.save_checkpoint(tmp_path / "middle.ckpt")
            self.beta = pl_module.loss.beta

    save, sampler = Save(), HardNegativeSampler(beta=20.0, schedule="linear")
    callbacks = [save, sampler, EMAWeightAveraging(decay=0.5)]
    Trainer(max_epochs=2, callbacks=callbacks, default_root_dir=tmp_path, **QUIET).fit(
        HSCL(encoder=MLP((32,)), num_classes=10), LatentClassDataModule()
    )
    loaded = HSCL.load_from_checkpoint(tmp_path / "middle.ckpt", encoder=MLP((32,)))
    assert loaded.loss.beta == save.beta > 10


def test_a_constant_hardness_is_not_saved_and_the_constructor_decides(tmp_path):
    module = HSCL(beta=3.0, encoder=MLP((32,)), num_classes=10)
    trainer = Trainer(max_epochs=1, callbacks=[HardNegativeSampler()], default_root_dir=tmp_path, **QUIET)
    trainer.fit(module, LatentClassDataModule())
    assert "loss.scheduled_beta" not in module.state_dict()
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    assert HSCL.load_from_checkpoint(tmp_path / "end.ckpt", encoder=MLP((32,)), beta=4.0).loss.beta == 4.0


def test_beta_comes_from_the_loss_and_its_effect_is_logged(tmp_path):
    trainer = Trainer(max_epochs=1, default_root_dir=tmp_path, **QUIET)
    trainer.fit(HUCL(beta=4.0, encoder=MLP((32,)), num_classes=10), LatentClassDataModule(batch_size=80))
    metrics = trainer.callback_metrics
    assert metrics["negatives/hardness"] == 4.0
    assert 1 < metrics["negatives/effective"] < 79
    assert 7 / 79 < metrics["negatives/false_share"] < 1  # hardness picks them more often than chance


def test_a_batch_without_a_usable_anchor_does_not_spoil_the_epoch(tmp_path):
    x, labels = torch.randn(12, 32), torch.tensor([0, 0, 1, 1] * 2 + [0] * 4)
    loader = DataLoader(TensorDataset(x, labels), batch_size=4)
    trainer = Trainer(max_epochs=1, log_every_n_steps=1, default_root_dir=tmp_path, **QUIET)
    sampler = HardNegativeSampler(schedule="adaptive")
    trainer.callbacks.append(sampler)
    with pytest.warns(UserWarning, match="holds no anchor with both"):
        trainer.fit(HSCL(encoder=MLP((32,)), num_classes=2, feature_dim=3), loader)
    assert torch.isfinite(trainer.callback_metrics["negatives/effective"])
    assert sampler.hardness(1.0) > 0


def test_a_hardening_without_beta_is_refused(tmp_path):
    def fit_threshold(*callbacks):
        trainer = Trainer(max_epochs=1, callbacks=list(callbacks), default_root_dir=tmp_path, **QUIET)
        module = HSCL(encoder=MLP((32,)), num_classes=10, hardening=Threshold(0.1))
        trainer.fit(module, LatentClassDataModule(batch_size=80))
        return trainer.callback_metrics

    metrics = fit_threshold()
    assert "negatives/hardness" not in metrics
    assert metrics["negatives/effective"].item() == pytest.approx(8, abs=1)  # a tenth of 72, ties included
    with pytest.raises(ValueError, match=r"beta: got 3.0, expected None: Threshold\(fraction=0.1\) has no hardness"):
        fit_threshold(HardNegativeSampler(beta=3.0))


def test_a_module_without_a_contrastive_loss_is_refused(tmp_path):
    class Other(LightningModule):
        loss = torch.nn.MSELoss()

        def training_step(self, batch, batch_idx):
            return None

        def configure_optimizers(self):
            return None

    trainer = Trainer(max_epochs=1, callbacks=[HardNegativeSampler()], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="HardNegativeSampler: got Other with a loss of type MSELoss"):
        trainer.fit(Other(), LatentClassDataModule())


def fit(tmp_path, sampler, objective=HSCL, epochs=3, callbacks=(), ckpt_path=None, **kwargs):
    torch.manual_seed(1)
    module = objective(encoder=MLP((32,)), num_classes=10, **kwargs)
    options = QUIET | {"max_epochs": epochs, "log_every_n_steps": 1, "default_root_dir": tmp_path}
    trainer = Trainer(callbacks=[sampler, *callbacks], **options)
    trainer.fit(
        module, LatentClassDataModule(batch_size=80), ckpt_path=ckpt_path, weights_only=True if ckpt_path else None
    )
    return trainer, module


@pytest.mark.some(4)
@pytest.mark.parametrize("objective", [HSCL, HUCL])
@pytest.mark.parametrize("start", [0.0, 3.0, 50.0])
@pytest.mark.parametrize("hardening", [None, Polynomial], ids=str)
def test_adaptive_hardness_holds_the_fraction_of_effective_negatives(tmp_path, objective, start, hardening):
    def fit_four_epochs(sampler):
        kwargs = {"hardening": hardening(5.0)} if hardening else {"beta": 5.0}
        trainer, module = fit(tmp_path, sampler, objective, epochs=4, differentiate_weights=False, **kwargs)
        return trainer.callback_metrics, module.loss.beta

    sampler = HardNegativeSampler(schedule="adaptive", start=start, fraction=0.4, max_beta=50.0)
    metrics, reached = fit_four_epochs(sampler)
    assert metrics["negatives/fraction"].item() == pytest.approx(0.4, abs=0.05)
    assert metrics["negatives/hardness"].item() == pytest.approx(reached, rel=0.3)
    constant, _ = fit_four_epochs(HardNegativeSampler())
    assert constant["negatives/fraction"].item() != pytest.approx(0.4, abs=0.05)


def test_hardness_rises_to_its_maximum_when_all_negatives_are_equally_hard():
    sampler = HardNegativeSampler(schedule="adaptive", max_beta=10.0)
    assert sampler.hardness(0.0) == 10.0
    assert HardNegativeSampler(beta=5.0, schedule="linear").hardness(0.0) == 0.0
    assert sampler._adapt(2.0, reached=1.0) == 4.0
    assert sampler._adapt(8.0, reached=1.0) == 10.0
    assert sampler._adapt(8.0, reached=1e-9) == 4.0
    assert sampler._adapt(8.0, reached=0.1) == pytest.approx(8.0)
    assert sampler._adapt(8.0, reached=float("nan")) == 8.0


def test_adaptive_hardness_moves_to_that_of_the_loss_after_its_duration(tmp_path):
    class Watch(Callback):
        def __init__(self):
            self.betas = []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.betas.append(pl_module.loss.beta)

    def train(sampler, **options):
        watch = Watch()
        fit(tmp_path, sampler, HUCL, epochs=4, callbacks=[watch], differentiate_weights=False, **options)
        return watch.betas

    def adaptive(**options):
        return HardNegativeSampler(schedule="adaptive", fraction=0.4, max_beta=50.0, **options)

    free = train(adaptive())
    half = len(free) // 2
    # Batches have 8 samples of each of ten classes; above this hardness, neural collapse is no minimum.
    critical = hucl_critical_beta(10, counts=[8] * 10)
    for beta, end in [(0.7, 0.7), (9.0, critical)]:
        settled = train(adaptive(duration=0.5), beta=beta)
        start = settled[half]
        assert settled[: half + 1] == free[: half + 1]
        assert settled[half:] == pytest.approx(
            [start + (end - start) * min(1.0, 2 * step / half) for step in range(half)]
        )


def test_the_queue_is_used_after_the_warmup_and_not_in_validation(tmp_path):
    class Watch(Callback):
        train, val = [], []

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            queue = pl_module.loss.queue
            self.train.append(None if queue is None else len(queue))

        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
            self.val.append(pl_module.loss.queue)

    sampler, watch = HardNegativeSampler(queue_size=500, queue_warmup=1), Watch()
    trainer, module = fit(tmp_path, sampler, epochs=2, callbacks=[watch])
    steps = trainer.num_training_batches
    assert watch.train[:steps] == [None] * steps
    assert watch.train[steps:] == [min(500, 80 * (steps + i)) for i in range(steps)]
    assert watch.val
    assert set(watch.val) == {None}
    assert module.loss.queue is None
    assert sampler.queue.features.shape == (500, 9)
    assert "loss/bound" not in trainer.callback_metrics or trainer.callback_metrics["loss/bound"] > 0
    sampler.reset()
    assert len(sampler.queue) == 0


def test_past_features_change_the_loss(tmp_path):
    with_queue, _ = fit(tmp_path, HardNegativeSampler(queue_size=500, queue_warmup=0))
    without, _ = fit(tmp_path, HardNegativeSampler())
    assert with_queue.callback_metrics["loss/train"] != without.callback_metrics["loss/train"]
    assert with_queue.callback_metrics["negatives/effective"] > 2 * without.callback_metrics["negatives/effective"]


def test_a_resumed_run_restores_the_hardness_and_the_queue(tmp_path):
    def sampler():
        return HardNegativeSampler(schedule="adaptive", fraction=0.4, max_beta=99, queue_size=300, queue_warmup=1)

    whole, other = sampler(), sampler()
    _, expected = fit(tmp_path, whole, epochs=4)
    first, _ = fit(tmp_path, other, epochs=2)
    first.save_checkpoint(tmp_path / "half.ckpt")
    resumed = sampler()
    _, module = fit(tmp_path, resumed, epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.hardness(1.0) == whole.hardness(1.0) != other.hardness(1.0)
    assert torch.equal(resumed.queue.features, whole.queue.features)
    for a, b in zip(expected.parameters(), module.parameters(), strict=True):
        assert torch.equal(a, b)


def test_checkpoints_load_with_and_without_a_queue(tmp_path):
    plain, _ = fit(tmp_path, HardNegativeSampler(), epochs=1)
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    queued, _ = fit(tmp_path, HardNegativeSampler(queue_size=100), epochs=2, ckpt_path=tmp_path / "plain.ckpt")
    queued.save_checkpoint(tmp_path / "queued.ckpt")
    fit(tmp_path, HardNegativeSampler(), epochs=3, ckpt_path=tmp_path / "queued.ckpt")


def test_a_new_fit_starts_from_scratch(tmp_path):
    sampler = HardNegativeSampler(schedule="adaptive", queue_size=5000, queue_warmup=0)
    fit(tmp_path, sampler, epochs=1)
    once = len(sampler.queue)
    fit(tmp_path, sampler, epochs=1)
    assert len(sampler.queue) == once


def test_a_training_step_may_return_only_a_loss(tmp_path):
    class Bare(HSCL):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)["loss"]

    fit(tmp_path, HardNegativeSampler(), Bare, epochs=1)
    for sampler in (HardNegativeSampler(schedule="adaptive"), HardNegativeSampler(queue_size=9)):
        with pytest.raises(ValueError, match="got only a loss from the training step of Bare, expected a dict"):
            fit(tmp_path, sampler, Bare, epochs=1)


def test_past_features_of_another_dimension_are_refused_before_any_update(tmp_path):
    trainer, _ = fit(tmp_path, HardNegativeSampler(queue_size=100, queue_warmup=0), epochs=1)
    trainer.save_checkpoint(tmp_path / "nine.ckpt")
    sampler = HardNegativeSampler(queue_size=100, queue_warmup=0)
    sampler.load_state_dict(torch.load(tmp_path / "nine.ckpt", weights_only=True)["callbacks"]["HardNegativeSampler"])
    sampler.reset = lambda: None  # as after loading
    module = HSCL(encoder=MLP((32,)), num_classes=10, feature_dim=5)
    before = [p.clone() for p in module.parameters()]
    trainer = Trainer(max_epochs=1, callbacks=[sampler], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="queue: got features of 5 dimensions, expected 9"):
        trainer.fit(module, LatentClassDataModule())
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert module.loss.queue is None


def test_adaptive_needs_a_hardness(tmp_path):
    with pytest.raises(
        ValueError, match=r"schedule: got 'adaptive', expected 'constant': Threshold\(fraction=0.1\) has no"
    ):
        fit(tmp_path, HardNegativeSampler(schedule="adaptive"), hardening=Threshold(0.1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beta": -1.0}, "beta: got -1.0"),
        ({"start": -1.0}, "start: got -1.0"),
        ({"duration": 0}, "duration: got 0"),
        ({"duration": 1.5}, "duration: got 1.5, expected a share"),
        ({"schedule": "step"}, "schedule: got 'step', expected one of constant, linear, cosine, adaptive"),
        ({"fraction": 0}, "fraction: got 0"),
        ({"fraction": 1.0}, "fraction: got 1.0, expected a share of the negatives in"),
        ({"max_beta": 0}, "max_beta: got 0"),
        ({"schedule": "adaptive", "start": 11.0}, "start: got 11.0, expected at most max_beta, 10.0"),
        ({"queue_size": -1}, "queue_size: got -1, expected an integer >= 0"),
        ({"queue_warmup": -1}, "queue_warmup: got -1"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HardNegativeSampler(**arguments)


def test_the_queue_warns_when_samples_meet_their_own_past_features():
    rng, n = np.random.default_rng(0), 200
    for epochs in (0.1, 0.5, 1.0, 1.5, 2.0, 3.0):
        found = 0
        for _ in range(50):
            order = np.concatenate([rng.permutation(n), rng.permutation(n)])
            found += sum(order[i] in order[max(0, i - int(epochs * n)) : i] for i in range(n, 2 * n))
        assert meets_itself(epochs) == pytest.approx(found / (50 * n), abs=0.02)


@pytest.mark.parametrize(
    ("objective", "queue_size", "words"),
    [
        (HUCL, 2000, "queue_size: got 2000 for 960 features per epoch, expected at most 192; for 100% of the anchors"),
        (HUCL, 480, "for 12% of the anchors an earlier feature of the same image"),
        (HSCL, 1000, "the queue holds several outdated features of the same sample"),
        (HUCL, 100, None),
        (HSCL, 960, None),
    ],
)
def test_a_queue_too_large_for_the_data_is_warned_about_once(objective, queue_size, words, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, HardNegativeSampler(queue_size=queue_size), objective=objective, epochs=2)
    said = [str(w.message) for w in caught if "queue_size" in str(w.message)]
    assert len(said) == (words is not None)
    assert all(words in line for line in said)
