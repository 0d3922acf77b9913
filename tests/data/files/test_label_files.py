import codecs
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from nc_lightning.data import ImageFolderDataModule
from nc_lightning.data.files.classes import pick_classes
from nc_lightning.data.files.label_files import read_label_file


def labels_in(tmp_path, content):
    path = tmp_path / "labels.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {row.file: row.label for row in read_label_file(path)}


TABLE = "file,label\na.png,ant\nb.png,bee\n"
MEANT = {"a.png": "ant", "b.png": "bee"}


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        codecs.BOM_UTF8 + TABLE.encode(),
        TABLE.encode("utf-16"),
        TABLE.replace(",", ";"),
        TABLE.replace(",", "\t"),
        TABLE.replace("\n", "\r\n"),
        TABLE.replace(",", " , "),
        TABLE.replace("file,label", "File,LABEL"),
        TABLE.replace("\n", "\n\n"),
        TABLE.rstrip("\n"),
        "label,extra,file\nant,1,a.png\nbee,,b.png\n",
        'file,label\n"a.png","ant"\n"b.png","bee"\n',
        'file, label\n"a.png", "ant"\n"b.png", "bee"\n',
        TABLE.replace("\n", "\r"),
        TABLE.replace("bee", "\u200bbee\u00a0").replace("ant", "a\ufeffn\u00adt\0").replace("label", "\ufefflabel"),
    ],
)
def test_usual_forms_of_tables_are_read(tmp_path, content):
    assert labels_in(tmp_path, content) == MEANT


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["1.0", "2.0", "10.0"], ["1", "2", "10"]),
        (["1", "2.0", "1.00"], ["1", "2", "1"]),
        (["1.0", "2.5", "3"], ["1.0", "2.5", "3"]),
        (["1.", "1", "1.0", "+1", "+1.0"], ["1"] * 5),
        (["-0.0", "0", "-0", "0.", "-2."], ["0", "0", "0", "0", "-2"]),
        (["v1.0", "1.0.0", "-3.0"], ["v1.0", "1.0.0", "-3"]),
        (["01", "1", "none of them"], ["01", "1", "none of them"]),
    ],
)
def test_whole_numbers_are_read_without_a_fraction(tmp_path, given, read):
    rows = "".join(f"{i}.png,{label}\n" for i, label in enumerate(given))
    assert list(labels_in(tmp_path, "file,label\n" + rows).values()) == read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TABLE + "c.png\n", r"labels: got '' for label in row 4 of .*labels.csv, expected a name"),
        (TABLE + "c.png,\n", "labels: got '' for label in row 4"),
        (TABLE + "c.png,nan\n", "labels: got 'nan' for label in row 4"),
        (TABLE + "\nc.png,NaN\n", "labels: got 'NaN' for label in row 5"),
        (TABLE + "c.png,<NA>\n", "labels: got '<NA>' for label in row 4"),
        *((TABLE + f"c.png,{word}\n", f"labels: got {word!r} for label in row 4") for word in ("None", "NONE", "-nan")),
        *(
            (TABLE + f"c.png,{word}\n", f"labels: got {word!r} for label in row 4".replace("?", "[?]"))
            for word in "?-\u2013"
        ),
        (TABLE + 'c.png," -- "\n', "labels: got '--' for label in row 4"),
        *(
            (TABLE + f"c.png,{word}\n", f"labels: got '{word}' in row 4 of .*, which stands for an unknown class")
            for word in ("-1", "-1.0", "-01.", "-1.00")
        ),
        (TABLE.encode("utf-16-le"), "labels: got .*labels.csv with zero bytes, expected UTF-8"),
        (TABLE.encode("utf-16-be"), "labels: got .*labels.csv with zero bytes, expected UTF-8"),
        (TABLE.encode("utf-32"), "labels: got .*labels.csv with zero bytes, expected UTF-8"),
        (TABLE + "None,ant\n", "labels: got 'None' for file in row 4"),
        (TABLE + "c.png,\u200b\u00a0\n", "labels: got '' for label in row 4"),
        (TABLE + 'c.png,"cat\nd.png,"dog\n', "labels: got .*labels.csv, row 4: .*; look for a stray quote"),
        (TABLE + 'c.png,"cat\nd.png,dog"\n', "labels: got a line break in quotes in row 4 of .*; remove a stray quote"),
        ('file,label,note\na.png,ant,"x\nb.png,bee,"\nc.png,bee,\n', "labels: got a line break in quotes in row 2"),
        (TABLE + 'c.png,"cat\nd.png,dog\n', "labels: got .*labels.csv, row 4: unexpected end of data"),
        (TABLE + 'c.png,"cat"s\n', "labels: got .*labels.csv, row 4: ',' expected after"),
        (TABLE + 'c.png,cat"\n', "labels: got 'cat\"' in row 4 of .*labels.csv, expected no stray quote"),
        ("file,label\na.png,1.0\nb.png,2.5\nc.png,1\n", "labels: got '1.0' in row 2 and '1' in row 4 of .*, expected"),
        ("file;label\na.png;1,0\nb.png;1\n", "labels: got '1,0' in row 2 and '1' in row 3"),
        ("file,label\na.png,1\nb.png,1e0\n", "labels: got '1' in row 2 and '1e0' in row 3"),
        ("file,label\na.png,.5\nb.png,0.50\n", "labels: got '.5' in row 2 and '0.50' in row 3"),
        ("file,label\na.png,1\nb.png,1.23E+11\n", r"labels: got '1.23E\+11' in row 3 of .*, which may be rounded"),
        (TABLE + ",ant\n", "labels: got '' for file in row 4"),
        (TABLE + "c,d.png,ant\n", "labels: got 3 values in row 4 of .*, expected 2; quote commas"),
        ("file,label\n", "labels: got no row in .*labels.csv"),
        ("", r"labels: got the columns \[\] in .*, expected file and label"),
        ("file,label,label\na,b,c\n", r"labels: got the columns \['file', 'label', 'label'\]"),
        ("a.png,ant\n", r"labels: got the columns \['a.png', 'ant'\]"),
        (b"file,label\na.png,\xe9\n", r"labels: got .*labels.csv, which is not utf-8 at byte 17"),
        ('file,label\na.png,"' + "x" * 200_000 + '"\n', "labels: got .*, row 2: field larger"),
    ],
)
def test_bad_tables_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        labels_in(tmp_path, content)


