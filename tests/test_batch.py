"""Every usual form of a batch is read as the same batch; others are refused in one line."""

from collections import UserDict, namedtuple

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from nc_lightning import HSCL
from nc_lightning.batch import INPUT_KEYS, LABEL_KEYS, concatenate_views, read_batch, step_features
from nc_lightning.callbacks import OnlineLinearProbe
from nc_lightning.callbacks.measurement.features import Measured
from nc_lightning.encoders import MLP

X, Y = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([2, 0, 3, 2])
ONE_HOT = functional.one_hot(Y, 5)
Sample = namedtuple("Sample", "label index image")
Pair = namedtuple("Pair", "anchor kind")
FORMS = {
    "pair": (X, Y),
    "with indices": (X, Y, torch.arange(4)),
    "with indices and paths": [X, Y, torch.arange(4), ["a", "b", "c", "d"]],
    "one-hot floats": (X, ONE_HOT.float()),
    "one-hot integers": (X, ONE_HOT),
    "one-hot bools": (X, ONE_HOT.bool()),
    "column": (X, Y[:, None]),
    "bytes in a column": (X, Y[:, None].byte()),
    "with weights": (X, Y, torch.rand(4)),
    "with masks": (X, Y, torch.ones(4, 2, 2, dtype=torch.int64), torch.tensor([True, False, True, True])),
    "with indices drawn twice": (X, Y, torch.tensor([7, 1, 9, 7])),
    "one-hot and the same as indices": (X, ONE_HOT, Y.int()),
    "indices and the same as one-hot": (X, Y, ONE_HOT.float()),
    "with masks of a row each": (X, Y, torch.tensor([[1, 1], [0, 1], [1, 0], [1, 1]])),
    "named tuple": Sample(label=Y, index=torch.arange(4), image=X),
    "named tuple with other names": Pair(X, Y),
    "user's dict": UserDict(pixel_values=X, labels=Y, path="abcd"),
    **{f"dict, {key}": {"id": torch.arange(4), key: X, "label": Y} for key in INPUT_KEYS},
    **{f"dict, {key}": {key: ONE_HOT, "x": X, "paths": ["a"]} for key in LABEL_KEYS},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_usual_forms_of_a_batch_are_read(form):
    x, labels, instances = concatenate_views(FORMS[form])
    assert x is X
    assert labels.tolist() == Y.tolist()
    assert instances.tolist() == [0, 1, 2, 3]


def test_views_are_read_in_any_form():
    for batch in (((X, X + 1), ONE_HOT), {"image": [X, X + 1], "y": Y}, ((X, X + 1), Y, torch.arange(4))):
        x, labels, instances = concatenate_views(batch)
        assert torch.equal(x, torch.cat([X, X + 1]))
        assert labels.tolist() == [2, 0, 3, 2] * 2
        assert instances.tolist() == [0, 1, 2, 3] * 2


IMAGES = torch.zeros(4, 3, 8, 8)
DOMAINS = torch.tensor([0, 1, 0, 1])
REFUSED = {
    "domains before labels": (
        (X, DOMAINS, Y),
        "batch: got a tuple of 3 with several integer vectors that may be",
    ),
    "domains behind labels": ((X, Y, DOMAINS.int()), "expected .x, y., or .x, y, index.; return a dict"),
    "indices before labels": ([X, torch.arange(4), Y], "batch: got a list of 3 with several integer vectors"),
    "domains behind indices": ((X, Y, torch.arange(4), DOMAINS), "batch: got a tuple of 4 with several integer"),
    "a mask in the inputs": (
        ((IMAGES, IMAGES[:, 0]), Y),
        r"batch: got inputs of float32 \(4, 3, 8, 8\), float32 \(4, 8, 8\), expected views of equal shape and type",
    ),
    "a mask of the inputs' shape": (((X, X > 0), Y), r"batch: got inputs of float32 \(4, 6\), bool \(4, 6\), expected"),
    "a list of both": (([X, Y], Y), r"batch: got inputs of float32 \(4, 6\), int64 \(4,\), expected views"),
    "two views and labels in one tuple": (
        (IMAGES, IMAGES, Y),
        r"labels: got shape \(4, 3, 8, 8\), expected \(N,\); sev",
    ),
    "two vectors and labels in one tuple": ((X, X + 1, Y), r"labels: got soft labels \(4, 6\)"),
    "mixed labels": ((X, 0.7 * ONE_HOT + 0.3 * ONE_HOT.roll(1, 0)), r"labels: got soft labels \(4, 5\)"),
    "smoothed labels": ((X, ONE_HOT * 0.9 + 0.02), "labels: got soft labels"),
    "several classes": ((X, (ONE_HOT + ONE_HOT.roll(1, 1))), "labels: got soft labels"),
    "a row of none": ((X, ONE_HOT * torch.tensor([1, 1, 0, 1])[:, None]), "labels: got soft labels"),
    "one float a row": ((X, torch.ones(4, 1)), r"labels: got torch.float32 \(4, 1\), expected integers"),
    "one-hot domains before labels": (
        (X, functional.one_hot(DOMAINS), Y),
        "batch: got a tuple of 3 with several integer",
    ),
    "one-hot domains behind labels": ((X, Y, functional.one_hot(DOMAINS).float()), "batch: got a tuple of 3 with sev"),
    "one-hot labels before domains": ((X, ONE_HOT.bool(), DOMAINS), "batch: got a tuple of 3 with several integer"),
    "a column of domains": ((X, Y, DOMAINS[:, None]), "batch: got a tuple of 3 with several integer"),
    "indices before a column of labels": ((X, torch.arange(4), Y[:, None]), "batch: got a tuple of 3 with several"),
    "indices before one-hot labels": ((X, torch.arange(4), ONE_HOT), "batch: got a tuple of 3 with several integer"),
    "one label": ((X, torch.tensor(3)), r"labels: got shape \(\)"),
    "two inputs": (
        {"image": X, "x": X, "y": Y},
        "batch: got a dict with the keys image, x, y, expected one of image, ",
    ),
    "no labels": ({"image": X}, "batch: got a dict with the keys image, expected one of image, .* one of label, "),
    "names of two data sets": ({"a": (X, Y), "b": (X, Y)}, "batch: got a dict with the keys a, b, expected"),
    "inputs of texts": ((["a", "b", "c", "d"], Y), "batch: got inputs of type str, expected a tensor"),
    "inputs in a dict": (({"input_ids": X}, Y), "batch: got inputs of type dict, expected a tensor"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_forms_are_refused_in_one_line(form):
    batch, message = REFUSED[form]
    with pytest.raises(ValueError, match=message) as error:
        read_batch(batch)
    assert "\n" not in str(error.value)


def test_advice_names_the_argument_where_there_is_one():
    with pytest.raises(ValueError, match="batch: got a tuple of 3 .* with image and label; give batch=, a callable"):
        Measured().read((X, DOMAINS, Y))


def test_labels_in_the_output_of_a_third_party_step_are_found():
    assert step_features({"z": X, "labels": ONE_HOT}).labels.tolist() == Y.tolist()


class Dicts(Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, index):
        label = functional.one_hot(torch.tensor(index % 4), 4).float()
        return {"pixel_values": torch.sin(torch.arange(6.0) * (index + 1)), "labels": label, "id": index}


class Pairs(Dicts):
    def __getitem__(self, index):
        return super().__getitem__(index)["pixel_values"], index % 4


@pytest.mark.filterwarnings("ignore")
def test_objectives_train_on_any_form():
    def run(dataset):
        torch.manual_seed(0)
        module = HSCL(encoder=MLP((6,), (5,)), num_classes=4)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = Trainer(max_epochs=2, enable_checkpointing=False, callbacks=[OnlineLinearProbe()], **quiet)
        loader = DataLoader(dataset, 12)
        trainer.fit(module, loader, loader)
        trainer.test(module, loader, verbose=False)
        (first, _) = trainer.predict(module, loader)
        return {**module.state_dict(), **trainer.callback_metrics, **first}

    ours, theirs = run(Pairs()), run(Dicts())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
