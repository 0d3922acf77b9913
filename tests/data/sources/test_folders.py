"""Usual trees of images: each file is read into one split and one class, or is counted or refused."""

import itertools
import os
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nc_lightning.data import ImageFolderDataModule
from nc_lightning.data.files.split_folders import role_of


def draw(path, number=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, options.pop("format", None), **options)
    return path


def tree(root, splits=("train", "test"), classes=("ant", "bee"), count=4):
    number = 0
    for split in splits:
        for name in classes:
            for i in range(count):
                number += 1
                draw(root / split / name / f"{i}.png", number)
    return root


def ready(root, **kwargs):
    data = ImageFolderDataModule(str(root), **{"batch_size": 4, "val_share": 0.25, **kwargs})
    data.setup()
    return data


def files(data):
    """Names of the files in each split by their real paths, which reveals links."""
    return {split: {os.path.realpath(path) for path in images.paths} for split, images in data._splits.items()}


def sizes(data):
    return {split: len(paths) for split, paths in files(data).items()}


def write_csv(path, rows, head="file,label"):
    path.write_text("\n".join([head, *(f"{file},{label}" for file, label in rows)]) + "\n")
    return str(path)


# --------------------------------------------------------------------------------------------- paths and the splits

ROOTS = {
    "absolute": lambda root: root,
    "relative": lambda root: os.path.relpath(root),
    "with ..": lambda root: f"{root}/train/../../{root.name}",
    "linked": lambda root: root.parent / "link",
    "of a home": lambda root: f"~/{root.name}",
}
NAMES = {
    "relative": lambda path, root: path.relative_to(root),
    "absolute": lambda path, root: path,
    "with ..": lambda path, root: Path("train/../../tree") / path.relative_to(root),
    "below a link": lambda path, root: root.parent / "link" / path.relative_to(root),
    "through the store": lambda path, root: os.path.realpath(path),
    "of a home": lambda path, root: f"~/{root.name}/{path.relative_to(root)}",
    "of Windows": lambda path, root: str(path.relative_to(root)).replace("/", "\\"),
}


@pytest.mark.parametrize("stored", ["in place", "linked files", "linked folders"])
@pytest.mark.parametrize("rooted", ROOTS)
def test_splits_are_disjoint_for_every_spelling_of_a_path(tmp_path, monkeypatch, rooted, stored):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "tree"
    (tmp_path / "link").symlink_to(root)
    if stored == "in place":
        tree(root)
    else:
        tree(tmp_path / "store")
        for path in list((tmp_path / "store").rglob("*.png" if stored == "linked files" else "test")):
            link = root / path.relative_to(tmp_path / "store")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        if stored == "linked folders":
            os.rename(tmp_path / "store" / "train", root / "train")
    given = ROOTS[rooted](root)
    listed = sorted(path for split in ("train", "test") for path in (root / split).glob("*/*.png"))
    assert len(listed) == 16
    by_folder = ready(given)
    assert sizes(by_folder) == {"train": 6, "val": 2, "test": 8}
    held_out = {os.path.realpath(path) for path in listed if "/test/" in str(path)}
    assert files(by_folder)["test"] == held_out
    for name, named in NAMES.items():
        csv = write_csv(tmp_path / "labels.csv", [(named(path, root), path.parent.name) for path in listed])
        by_csv = files(ready(given, labels=csv))
        assert by_csv["test"] == held_out, name
        assert not by_csv["train"] & by_csv["val"], name
        assert not (by_csv["train"] | by_csv["val"]) & held_out, name
        assert len(by_csv["train"]) == 6, name


def test_a_csv_row_in_a_held_out_folder_is_not_used_for_training(tmp_path):
    root = tree(tmp_path / "tree", splits=("images", "valid", "Test"))
    rows = [(path.relative_to(root), path.parent.name) for path in sorted(root.rglob("*.png"))]
    data = ready(root, labels=write_csv(tmp_path / "x.csv", rows))
    assert sizes(data) == {"train": 8, "val": 8, "test": 8}
    assert {path.split("/")[-3] for path in files(data)["train"]} == {"images"}
    assert data.passed_over.counts == {}
    os.rename(root / "images", root / "train")
    tree(root, splits=("holdout",))
    rows = [(path.relative_to(root), path.parent.name) for path in sorted(root.rglob("*.png"))]
    with pytest.warns(
        UserWarning, match="labels: 8 files .* are used for training because they are in none of .*holdout/"
    ):
        ready(root, labels=write_csv(tmp_path / "x.csv", rows))


