import codecs

import numpy as np
import pytest
from PIL import Image

from nc_lightning.data import ImageFolderDataModule
from nc_lightning.data.classes import pick_classes
from nc_lightning.data.label_files import read_label_file


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
    ],
)
def test_tables_as_people_write_them(tmp_path, content):
    assert labels_in(tmp_path, content) == MEANT


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["1.0", "2.0", "10.0"], ["1", "2", "10"]),
        (["1", "2.0", "1.00"], ["1", "2", "1"]),
        (["1.0", "2.5", "1"], ["1.0", "2.5", "1"]),
        (["v1.0", "1.0.0", "-1.0"], ["v1.0", "1.0.0", "-1"]),
        (["01", "1", "None"], ["01", "1", "None"]),
    ],
)
def test_whole_numbers_have_no_fraction(tmp_path, given, read):
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
        (TABLE + ",ant\n", "labels: got '' for file in row 4"),
        (TABLE + "c,d.png,ant\n", "labels: got 3 values in row 4 of .*, expected 2; quote commas"),
        ("file,label\n", "labels: got no row in .*labels.csv"),
        ("", r"labels: got the columns \[\] in .*, expected file and label"),
        ("file,label,label\na,b,c\n", r"labels: got the columns \['file', 'label', 'label'\]"),
        ("a.png,ant\n", r"labels: got the columns \['a.png', 'ant'\]"),
        (b"file,label\na.png,\xe9\n", r"labels: got .*labels.csv, which is no utf-8 at byte 17"),
        ('file,label\na.png,"' + "x" * 200_000 + '"\n', "labels: got .*, row 2: field larger"),
    ],
)
def test_bad_tables(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        labels_in(tmp_path, content)


def test_rows_that_repeat_others(tmp_path):
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
def test_numbers_do_not_choose_names_that_begin_with_zeros(entry):
    names = [f"{number:03}" for number in range(6, 14)]
    with pytest.raises(ValueError, match=f"classes: got {entry}, .* expected a name in quotes|names in quotes"):
        pick_classes([entry, 11], range(8), names)
    assert pick_classes(["010", "011"], range(8), names) == [4, 5]