@pytest.mark.parametrize("accent", ["NFC", "NFD"])
def test_accents_are_read_in_either_unicode_form(tmp_path, accent):
    """The disk has one Unicode form and the table the other; a name in both forms is one class."""
    other = {"NFC": "NFD", "NFD": "NFC"}[accent]
    rows = []
    for i, label in enumerate(["é", "ñ"] * 4):
        path = tmp_path / "tree" / unicodedata.normalize(accent, f"café {i}.png")
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(path)
        file = unicodedata.normalize(other, path.name)
        rows.append(f"{file},{unicodedata.normalize(other if i < 4 else accent, label)}\n")
    table = tmp_path / "labels.csv"
    table.write_text("file,label\n" + "".join(rows))
    for classes in (None, [unicodedata.normalize(accent, name) for name in "ñé"]):
        data = ImageFolderDataModule(str(tmp_path / "tree"), labels=str(table), classes=classes, val_share=0.25)
        assert data.class_names == (["é", "ñ"] if classes is None else ["ñ", "é"])
        assert data.passed_over.counts == {}


def test_names_that_look_like_missing_values_are_names(tmp_path):
    given = ["unknown", "other", "-2", "1-", "?!", "background"]
    rows = "".join(f"{i}.png,{label}\n" for i, label in enumerate(given))
    assert list(labels_in(tmp_path, "file,label\n" + rows).values()) == given


@pytest.mark.parametrize("names", [["Cat", "cat"], ["True", "TRUE"]])
@pytest.mark.parametrize("by_folder", [True, False])
def test_classes_that_differ_only_in_case_are_reported(tmp_path, names, by_folder):
    rows = ["file,label"]
    for label in (*names, "dog"):
        for i in range(2):
            path = draw(tmp_path / "tree" / (label if by_folder else "all") / f"{label} {i}.png")
            rows.append(f"{path},{label}")
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(rows))
    message = f"classes: 1 differ from another only in case, '{max(names)}' and|'{min(names)}' and"
    with pytest.warns(UserWarning, match=message) as caught:
        data = ImageFolderDataModule(str(tmp_path / "tree"), labels="folder" if by_folder else str(table))
    assert data.num_classes == 3
    assert sum("only in case" in str(warning.message) for warning in caught) == 1


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(path)
    return path