def test_a_file_is_in_one_split_and_one_class(tmp_path):
    for number, (first, second) in enumerate([("train/ant", "test/ant"), ("train/ant", "train/bee")]):
        root = tree(tmp_path / str(number))
        (root / second / "again.png").symlink_to(root / first / "0.png")
        with pytest.raises(ValueError, match=r"root: got one file as .*0.png and as .*again.png, expected each in one"):
            ready(root)
    root = tree(tmp_path / "unlabeled")
    (root / "test" / "again.png").symlink_to(root / "train" / "ant" / "0.png")
    with pytest.raises(ValueError, match="root: got one file as"):
        ready(root, labels="none")


@pytest.mark.parametrize("labels", ["folder", "none", "csv"])
def test_hard_links_are_treated_as_links(tmp_path, labels):
    root = tree(tmp_path / "tree")
    os.link(root / "train" / "ant" / "0.png", root / "train" / "ant" / "same.png")
    if labels == "csv":
        rows = [(path.relative_to(root), path.parent.name) for path in sorted(root.rglob("*.png"))]
        data = ready(root, labels=write_csv(tmp_path / "x.csv", rows))
        assert data.passed_over.counts == {"linked again": 1, "listed again": 1}
    else:
        data = ready(root, labels=labels)
        assert data.passed_over.counts == {"linked again": 1}
    assert sizes(data) == {"train": 6, "val": 2, "test": 8}
    os.link(root / "train" / "ant" / "1.png", root / "test" / "ant" / "again.png")
    if labels == "csv":
        rows.append(("test/ant/again.png", "ant"))
        held_out = ready(root, labels=write_csv(tmp_path / "x.csv", rows))
        assert len(held_out._splits["test"]) == 9
        assert str(root / "train" / "ant" / "1.png") in map(str, held_out._splits["test"].paths)
        rows[-1] = ("test/ant/again.png", "bee")
        with pytest.raises(ValueError, match=r"labels: got 'ant' in row \d+ and 'bee' in row 19 of .* for .*again.png"):
            ready(root, labels=write_csv(tmp_path / "x.csv", rows))
    else:
        with pytest.raises(ValueError, match=r"root: got one file as .*1.png and as .*again.png, expected each in one"):
            ready(root, labels=labels)


# ---------------------------------------------------------------------------------------------- names of splits


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(
            (name, "train")
            for name in ("train", "Train", "TRAINING", "train_set", "trainset", "seg_train", "train2017", "imagesTrain")
        ),
        *((name, "val") for name in ("val", "valid", "Validation", "dev", "val-images")),
        *((name, "test") for name in ("test", "Test", "testing", "eval", "evaluation", "testdata", "test.images")),
        *((name, None) for name in ("trainer", "contest", "values", "device", "ant", "train_test", "set")),
    ],
)
def test_usual_split_names_are_recognized(name, role):
    assert role_of(name) == role


@pytest.mark.parametrize("train", ["train", "Training"])
@pytest.mark.parametrize("val", ["val", "Valid", "validation", "dev"])
@pytest.mark.parametrize("test", ["test", "Testing", "eval"])
def test_each_folder_is_the_split_of_its_name(tmp_path, train, val, test):
    data = ready(tree(tmp_path, splits=(train, val, test)))
    for split, folder in (("train", train), ("val", val), ("test", test)):
        assert {Path(path).parts[-3] for path in files(data)[split]} == {folder}
    assert sizes(data) == {"train": 8, "val": 8, "test": 8}


def test_without_a_test_folder_the_validation_set_is_used_and_reported(tmp_path):
    data = ready(tree(tmp_path, splits=("train", "dev")))
    assert sizes(data) == {"train": 8, "val": 8, "test": 8}
    assert "test: 8 inputs, 4 of each class (the same inputs as val)" in data.summary()
    flat = ready(tree(tmp_path / "flat", splits=(".",)))
    assert sizes(flat) == {"train": 6, "val": 2, "test": 2}
    assert "val: 2 inputs, 1 of each class (0.25 of the training set, held out)" in flat.summary()
    assert "test: 2 inputs, 1 of each class (the same inputs as val)" in flat.summary()


