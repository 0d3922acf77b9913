"""Hugging Face data sets that are made here, saved to disk, and read as images and classes."""

import io

import datasets
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from nc_lightning import HSCL
from nc_lightning.data import HuggingFaceDataModule
from nc_lightning.encoders import MLP

datasets.disable_progress_bars()
NAMES = ["ant", "bee", "cat", "dog"]
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3), dtype=np.uint8)
CLASSES = datasets.ClassLabel(names=NAMES)


def table(count=40, label=CLASSES, labels=None, images=None, **more):
    """A table whose image i has the class i % 4."""
    labels = [i % 4 for i in range(count)] if labels is None else labels
    columns = {"picture": [Image.fromarray(image) for image in PIXELS[:count]] if images is None else images}
    features = {"picture": datasets.Image(), "label": label, **{name: feature for name, (feature, _) in more.items()}}
    values = {name: values for name, (_, values) in more.items()}
    return datasets.Dataset.from_dict(columns | {"label": labels} | values, features=datasets.Features(features))


def saved(folder, **splits):
    path = str(folder / "saved")
    (datasets.DatasetDict(splits) if splits else table()).save_to_disk(path)
    return path


def ready(*args, **kwargs):
    data = HuggingFaceDataModule(*args, **kwargs)
    data.setup()
    return data


def test_pixels_labels_and_names_are_those_of_the_table(tmp_path):
    data = HuggingFaceDataModule(saved(tmp_path, train=table(), test=table(20)), val_share=0, batch_size=8)
    assert (data.num_classes, data.input_shape, data.class_names) == (4, (3, 6, 5), NAMES)
    data.setup()
    x, labels = data._splits["train"][list(range(40))]
    assert torch.equal(x, torch.from_numpy(PIXELS[:40]).permute(0, 3, 1, 2))
    assert labels.tolist() == [i % 4 for i in range(40)]
    assert [len(data._splits[split]) for split in ("train", "val", "test")] == [40, 20, 20]
    assert "train of" in data.summary()
    assert next(iter(data.train_dataloader()))[1].bincount().tolist() == [2] * 4


def test_splits_have_the_usual_names_and_others_are_counted(tmp_path):
    path = saved(tmp_path, Train=table(), validation=table(12), eval=table(8), extra=table(4))
    data = ready(path)
    assert [len(data._splits[split]) for split in ("train", "val", "test")] == [40, 12, 8]
    assert "1 splits not read (extra)" in data.summary()


def test_a_single_table_is_for_training_and_each_class_is_held_out_alike(tmp_path):
    data = ready(saved(tmp_path), val_share=0.3)
    assert data._splits["train"].labels.bincount().tolist() == [7] * 4
    assert data._splits["val"].labels.bincount().tolist() == [3] * 4
    again = ready(saved(tmp_path / "again"), val_share=0.3)
    assert torch.equal(again._splits["val"].x, data._splits["val"].x)


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_images_are_decoded_as_those_in_folders(tmp_path, cache):
    half = Image.new("RGBA", (5, 6), (255, 0, 0, 0))
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS[0].transpose(1, 0, 2)[::-1]).save(turned, "PNG", exif=exif)
    images = [half, {"bytes": turned.getvalue(), "path": None}] + [Image.fromarray(image) for image in PIXELS[2:40]]
    data = ready(saved(tmp_path, train=table(images=images)), cache=cache, val_share=0.1)
    x, *_ = data.list_files()["train"][[0, 1]]
    assert (x[0] == 255).all()
    assert torch.equal(x[1], torch.from_numpy(PIXELS[0]).permute(2, 0, 1))
    sized = ready(saved(tmp_path / "sized", train=table(images=images)), image_size=4, cache=cache)
    assert sized.input_shape == (3, 4, 4)
    assert next(iter(sized.geometry_dataloader()))[0].shape[1:] == (3, 4, 4)


def test_labels_may_be_numbers_strings_or_one_of_several_columns(tmp_path):
    numbers = table(label=datasets.Value("int64"), labels=[3 * (i % 4) for i in range(40)])
    data = ready(saved(tmp_path / "numbers", train=numbers), classes="found")
    assert (data.num_classes, data.class_names, data.class_name(2)) == (4, None, 6)
    strings = table(label=datasets.Value("string"), labels=[NAMES[i % 4] for i in range(40)])
    assert ready(saved(tmp_path / "strings", train=strings)).class_names == NAMES
    coarse = table(coarse=(datasets.ClassLabel(names=["x", "y"]), [i % 2 for i in range(40)]))
    path = saved(tmp_path / "several", train=coarse)
    with pytest.raises(
        ValueError, match=r"label: got 2 columns that may be it, expected one of label, coarse; the col"
    ):
        HuggingFaceDataModule(path)
    assert ready(path, label="coarse").class_names == ["x", "y"]
    assert ready(path, label="label", classes=["dog", "ant"]).class_names == ["dog", "ant"]


