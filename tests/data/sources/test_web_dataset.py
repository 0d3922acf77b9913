"""WebDataset shards that are written here, some by the package itself, and read by position."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from nc_lightning.data import WebDatasetDataModule

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3), dtype=np.uint8)


def png(pixels):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write(path, files, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def shard(path, rows, mode="w"):
    """A shard whose sample i has the class i % 4."""
    files = {}
    for i in rows:
        files |= {f"a/{i:03d}.png": png(PIXELS[i]), f"a/{i:03d}.cls": b"%d\n" % (i % 4), f"a/{i:03d}.json": b"{}"}
    write(path, files, mode)


def ready(folder, **kwargs):
    data = WebDatasetDataModule(str(folder), **kwargs)
    data.setup()
    return data


@pytest.mark.parametrize("cache", ["ram", "none"])
def test_pixels_and_labels_are_those_of_the_shards(tmp_path, cache):
    shard(tmp_path / "set-train-0000.tar", range(30))  # uneven
    shard(tmp_path / "set-train-0001.tar", range(30, 40))
    shard(tmp_path / "set-val-0000.tar", range(40, 52))
    data = ready(tmp_path, batch_size=8, cache=cache)
    assert (data.num_classes, data.input_shape) == (4, (3, 6, 5))
    x, labels, *_ = data._splits["train"][list(range(40))]
    assert torch.equal(x, torch.from_numpy(PIXELS[:40]).permute(0, 3, 1, 2))
    assert labels.tolist() == [i % 4 for i in range(40)]
    assert len(data._splits["val"]) == len(data._splits["test"]) == 12
    assert next(iter(data.train_dataloader()))[1].bincount().tolist() == [2] * 4
    assert "2 shards, " in data.summary()
    assert data.geometry_dataloader().images.paths[31].parts[-3:] == ("set-train-0001.tar", "a", "031.png")


def test_splits_may_be_folders_or_missing(tmp_path):
    shard(tmp_path / "folders" / "train" / "0.tar", range(40))
    shard(tmp_path / "folders" / "test" / "0.tar", range(40, 48))
    assert len(ready(tmp_path / "folders")._splits["test"]) == 8
    shard(tmp_path / "plain" / "0.tar", range(40))
    data = ready(tmp_path / "plain", val_share=0.3)
    assert data._splits["val"].labels.bincount().tolist() == [3] * 4


def test_shards_of_the_package_are_read(tmp_path):
    import webdataset

    with webdataset.TarWriter(str(tmp_path / "0.tar")) as writer:
        for i in range(40):
            writer.write({"__key__": f"{i}", "png": PIXELS[i], "cls": i % 4})
    data = ready(tmp_path, val_share=0.1)
    assert (data.num_classes, len(data._splits["train"])) == (4, 40 - 4)


def test_incomplete_samples_are_counted(tmp_path):
    shard(tmp_path / "0.tar", range(40))
    write(tmp_path / "1.tar", {"x.png": png(PIXELS[0]), "y.cls": b"1", "z.txt": b"words"})
    assert "1 images without a .cls" in ready(tmp_path).summary()
    assert "1 labels without an image" in ready(tmp_path).summary()


def test_a_damaged_image_is_named(tmp_path):
    shard(tmp_path / "1.tar", range(40))
    write(tmp_path / "0.tar", {"x.png": b"no image", "x.cls": b"1"})
    with pytest.raises(ValueError, match=r"image: got .*0.tar/x.png: cannot identify image file"):
        WebDatasetDataModule(str(tmp_path))
    assert len(ready(tmp_path, on_error="skip", val_share=0.1)._splits["train"]) == 36


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, r"root: got .*, expected a folder with .tar files"),
        (lambda root: shard(root / "0.tar", range(8), "w:gz"), "root: got .*0.tar, which is damaged, or compressed"),
        (lambda root: write(root / "0.tar", {"x.cls": b"one"}), "labels: got 'one' in x.cls of .*0.tar, expected a wh"),
        (lambda root: write(root / "0.tar", {"x.png": b""}), "root: got no image with a .cls for training"),
        (
            lambda root: (shard(root / "train.tar", range(8)), shard(root / "more.tar", range(8))),
            "root: got more.tar next to shards of splits, expected train, val or test in it",
        ),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        WebDatasetDataModule(str(tmp_path))
    assert "\n" not in str(error.value)