def test_ambiguous_trees_are_refused_by_name(tmp_path):
    def refused(root, message, **kwargs):
        with pytest.raises(ValueError, match=message):
            ready(root, **kwargs)

    refused(
        tree(tmp_path / "1", splits=("train", "test", "holdout")), r"root: got the folders \['holdout'\] with images"
    )
    refused(tree(tmp_path / "2", splits=("train", "Train")), r"root: got the folders .*train.* both for train")
    refused(
        tree(tmp_path / "3", splits=("train", "test", "eval")), "root: got the folders eval and test .*, both for test"
    )
    refused(tree(tmp_path / "4", splits=("val", "test")), "root: got val, test .* without a training folder")
    inside = tree(tmp_path / "5", splits=("ant", "bee"), classes=("train", "test"))
    refused(inside, r"root: got the split train inside .*5/ant, expected classes inside splits: train/ant")
    for i in range(3):
        draw(tmp_path / "6" / "train" / f"{i}.png")
        draw(tmp_path / "6" / "test" / f"{i}.png")
    refused(tmp_path / "6", "root: got 0 class folders in .*train")
    refused(tree(tmp_path / "7", splits=("train", "extra")), r"root: got the folders \['extra'\]", labels="none")


SPLITS_BELOW = {
    "one level deeper": lambda split, name: f"images/{split}/{name}",
    "two levels deeper": lambda split, name: f"all/images/{split}_set/{name}",
    "in classes": lambda split, name: f"{name}/{split}",
    "in some classes": lambda split, name: f"{name}/{split}_set" if name == "ant" or split == "test" else name,
    "in both": lambda split, name: f"images/train/{name}" if split == "train" else f"test/{name}",
}


