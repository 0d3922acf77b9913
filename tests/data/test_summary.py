import logging

import pytest
import torch

from nc_lightning.data import DigitsDataModule, LatentClassDataModule
from nc_lightning.data.finding import PassedOver
from nc_lightning.data.loader import LabelledTensors
from nc_lightning.data.summary import summarize


def images(*counts):
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return LabelledTensors(torch.zeros(len(labels), 1), labels)


def test_a_summary_says_what_there_is():
    passed_over = PassedOver()
    passed_over.add("hidden", "a")
    passed_over.add("linked again", "b", 3)
    passed_over.add("unreadable", "c", 0)
    unlabelled = LabelledTensors(torch.zeros(4, 1), torch.full((4,), -1))
    splits = {"train": images(3, 5), "val": images(2, 2), "test": images(0, 1), "more": unlabelled}
    text = summarize(splits, 2, ["ant", "bee"], {"val": "there"}, passed_over)
    assert text.splitlines() == [
        "data: 2 classes, 'ant' to 'bee'",
        "  train: 8 inputs, 3 to 5 of each class",
        "  val: 4 inputs, 2 of each class (there)",
        "  test: 1 inputs, 0 to 1 of each class, none of 1 classes ('ant' first)",
        "  more: 4 inputs, unlabelled",
        "  passed over: 1 hidden (a), 3 linked again (b first)",
    ]


@pytest.mark.parametrize("make", [DigitsDataModule, LatentClassDataModule])
def test_every_data_set_logs_one_at_setup(make, caplog):
    data = make()
    with caplog.at_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero"):
        data.setup()
        data.setup()
    (message,) = (record.message for record in caplog.records if record.message.startswith("data: "))
    assert message == data.summary()
    assert len(message.splitlines()) == 4
