import functools

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL, SCL
from nc_lightning.callbacks import GeometryMonitor, OnlineLinearProbe
from nc_lightning.data import LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.geometry import simplex_etf
from tests.on_processes import on_processes

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
FAST = functools.partial(torch.optim.Adam, lr=0.05)


def fit(tmp_path, *callbacks, epochs=3, objective=HSCL, ckpt_path=None):
    torch.manual_seed(0)
    module = objective(encoder=MLP((32,), (24,)), num_classes=10)
    trainer = Trainer(max_epochs=epochs, callbacks=list(callbacks), default_root_dir=tmp_path, **QUIET)
    trainer.fit(module, LatentClassDataModule(batch_size=80), ckpt_path=ckpt_path)
    return trainer, module


def test_the_probe_learns_the_classes_and_nc3_compares_it_with_the_class_means(tmp_path):
    probe, monitor = OnlineLinearProbe(FAST), GeometryMonitor()
    trainer, module = fit(tmp_path, probe, monitor, epochs=12)
    metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
    assert metrics["probe/train_accuracy"] > 0.9
    assert metrics["probe/val_accuracy"] > 0.9
    assert metrics["probe/train_loss"] < 1.5
    for name in ("train", "val"):
        assert 0 <= metrics[f"geometry/{name}/nc4"] < 0.1
        assert 0 < metrics[f"geometry/{name}/nc3"] < 0.5
    probe.classifier.bias.data[3] += 100  # now it predicts 3 for every sample
    trainer.validate(module, LatentClassDataModule(batch_size=80), verbose=False)
    assert monitor.results["train"]["nc4"] > 0.5


def test_nc3_is_absent_without_a_probe(tmp_path):
    monitor = GeometryMonitor()
    fit(tmp_path, monitor, epochs=1)
    assert not {"nc3", "nc4"} & set(monitor.results["train"])


def test_the_probe_does_not_change_training(tmp_path):
    _, alone = fit(tmp_path)
    _, probed = fit(tmp_path, OnlineLinearProbe())
    for a, b in zip(alone.parameters(), probed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not any("classifier" in name for name, _ in probed.named_parameters())


def test_a_resumed_run_restores_the_probe_and_a_checkpoint_without_one_loads(tmp_path):
    whole, half, resumed, late = (OnlineLinearProbe(FAST) for _ in range(4))
    fit(tmp_path, whole, epochs=4)
    trainer, _ = fit(tmp_path, half, epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fit(tmp_path, resumed, epochs=4, ckpt_path=tmp_path / "half.ckpt")
    assert torch.equal(resumed.classifier.weight, whole.classifier.weight)
    assert not torch.equal(resumed.classifier.weight, half.classifier.weight)
    fit(tmp_path, epochs=4, ckpt_path=tmp_path / "half.ckpt")  # the probe of the checkpoint is ignored
    trainer, _ = fit(tmp_path, epochs=2)
    trainer.save_checkpoint(tmp_path / "none.ckpt")
    fit(tmp_path, late, epochs=4, ckpt_path=tmp_path / "none.ckpt")
    assert late.classifier.weight.abs().sum() > 0


def test_a_new_fit_resets_the_probe(tmp_path):
    probe, other = OnlineLinearProbe(), OnlineLinearProbe()
    fit(tmp_path, probe, epochs=2)
    fit(tmp_path, probe, epochs=1)
    fit(tmp_path, other, epochs=1)
    assert torch.equal(probe.classifier.weight, other.classifier.weight)


class Plain(LightningModule):
    """A third-party module whose step returns a given output."""

    def __init__(self, returned):
        super().__init__()
        self.layer, self.returned = nn.Linear(4, 3), returned

    def training_step(self, batch, batch_idx):
        x, labels = batch
        z = self.layer(x)
        values = {"loss": z.square().mean(), "z": z, "labels": labels}
        return {key: values[key] for key in self.returned}

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_any_module_that_returns_features_can_be_probed(tmp_path):
    labels = torch.tensor([0, 1, 2, -1] * 5)
    loader = DataLoader(TensorDataset(torch.randn(20, 4), labels), batch_size=10)
    probe = OnlineLinearProbe(num_classes=3)
    Trainer(max_epochs=1, callbacks=[probe], default_root_dir=tmp_path, **QUIET).fit(
        Plain(("loss", "z", "labels")), loader
    )
    assert probe.classifier.weight.shape == (3, 3)
    assert probe.classifier.weight.abs().sum() > 0
    trainer = Trainer(max_epochs=1, callbacks=[OnlineLinearProbe()], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match=r"num_classes: got none .* expected OnlineLinearProbe\(num_classes=...\)"):
        trainer.fit(Plain(("loss", "z", "labels")), loader)
    trainer = Trainer(max_epochs=1, callbacks=[OnlineLinearProbe(num_classes=3)], default_root_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="OnlineLinearProbe: got no features from the training step of Plain"):
        trainer.fit(Plain(("loss",)), loader)


def test_a_batch_without_known_labels_is_skipped(tmp_path):
    loader = DataLoader(TensorDataset(torch.randn(8, 4), torch.full((8,), -1)), batch_size=4)
    probe = OnlineLinearProbe(num_classes=3)
    trainer = Trainer(max_epochs=1, callbacks=[probe], default_root_dir=tmp_path, **QUIET)
    trainer.fit(Plain(("loss", "z", "labels")), loader)
    assert torch.equal(probe.classifier.weight, torch.zeros(3, 3))


def test_features_of_another_dimension_are_refused():
    probe = OnlineLinearProbe(num_classes=3)
    probe._make(torch.zeros(1, 4))
    with pytest.raises(ValueError, match="OnlineLinearProbe: got features of 5 dimensions, expected 4 as before"):
        probe._make(torch.zeros(1, 5))


class Silent:
    def log_dict(self, *args, **kwargs):
        pass


def steps(probe, parts):
    labels = torch.arange(4).repeat(6)
    z = simplex_etf(4, 3)[labels] + 0.1 * torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    for part in parts:
        probe.on_train_batch_end(None, Silent(), {"z": z[part], "labels": labels[part]}, None, 0)
    return probe.classifier


PARTS = torch.arange(24).split(8)


def _classifier(rank, deal):
    return steps(OnlineLinearProbe(FAST, num_classes=4), [part.split(deal)[rank] for part in PARTS]).state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("deal", [[4, 4], [7, 1], [8, 0]])
def test_two_processes_train_the_same_classifier_as_one(gloo, deal):
    one = steps(OnlineLinearProbe(FAST, num_classes=4), PARTS).state_dict()
    for found in on_processes(2, _classifier, deal):
        for key, value in found.items():
            assert torch.allclose(value, one[key], atol=1e-6)


def test_the_probe_works_for_an_objective_without_hardness(tmp_path):
    probe = OnlineLinearProbe()
    fit(tmp_path, probe, objective=SCL, epochs=1)
    assert probe.classifier.weight.shape == (10, 9)


def test_logits_of_blocks_of_samples_give_the_step_of_all(monkeypatch):
    whole = OnlineLinearProbe(FAST, num_classes=4)
    expected = steps(whole, PARTS)
    monkeypatch.setattr("nc_lightning.geometry.blocks.NUMBERS_AT_ONCE", 12)  # 3 of 8 samples
    parts = OnlineLinearProbe(FAST, num_classes=4)
    found = steps(parts, PARTS)
    assert torch.allclose(found.weight, expected.weight, atol=1e-6)
    assert torch.allclose(parts._trained, whole._trained)