@pytest.mark.parametrize("labels", ["none", "csv"])
@pytest.mark.parametrize("where", SPLITS_BELOW)
def test_splits_may_be_nested_where_folders_are_not_classes(tmp_path, labels, where):
    root = tmp_path / "tree"
    for i, (split, name) in enumerate(itertools.product(("train", "test"), ("ant", "bee"))):
        for k in range(4):
            draw(root / SPLITS_BELOW[where](split, name) / f"{split} {name} {k}.png", 10 * i + k)
    if labels == "csv":
        rows = [(path.relative_to(root), path.name.split()[1]) for path in sorted(root.rglob("*.png"))]
        labels = write_csv(tmp_path / "x.csv", rows)
    data = ready(root, labels=labels)
    assert where != "in classes" or f"({root}/ant/test and 1 more)" in data.summary()
    left_out = data.passed_over.counts.get("outside the folders", 0)
    assert left_out == (4 if (labels, where) == ("none", "in some classes") else 0)
    assert sizes(data) == {"train": 6 - left_out * 3 // 4, "val": 2 - left_out // 4, "test": 8}
    assert all(Path(path).name.startswith("test") for path in files(data)["test"])


@pytest.mark.parametrize("name", ["train", "train_set", "seg_train", "TrainImages"])
def test_splits_inside_classes_are_refused(tmp_path, name):
    other = name.replace("train", "test").replace("Train", "Test")
    root = tree(tmp_path / "deep", splits=("ant", "bee"), classes=(name, other))
    with pytest.raises(ValueError, match=f"root: got the split {name} inside .*ant, expected classes inside splits"):
        ready(root)
    root = tree(tmp_path / "images" / "all", splits=(name, other))
    with pytest.raises(ValueError, match=f"got the split {name} inside .*; or set root to .*/all") as refusal:
        ready(tmp_path / "images")
    assert sizes(ready(str(refusal.value).split("set root to ")[1])) == {"train": 6, "val": 2, "test": 8}


@pytest.mark.parametrize(
    "splits",
    [
        *(("trn", "tst"), ("tr", "te"), ("TR", "VA", "TE"), ("imagesTr", "imagesTs"), ("gallery", "query")),
        *(
            ("Trainingsdaten", "Testdaten"),
            ("support", "query"),
            ("Trainings", "Validierung", "Tests"),
            ("xtrain", "xtest"),
        ),
    ],
)
def test_splits_in_another_spelling_are_refused(tmp_path, splits):
    root = tree(tmp_path / "tree", splits=splits)
    for labels in ("folder", "none", write_csv(tmp_path / "x.csv", [(f"{splits[0]}/ant/0.png", "ant")])):
        with pytest.raises(
            ValueError, match="root: got the folders .* which look like splits, .*; rename them"
        ) as refusal:
            ready(root, labels=labels)
        assert all(repr(name) in str(refusal.value) for name in splits)
    for name, split in zip(splits, ("train", "test") if len(splits) == 2 else ("train", "val", "test"), strict=True):
        os.rename(root / name, root / split)
    assert sizes(ready(root))["test"] == 8


@pytest.mark.parametrize("flat", [("seg_train", "seg_test"), ("trainA", "trainB", "testA", "testB")])
def test_split_folders_with_images_are_not_classes(tmp_path, flat):
    with pytest.raises(ValueError, match="root: got (0 class folders in|the folders .* both for)"):
        ready(tree(tmp_path, splits=flat, classes=(".",)))


def test_classes_of_instances_are_read(tmp_path):
    for i, (classes, instances) in enumerate(
        [
            (("cat", "dog"), ("01", "02")),
            (("cat", "dog"), ("cat_1", "dog_1")),
            (("walk", "run"), ("test1", "test2")),
            (("tr", "hi", "te"), ("1", "2")),
            (("bullet_train", "test_tube", "ant"), (".",)),
        ]
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert ready(tree(tmp_path / str(i), splits=classes, classes=instances)).class_names == sorted(classes)


def test_classes_that_may_be_splits_are_read_and_reported(tmp_path):
    with pytest.warns(UserWarning, match=r"root: used the folders \['test'\] as classes; if they are splits, move"):
        assert ready(tree(tmp_path / "1", splits=(".",), classes=("ant", "bee", "test"))).num_classes == 3
    root = tree(tmp_path / "2", splits=("lernen", "pruefen"))
    with pytest.warns(
        UserWarning, match=r"used the folders \['lernen', 'pruefen'\] as classes; each holds \['ant', 'bee'\]"
    ):
        assert ready(root).class_names == ["lernen", "pruefen"]


ACTIVITIES = [("training", "testing", "resting"), ("training", "testing"), ("testing", "validation")]


@pytest.mark.parametrize("inner", [".", "person"])
@pytest.mark.parametrize("activities", ACTIVITIES)
def test_classes_named_like_splits_can_be_declared(tmp_path, activities, inner):
    root = tree(tmp_path / "tree", splits=activities, classes=(inner,))
    with pytest.raises(ValueError, match="where these are classes, move all of them into a folder train"):
        ready(root)
    inside = tmp_path / "moved" / "train"
    inside.mkdir(parents=True)
    for name in activities:
        os.rename(root / name, inside / name)
    data = ready(inside.parent)
    assert data.class_names == sorted(activities)
    assert sizes(data) == {"train": 3 * len(activities), "val": len(activities), "test": len(activities)}


def test_declared_classes_may_be_named_like_splits(tmp_path):
    data = ready(tree(tmp_path, splits=(".",), classes=("bus", "train", "tram")))
    assert data.class_names == ["bus", "train", "tram"]
    assert sizes(data)["train"] == 9


def test_classes_found_only_in_the_test_set_are_refused(tmp_path):
    root = tree(tmp_path, splits=("train",), classes=("ant", "bee", "cat"))
    tree(tmp_path, splits=("test",), classes=("ant", "bee", "emu"))
    with pytest.raises(ValueError, match=r"labels: got the classes \['emu'\] in the test set"):
        ready(root)
    data = ready(root, classes=["bee", "ant"])
    assert data.class_names == ["bee", "ant"]
    assert sizes(data)["test"] == 8


# ------------------------------------------------------------------------------------------- numbers as names


@pytest.mark.parametrize("labels", ["folder", "csv"])
def test_numbers_are_class_names(tmp_path, labels):
    names = ("2", "3", "10", "11")
    root = tree(tmp_path / "tree", classes=names)
    if labels == "csv":
        rows = [(path.relative_to(root), path.parent.name) for path in root.rglob("*.png")]
        labels = write_csv(tmp_path / "labels.csv", rows)
    for classes in ([2, 3], ["2", "3"]):
        data = ready(root, labels=labels, classes=classes)
        assert data.class_names == ["2", "3"]
        assert {Path(path).parts[-2] for path in files(data)["train"]} == {"2", "3"}
    with pytest.raises(
        ValueError, match=r"classes: got \[0, 1\], which the data does not have, expected some of \['10'"
    ):
        ready(root, labels=labels, classes=[0, 1])


def test_numbers_that_match_two_names_are_refused(tmp_path):
    root = tree(tmp_path, classes=("2", "02", "3"))
    with pytest.raises(ValueError, match="classes: got 2, which may be 02 or 2, expected a name in quotes"):
        ready(root, classes=[2, 3])
    assert ready(root, classes=["02", "3"]).class_names == ["02", "3"]
    assert ready(root, classes=[3, "2"]).class_names == ["3", "2"]
    with pytest.raises(ValueError, match="classes: got .* two of them are the same"):
        ready(root, classes=[3, "3"])


def test_numbers_of_named_classes_count_from_0(tmp_path):
    assert ready(tree(tmp_path, classes=("ant", "bee", "cat")), classes=[2, 0]).class_names == ["cat", "ant"]


# --------------------------------------------------------------------------------------- files lost or doubled


def test_every_format_of_pillow_is_read(tmp_path):
    root = tree(tmp_path)
    forms = {"JPEG": ("jfif", "jpe", "JPG"), "GIF": ("gif",), "JPEG2000": ("jp2", "j2k"), "AVIF": ("avif",)}
    forms |= {"WEBP": ("webp",), "BMP": ("bmp", "unknown", ""), "TGA": ("tga",), "ICO": ("ico",), "PCX": ("pcx",)}
    count = 0
    for form, endings in forms.items():
        for ending in endings:
            options = {"sizes": [(8, 8)]} if form == "ICO" else {}
            draw(root / "train" / "ant" / (f"x.{ending}" if ending else "no ending"), format=form, **options)
            count += 1
    data = ready(root, val_share=0)
    assert sizes(data)["train"] == 8 + count
    assert "skipped" not in data.summary()


def test_skipped_files_are_counted(tmp_path):
    root = tree(tmp_path)
    place = root / "train" / "ant"
    for name in ("notes.txt", "labels.json", "data.h5", "clip.mpg", "figure.svg", "nothing"):
        (place / name).write_text("no image")
    draw(place / ".ipynb_checkpoints" / "0.png")
    draw(place / "._0.png")
    draw(place / "@eaDir" / "0.png")
    draw(root / "train" / "@eaDir" / "0.png")
    draw(root / "train" / "__MACOSX" / "ant" / "0.png")
    draw(root / "train" / "loose.png")
    draw(root / "loose.png")
    draw(root / "__MACOSX" / "train" / "0.png")
    data = ready(root, val_share=0)
    assert sizes(data)["train"] == 8
    assert data.class_names == ["ant", "bee"]
    assert data.passed_over.counts == {"not an image": 6, "hidden or of a tool": 5, "outside the folders": 2}
    assert "skipped: " in data.summary()
    assert f"2 outside the folders ({root}/loose.png first)" in data.summary()


def test_links_are_followed_once(tmp_path):
    root = tree(tmp_path / "tree")
    draw(tmp_path / "store" / "a.png", 100)
    draw(tmp_path / "store" / "b.png", 101)
    place = root / "train" / "ant"
    (place / "folder").symlink_to(tmp_path / "store")
    (place / "file.png").symlink_to(tmp_path / "store" / "a.png")
    (place / "loop").symlink_to(place)
    (place / "same.png").symlink_to(place / "0.png")
    (root / "train" / "cat").symlink_to(tmp_path / "cats")
    tree(tmp_path, splits=("cats",), classes=(".",))
    data = ready(root, val_share=0)
    assert data.class_names == ["ant", "bee", "cat"]
    assert sizes(data)["train"] == 4 + 2 + 4 + 4
    assert len(data._splits["train"]) == 14
    assert data.passed_over.counts == {"linked again": 3}


@pytest.mark.parametrize("labels", ["folder", "none"])
def test_symlink_loops_are_counted(tmp_path, labels):
    root = tree(tmp_path / "tree")
    place = root / "train" / "ant"
    (place / "class").symlink_to(place)
    (place / "split").symlink_to("..")
    (place / "tree").symlink_to(root)
    (place / "above").symlink_to(tmp_path)
    (place / "deeper").mkdir()
    (place / "deeper" / "up").symlink_to("../..")
    (root / "train" / "loop").symlink_to(root / "train")
    data = ready(root, labels=labels, val_share=0)
    assert sizes(data)["train"] == 8
    assert data.passed_over.counts == {"linked again": 6}
    (place / "itself").symlink_to("itself")
    with pytest.raises(ValueError, match="image: got .*itself: .*levels of symbolic links.*; set on_error to skip"):
        ready(root, labels=labels)


@pytest.mark.parametrize("junk", ["thumbnails", "Thumbs", "node_modules", "@Recently-Snapshot", "lightning_logs"])
def test_tool_folders_are_not_classes(tmp_path, junk):
    root = tree(tmp_path / "split")
    draw(root / "train" / junk / "0.png")
    draw(root / "test" / "ant" / junk / "0.png")
    draw(root / junk / "ant" / "0.png")
    flat = tree(tmp_path / "flat", splits=(".",))
    draw(flat / junk / "0.png")
    assert sizes(ready(root)) == {"train": 6, "val": 2, "test": 8}
    assert ready(flat).class_names == ["ant", "bee"]
    assert ready(flat).passed_over.counts == {"hidden or of a tool": 1}


def test_broken_links_are_refused_or_skipped(tmp_path):
    root = tree(tmp_path)
    (root / "train" / "ant" / "lost.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(ValueError, match=r"image: got .*lost.png: .*No such file.*; set on_error to skip"):
        ready(root)
    with pytest.warns(UserWarning, match=r"skipped 1 images .*lost.png"):
        data = ready(root, on_error="skip", val_share=0)
    assert sizes(data)["train"] == 8
    assert "1 unreadable" in data.summary()
    (root / "train" / "cat").symlink_to(tmp_path / "cats")
    with pytest.raises(ValueError, match=r"root: got 1 dangling links in .*train, .*cat first"):
        ready(root)


@pytest.mark.filterwarnings("ignore:skipped")
def test_a_class_that_is_emptied_by_skipping_is_named(tmp_path):
    root = tree(tmp_path)
    for path in (root / "train" / "bee").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"labels: got no training image of the classes \['bee'\]"):
        ready(root, on_error="skip")


def test_an_unreadable_folder_is_not_an_empty_one(tmp_path, monkeypatch):
    root = tree(tmp_path)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("train/bee"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError, match="train/bee"):
        ready(root)


def test_class_names_may_use_any_script(tmp_path):
    names = sorted([unicodedata.normalize("NFC", "é"), "муравей", "蚂蚁", "two words"])
    assert ready(tree(tmp_path, classes=names)).class_names == names


def test_names_that_look_alike_are_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    root = tree(tmp_path / "1", splits=("train",), classes=(composed, "two words"))
    tree(root, splits=("test",), classes=(apart, "two\u00a0words"))
    assert ready(root).class_names == ["two words", composed]
    assert ready(root, classes=[apart, "two words"]).class_names == [composed, "two words"]
    both = tree(tmp_path / "2", splits=("train",), classes=(composed, apart))
    with pytest.raises(ValueError, match=r"root: got the class folders 'e\\u0301' and '\\xe9' in .*, whose names look"):
        ready(both)


def test_a_validation_share_below_one_image_is_refused(tmp_path):
    root = tree(tmp_path, splits=("train",))
    with pytest.raises(ValueError, match=r"val_share: got 0.1, less than one image .*; expected more than 1/4"):
        ready(root, val_share=0.1)
    with pytest.raises(ValueError, match="val_share: got 0 and no test set, expected a share above 0"):
        ready(root, val_share=0)
