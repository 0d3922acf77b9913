"""Accuracy of frozen features is that of scikit-learn on the features that the layers compute."""

import pytest
import torch
from lightning.pytorch import LightningDataModule
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset

from nc_lightning import HSCL
from nc_lightning.data import DigitsDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.runs.evaluation import evaluate, frozen_features


@pytest.fixture
def module():
    torch.manual_seed(0)
    return HSCL(encoder=MLP((1, 8, 8), [16]), num_classes=10).eval()


def by_hand(layer, loader):
    with torch.no_grad():
        parts = [(layer(x), y) for x, y in loader]
    return torch.cat([z for z, _ in parts]), torch.cat([y for _, y in parts])


def test_features_are_those_of_the_clean_sets_in_order(module):
    data = DigitsDataModule(batch_size=100)
    train, test = frozen_features(module, data, ["encoder", "z"])
    for found, loader in ((train, data.geometry_dataloader()), (test, data.test_dataloader())):
        for name, layer in (("encoder", module.encoder), ("z", module)):
            expected, labels = by_hand(layer, loader)
            assert torch.equal(found.labels, labels)
            torch.testing.assert_close(found.layers[name], expected)


def test_accuracies_are_those_of_scikit_learn(module):
    data = DigitsDataModule(batch_size=100)
    found = evaluate(module, data)
    assert (found.train_size, found.test_size, found.notes) == (1259, 269, [])
    bank, labels = by_hand(module.encoder, data.geometry_dataloader())
    queries, expected = by_hand(module.encoder, data.test_dataloader())
    votes = KNeighborsClassifier(
        20, metric="cosine", weights=lambda distances: torch.from_numpy(-distances / 0.07).exp().numpy()
    )
    accuracy = votes.fit(bank.numpy(), labels.numpy()).score(queries.numpy(), expected.numpy())
    values = found.layers["encoder"]
    assert values["knn_20"] == pytest.approx(accuracy, abs=1e-12)
    scaler = StandardScaler().fit(bank.double().numpy())
    strength = 1 / (len(bank) * values["linear_weight_decay"])
    linear = LogisticRegression(C=strength, max_iter=1000)
    linear.fit(scaler.transform(bank.double().numpy()), labels.numpy())
    score = linear.score(scaler.transform(queries.double().numpy()), expected.numpy())
    assert values["linear"] == pytest.approx(score, abs=1e-12)
    assert found.layers["z"] != values


def test_a_wrong_label_changes_the_accuracy(module, monkeypatch):
    data = DigitsDataModule(batch_size=100)
    right = evaluate(module, data, ["z"]).layers["z"]
    data._splits["test"].labels[:50] = (data._splits["test"].labels[:50] + 1) % 10
    assert evaluate(module, data, "z").layers["z"]["ncm"] < right["ncm"] - 0.05


@pytest.mark.parametrize("num_classes", [4, 10])
def test_another_data_set_has_its_own_classes(num_classes):
    data = LatentClassDataModule(num_classes=num_classes, samples_per_class=60, input_dim=64)
    module = HSCL(encoder=MLP((64,), [16]), num_classes=10).eval()
    module.class_names = [f"digit {i}" for i in range(10)]
    found = evaluate(module, data, ["encoder"])
    assert found.layers["encoder"]["ncm"] > 0.5
    assert module.class_names == [f"digit {i}" for i in range(10)]


class Own(LightningDataModule):
    """A data module of a user, whose training set is shuffled."""

    def setup(self, stage):
        labels = torch.arange(5).repeat(20)
        z = torch.nn.functional.one_hot(labels, 64) + 0.1 * torch.randn(100, 64)
        self.sets = TensorDataset(z[:75], labels[:75]), TensorDataset(z[75:], labels[75:])

    def train_dataloader(self):
        return DataLoader(self.sets[0], batch_size=20, shuffle=True)

    def test_dataloader(self):
        return DataLoader(self.sets[1], batch_size=20)


class OnlyValidated(Own):
    def val_dataloader(self):
        return DataLoader(self.sets[1], batch_size=10)

    test_dataloader = LightningDataModule.test_dataloader


@pytest.mark.parametrize("data", [Own, OnlyValidated])
def test_a_data_module_of_a_user_is_evaluated_on_its_loaders(data):
    found = evaluate(HSCL(encoder=MLP((64,), [16]), num_classes=10).eval(), data(), ["encoder"])
    assert (found.train_size, found.test_size) == (75, 25)
    assert found.layers["encoder"]["ncm"] > 0.9


def test_inputs_of_another_shape_are_refused_with_one_line(module):
    line = r"^data: got LatentClassDataModule with inputs \(32,\), which HSCL cannot read: mat1 and mat2 shapes"
    with pytest.raises(ValueError, match=line):
        evaluate(module, LatentClassDataModule(num_classes=4, samples_per_class=20))


def test_a_layer_that_is_not_there_is_refused_before_anything_runs(module):
    with pytest.raises(ValueError, match="^layers: got 'encodr', expected z or a submodule of HSCL, such as encoder"):
        evaluate(module, DigitsDataModule(), ["encodr"])