@pytest.mark.parametrize("column", ["split", "Subset", "usage", "is_test", "anything"])
def test_a_split_column_must_agree_with_the_folders(tmp_path, column):
    def read(folders):
        table = f"file,label,{column}\n"
        for i, said in enumerate(["Train", "training", "train", "", "PublicTest", "test"]):
            draw(tmp_path / "tree" / folders[i] / f"{i}.png")
            table += f"{folders[i]}/{i}.png,{'ab'[i % 2]},{said}\n"
        (tmp_path / "labels.csv").write_text(table)
        return ImageFolderDataModule(str(tmp_path / "tree"), labels=str(tmp_path / "labels.csv"))

    with pytest.raises(
        ValueError, match=r"labels: got the split test in row 6 of .* for .*4.png, which is in the folder of train"
    ):
        read(["all"] * 6)
    (tmp_path / "tree").rename(tmp_path / "old")
    data = read(["train"] * 4 + ["test"] * 2)
    assert {split: len(rows) for split, rows in data._named.items()} == {"train": 4, "test": 2}


@pytest.mark.parametrize(("column", "said"), [("fold", "012"), ("is_valid", ["False", "True", ""]), ("split", "abc")])
def test_a_column_that_may_hold_splits_is_reported(tmp_path, column, said):
    with pytest.warns(UserWarning, match=f"labels: the column '{column}' of .*labels.csv is not read"):
        labels_in(tmp_path, f"file,label,{column}\n" + "".join(f"{i}.png,a,{value}\n" for i, value in enumerate(said)))


def test_further_columns_are_not_read(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert labels_in(tmp_path, "file,label,width,note\na.png,ant,8,test\nb.png,bee,,dark\n") == MEANT


def test_files_outside_the_root_are_reported(tmp_path):
    rows = [f"{draw(tmp_path / folder / f'{i}.png')},{'ab'[i % 2]}\n" for folder in ("train", "test") for i in range(4)]
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(rows))
    (tmp_path / "tree").mkdir()
    with pytest.warns(
        UserWarning, match=f"labels: 8 files of .* for training .*none of .*tree, {tmp_path}/train/0.png"
    ):
        ImageFolderDataModule(str(tmp_path / "tree"), labels=str(tmp_path / "labels.csv"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = ImageFolderDataModule(str(tmp_path), labels=str(tmp_path / "labels.csv"))
    assert {split: len(rows) for split, rows in data._named.items()} == {"train": 4, "test": 4}


def test_repeated_rows_are_read_once_or_refused(tmp_path):
    names = [f"{i}.png" for i in range(8)]
    for name in names:
        Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "link.png").symlink_to(tmp_path / "0.png")
    table = "file,label\n" + "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(names[:-1]))
    path = tmp_path / "labels.csv"

    def read(extra):
        path.write_text(table + extra)
        data = ImageFolderDataModule(str(tmp_path), labels=str(path), batch_size=2, val_share=0.4)
        data.setup()
        return data

    data = read("./0.png,a\nlink.png,a\n")
    assert sum(len(data._splits[split]) for split in ("train", "val")) == 7
    assert data.passed_over.counts == {"linked again": 1, "not an image": 1, "listed again": 2, "not listed": 1}
    assert f"1 not listed ({tmp_path}/7.png)" in data.summary()
    with pytest.raises(ValueError, match=r"labels: got 'a' in row 2 and 'b' in row 9 of .* for .*link.png"):
        read("link.png,b\n")
    with pytest.raises(ValueError, match=r"labels: got 1 of 8 files missing, .*none.png first, in row 9 of"):
        read("none.png,b\n")


@pytest.mark.parametrize("entry", [8, 10])
def test_numbers_do_not_match_names_with_leading_zeros(entry):
    names = [f"{number:03}" for number in range(6, 14)]
    with pytest.raises(ValueError, match=f"classes: got {entry}, .* expected a name in quotes|names in quotes"):
        pick_classes([entry, 11], range(8), names)
    assert pick_classes(["010", "011"], range(8), names) == [4, 5]
