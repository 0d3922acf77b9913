import logging

import numpy as np
import pytest
import torch

from nc_lightning.data import (
    ArrayDataModule,
    DigitPairsDataModule,
    DigitsDataModule,
    LatentClassDataModule,
    STL10DataModule,
)
from nc_lightning.data.loader import LabeledTensors
from nc_lightning.data.summary import PassedOver, summarize


def images(*counts):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return LabeledTensors(torch.zeros(len(labels), 1), labels)


def test_a_summary_describes_every_split():
    passed_over = PassedOver()
    passed_over.add("hidden", "a")
    passed_over.add("linked again", "b", 3)
    passed_over.add("unreadable", "c", 0)
    unlabeled = LabeledTensors(torch.zeros(4, 1), torch.full((4,), -1))
    splits = {"train": images(3, 5), "val": images(2, 2), "test": images(0, 1), "more": unlabeled}
    text = summarize(splits, ["ant", "bee"], {"val": "there"}, passed_over)
    assert text.splitlines() == [
        "data: 2 classes, 'ant' to 'bee'",
        "  train: 8 inputs, 3 to 5 of each class",
        "  val: 4 inputs, 2 of each class (there)",
        "  test: 1 inputs, 0 to 1 of each class, none of 1 classes ('ant' first)",
        "  more: 4 inputs, unlabeled",
        "  skipped: 1 hidden (a), 3 linked again (b first)",
    ]


OURS = {
    "digits": (
        DigitsDataModule,
        "10 classes, 0 to 9",
        "(scikit-learn's digits, 15% of each class)",
    ),
    "pairs": (DigitPairsDataModule, "100 classes, 0 to 99", "(pairs of 15% of scikit-learn's digits)"),
    "latent": (LatentClassDataModule, "10 classes, 0 to 9", "val: 200 inputs, 20 of each class (drawn around random "),
}


@pytest.mark.parametrize("name", OURS)
def test_every_data_set_logs_a_summary_at_setup(name, caplog):
    make, classes, validation = OURS[name]
    data = make()
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        data.setup()
        data.setup()
    (message,) = (record.message for record in caplog.records if record.message.startswith("data: "))
    assert message == data.summary() == str(data)
    head, train, val, test = message.splitlines()
    assert head == f"data: {classes}"
    assert validation in val
    assert all(line.endswith(")") for line in (train, val, test))


def test_labels_stand_for_classes_without_names(tmp_path):
    labels = np.arange(40) % 4
    arrays = {f"{a}_{s}": v for s in ("train", "test") for a, v in (("x", np.zeros((40, 6))), ("y", labels))}
    np.savez(tmp_path / "a.npz", **arrays)
    data = ArrayDataModule(str(tmp_path / "a.npz"), classes=[3, 1], batch_size=8)
    data.setup()
    head, _, val, _ = data.summary().splitlines()
    assert head == "data: 2 classes, 3 to 1"
    assert val.endswith("(0.1 of the training set, held out)")


def test_images_without_labels_are_left_out_of_the_class_counts(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, root, split):
            self.data, self.labels = np.zeros((20, 3, 96, 96), dtype=np.uint8), np.arange(20) % 10

    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    (folder / "unlabeled_X.bin").write_bytes(bytes(2 * 3 * 96 * 96))
    monkeypatch.setattr(STL10DataModule, "dataset", Fake)
    data = STL10DataModule(str(tmp_path), batch_size=20, val_share=0)
    data.setup()
    assert data.summary().splitlines() == [
        "data: 10 classes, 'airplane' to 'truck'",
        f"  train: 20 inputs, 2 of each class (its training set in {folder})",
        "  val: 20 inputs, 2 of each class (the same inputs as test)",
        f"  test: 20 inputs, 2 of each class (its test set in {folder})",
        "  skipped: 2 images without labels (unlabeled_X.bin first)",
    ]