def test_unknown_labels_are_left_out_and_counted(tmp_path):
    labels = [-1 if i in (5, 9) else i % 4 for i in range(40)]
    data = ready(saved(tmp_path, train=table(labels=labels), test=table(8, labels=[-1] * 8)), val_share=0.2)
    assert len(data._splits["train"]) + len(data._splits["val"]) == 38
    assert "10 without a label (train[5] first)" in data.summary()
    assert len(data._splits["test"]) == len(data._splits["val"])


def test_damaged_images_are_named_or_skipped(tmp_path):
    images = [{"bytes": b"no image", "path": None}, None] + [Image.fromarray(image) for image in PIXELS[2:40]]
    path = saved(tmp_path, train=table(images=images))
    with pytest.raises(ValueError, match=r"image: got train\[0\]: cannot identify image file"):
        HuggingFaceDataModule(path)
    with pytest.warns(UserWarning, match=r"skipped 2 images that cannot be read, the first one train\[0\]"):
        data = ready(path, on_error="skip", val_share=0.2)
    assert len(data._splits["train"]) + len(data._splits["val"]) == 38


def test_a_data_set_may_be_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub = tmp_path / "hub"
    (hub / "me" / "animals").mkdir(parents=True)
    table().to_parquet(str(hub / "me" / "animals" / "train.parquet"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    load = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda path, *args, **kw: load(str(hub / path), *args, **kw))
    assert ready("me/animals").class_names == NAMES
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ValueError, match=r"path: got 'nobody/nothing', which cannot be .*; set download to true"):
        HuggingFaceDataModule("nobody/nothing")


@pytest.mark.parametrize(
    "path", ["images", "{}/images", "images/train/a/0.png", "../nothing", "/nothing", "~/no thing"]
)
def test_a_path_that_save_to_disk_did_not_write_is_not_loaded(tmp_path, monkeypatch, path):
    (tmp_path / "images" / "train" / "a").mkdir(parents=True)
    Image.fromarray(PIXELS[0]).save(tmp_path / "images" / "train" / "a" / "0.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(ValueError, match=r"^path: got '.*', expected a folder written by save_to_disk, or a name on"):
        HuggingFaceDataModule(path.format(tmp_path), download=True)


@pytest.mark.parametrize(
    ("splits", "options", "message"),
    [
        ({"test": table(4)}, {}, "path: got the splits test in .*, expected train among them"),
        ({"val": table(4), "dev": table(4), "train": table(4)}, {}, "path: got the splits val and dev"),
        ({"train": table(8)}, {"label": "breed"}, "label: got 'breed', expected one of label; the columns are picture"),
        ({"train": table(8)}, {"image": "label"}, "image: got 'label', expected one of picture; the columns are pic"),
        ({"train": table(8, label=datasets.Value("float32"))}, {}, "label: got float.* expected whole numbers or str"),
        ({"train": table(8, labels=[-1] * 8)}, {}, "path: got no labeled, readable image in the training split"),
        ({"train": table(8, labels=[0, 1] * 4)}, {"val_share": 0.5}, "no training image of the classes .'cat', 'dog'."),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, splits, options, message):
    with pytest.raises(ValueError, match=message) as error:
        ready(saved(tmp_path, **splits), **options)
    assert "\n" not in str(error.value)


def test_classes_that_only_a_test_split_has_are_refused(tmp_path):
    strings = {"label": datasets.Value("string")}
    train, test = table(8, labels=list("abab" * 2), **strings), table(4, labels=list("abcz"), **strings)
    with pytest.raises(ValueError, match=r"label: got the classes \['c', 'z'\] in test, which the training split"):
        HuggingFaceDataModule(saved(tmp_path, train=train, test=test))


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match=r"got no datasets; install it by pip install 'nc-lightning\[hf\]'"):
        HuggingFaceDataModule("any")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_it_trains(tmp_path, num_workers):
    data = HuggingFaceDataModule(saved(tmp_path), batch_size=8, cache="none", num_workers=num_workers)
    model = HSCL(encoder=MLP((3, 6, 5), (16,)), num_classes=4)
    trainer = Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(model, data)
    assert trainer.global_step == 4
