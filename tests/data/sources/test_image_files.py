import csv

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image

from nc_lightning import HUCL
from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.data import ArrayDataModule, ImageFolderDataModule, SimCLR, TinyImageNetDataModule
from nc_lightning.data.sources import tiny_imagenet
from nc_lightning.encoders import SmallCNN

CLASSES = ("ant", "bee", "cat")
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def pixels(split, label, index):
    seed = hash((split == "train", label, index)) % 2**32
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def tree(folder, splits=("train", "test"), per_class=10):
    for split in splits:
        for label, name in enumerate(CLASSES):
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(per_class):
                Image.fromarray(pixels(split, label, index)).save(place / f"{index:03d}.png")
    return str(folder)


def ready(*args, make=ImageFolderDataModule, **kwargs):
    data = make(*args, **{"batch_size": 6, **kwargs})
    data.prepare_data()
    data.setup()
    return data


def everything(loader):
    x, labels = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(labels)


def test_a_folder_gives_the_batches_of_the_same_images_in_an_array(tmp_path):
    root = tree(tmp_path / "tree")
    arrays = {}
    for split in ("train", "test"):
        numbers = [(label, index) for label in range(3) for index in range(10)]
        arrays[f"x_{split}"] = np.stack([pixels(split, *number) for number in numbers])
        arrays[f"y_{split}"] = np.array([label for label, _ in numbers])
    np.savez(tmp_path / "data.npz", classes=np.array(CLASSES), **arrays)
    kwargs = {"views": 2, "augmentation": SimCLR(), "seed": 3}
    for classes in (None, ["cat", "ant"]):
        folder = ready(root, classes=classes, **kwargs)
        array = ready(str(tmp_path / "data.npz"), make=ArrayDataModule, classes=classes, **kwargs)
        assert folder.num_classes == array.num_classes == (3 if classes is None else 2)
        assert folder.input_shape == array.input_shape == (3, 8, 8)
        assert folder.class_names == array.class_names == (classes or list(CLASSES))
        for name in ("train", "val", "test", "geometry"):
            first, second = (getattr(data, f"{name}_dataloader")() for data in (folder, array))
            for (x, labels), (x2, labels2) in zip(first, second, strict=True):
                assert torch.equal(torch.stack(list(x)), torch.stack(list(x2)))
                assert torch.equal(labels, labels2)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_without_a_cache_images_are_decoded_on_the_fly(tmp_path, num_workers):
    root = tree(tmp_path)
    cached, uncached = ready(root), ready(root, cache="none", num_workers=num_workers)
    for name in ("train", "val", "test", "geometry"):
        pairs = zip(getattr(cached, f"{name}_dataloader")(), getattr(uncached, f"{name}_dataloader")(), strict=True)
        for (x, labels), (x2, labels2) in pairs:
            assert torch.equal(labels, labels2)
            assert torch.allclose(x, x2, atol=1e-6)  # 27 images: the statistics are of all of them
    device = ready(root, cache="device")
    assert torch.equal(everything(device.geometry_dataloader())[0], everything(cached.geometry_dataloader())[0])


def test_labels_are_read_from_a_csv_file(tmp_path):
    root = tmp_path / "tree"
    tree(root)
    rows = [(path.relative_to(root), f"is {path.parent.name}") for path in sorted(root.rglob("*.png"))]
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    by_csv, by_folder = ready(str(root), labels=str(tmp_path / "labels.csv")), ready(str(root))
    assert by_csv.class_names == [f"is {name}" for name in CLASSES]
    for name in ("geometry", "test"):
        ours, theirs = (everything(getattr(data, f"{name}_dataloader")()) for data in (by_csv, by_folder))
        assert all(map(torch.equal, ours, theirs))


def test_without_split_folders_the_validation_set_is_also_the_test_set(tmp_path):
    tree(tmp_path, splits=("train",))
    data = ready(str(tmp_path / "train"), val_share=0.2)
    assert [len(data._splits[name]) for name in ("train", "val", "test")] == [24, 6, 6]
    root = tree(tmp_path / "other", splits=("train", "val"))
    assert len(ready(root)._splits["test"]) == 30


def test_without_labels_views_are_positives_and_geometry_needs_none(tmp_path):
    root = tree(tmp_path)
    data = ready(root, labels="none", views=2, augmentation=SimCLR(), val_share=0.2)
    assert data.num_classes == 24
    for (first, second), labels in data.train_dataloader():
        assert first.shape == second.shape == (6, 3, 8, 8)
        assert labels.unique().numel() == 6
        assert labels.min() >= 0
    assert (everything(data.geometry_dataloader())[1] == -1).all()
    monitor = GeometryMonitor()
    model = HUCL(encoder=SmallCNN(data.input_shape, 4), num_classes=24, feature_dim=5, positives="view")
    Trainer(max_epochs=1, callbacks=[monitor], **QUIET).fit(model, data)
    assert set(monitor.results) == {"train", "val"}
    assert 1 <= monitor.results["train"]["feature_effective_rank"] <= 5
    assert "nc1" not in monitor.results["train"]


def test_images_of_any_size_are_resized_and_cut(tmp_path):
    root = tree(tmp_path)
    wide = np.zeros((20, 40, 3), dtype=np.uint8)
    wide[:, 8:32] = 255
    Image.fromarray(wide).save(tmp_path / "train" / "ant" / "000.png")
    Image.fromarray(wide[..., 0]).save(tmp_path / "train" / "ant" / "001.png")
    data = ready(root, image_size=10, val_share=0)
    assert data.input_shape == (3, 10, 10)
    assert data._splits["train"].x[0].min() == 255
    assert data._splits["train"].x[1].min() == 255
    with pytest.raises(ValueError, match=r"image: got \(8, 8\) in .*002.png, expected \(20, 40\) as before; set image"):
        ready(root)


@pytest.mark.parametrize(("cache", "num_workers"), [("ram", 0), ("none", 0), ("none", 1)])
@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_damaged_images_are_refused_or_skipped(tmp_path, cache, num_workers, damage):
    root = tree(tmp_path)
    broken = tmp_path / "train" / "bee" / "004.png"
    whole = broken.read_bytes()

    def read(on_error):
        broken.write_bytes(whole)
        data = ImageFolderDataModule(
            root, cache=cache, num_workers=num_workers, val_share=0, on_error=on_error, batch_size=6
        )
        if cache == "none":
            data.setup()  # computes its statistics from these images
        broken.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"no image", "empty": b""}[damage])
        data.setup()
        return everything(data.geometry_dataloader())

    with pytest.raises(ValueError, match=r"^image: got .*bee/004.png: .*; set on_error to skip"):
        read("raise")
    with pytest.warns(UserWarning, match=r"skipped 1 images that cannot be read, the first one .*bee/004.png"):
        x, labels = read("skip")
    assert labels.bincount().tolist() == [10, 9, 10]
    assert len(x) == 29


def test_bad_trees_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="root: got '.*nowhere', expected a folder of images"):
        ImageFolderDataModule(str(tmp_path / "nowhere"))
    root = tree(tmp_path / "tree")
    (tmp_path / "tree" / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match=r"root: got no image in the class folders \['dog'\]"):
        ImageFolderDataModule(root)
    (tmp_path / "tree" / "train" / "dog").rmdir()
    (tmp_path / "tree" / "test" / "ant").rename(tmp_path / "tree" / "test" / "emu")
    with pytest.raises(ValueError, match=r"labels: got the classes \['emu'\] in the test set"):
        ImageFolderDataModule(root)
    (tmp_path / "flat").mkdir()
    with pytest.raises(ValueError, match="root: got 0 class folders in .*flat, expected at least two; or set labels"):
        ImageFolderDataModule(str(tmp_path / "flat"))
    with pytest.raises(ValueError, match="root: got no image in .*flat"):
        ImageFolderDataModule(str(tmp_path / "flat"), labels="none")
    with pytest.raises(FileNotFoundError, match=r"labels: got 'x.csv', expected folder, none, or a CSV file"):
        ImageFolderDataModule(root, labels="x.csv")
    (tmp_path / "x.csv").write_text("path,label\n")
    with pytest.raises(ValueError, match=r"labels: got the columns \['path', 'label'\] .*, expected file and label"):
        ImageFolderDataModule(root, labels=str(tmp_path / "x.csv"))
    (tmp_path / "x.csv").write_text("file,label\ntrain/ant/000.png,1\ntrain/none.png,0\n")
    with pytest.raises(ValueError, match=r"labels: got 1 of 2 files missing, .*none.png first"):
        ImageFolderDataModule(root, labels=str(tmp_path / "x.csv"))


def test_an_unreadable_file_is_not_a_damaged_image(tmp_path, monkeypatch):
    root = tree(tmp_path)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: .*ant/000.png"):
        ImageFolderDataModule(root, on_error="skip")


def tiny(folder, classes=4):
    base = folder / "tiny-imagenet-200"
    names = [f"n{index:04d}" for index in range(classes)]
    (base / "val" / "images").mkdir(parents=True)
    lines = []
    for label, name in enumerate(names):
        place = base / "train" / name / "images"
        place.mkdir(parents=True)
        for index in range(6):
            Image.fromarray(np.full((64, 64, 3), 10 * label, dtype=np.uint8)).save(place / f"{index}.JPEG", quality=100)
        for index in range(2):
            # Interleaved, so that the order of the files does not reveal the class.
            file = f"val_{index * classes + label}.JPEG"
            Image.fromarray(np.full((64, 64, 3), 10 * label, dtype=np.uint8)).save(base / "val" / "images" / file)
            lines.append(f"{file}\t{name}\t0\t0\t63\t63\n")
    (base / "val" / "val_annotations.txt").write_text("".join(lines))
    return base


def test_tiny_imagenet_reads_its_annotations(tmp_path, monkeypatch):
    base = tiny(tmp_path)
    monkeypatch.setattr(tiny_imagenet, "NUM_CLASSES", 4)
    monkeypatch.setenv("NC_DATA_DIR", str(tmp_path))
    data = ready(make=TinyImageNetDataModule, batch_size=8, val_share=0.34)
    assert data.input_shape == (3, 64, 64)
    assert data.summary().startswith("data: 4 classes, 'n0000' to 'n0003'\n")
    for name in ("train", "val", "test"):
        split = data._splits[name]
        assert split.labels.bincount().tolist() == {"train": [4] * 4, "val": [2] * 4, "test": [2] * 4}[name]
        assert torch.equal((split.x[:, 0, 0, 0] / 10).round().long(), split.labels)
    annotations = base / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text().replace("n0003", "n0002"))
    with pytest.raises(ValueError, match=r"root: got 3 classes in .*val_annotations.txt, expected 4"):
        ready(make=TinyImageNetDataModule, batch_size=8)
    annotations.unlink()
    with pytest.raises(FileNotFoundError, match=r"root: got no .*val_annotations.txt"):
        ready(make=TinyImageNetDataModule, batch_size=8)


def test_tiny_imagenet_has_200_classes(tmp_path):
    tiny(tmp_path)
    with pytest.raises(ValueError, match=r"root: got 4 classes in .*train, expected 200"):
        ready(str(tmp_path), make=TinyImageNetDataModule, batch_size=400)
    with pytest.raises(FileNotFoundError, match="which has no Tiny-ImageNet: looked for .*; add --data.download true"):
        ready(str(tmp_path / "other"), make=TinyImageNetDataModule, batch_size=400)


@pytest.mark.parametrize("cache", ["ram", "none"])
@pytest.mark.parametrize("ending", ["tif", "TIFF", "gif"])
def test_pages_that_are_not_read_are_counted(tmp_path, ending, cache):
    root = tree(tmp_path, per_class=4)
    first, second = (Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)) for value in (0, 255))
    paths = [tmp_path / "train" / "bee" / f"{name}.{ending}" for name in ("pages", "single")]
    first.save(paths[0], save_all=True, append_images=[second])
    first.save(paths[1])
    data = ready(root, cache=cache, val_share=0)
    assert data.passed_over.counts == {"with pages after the first, which is read": 1}
    assert f"skipped: 1 with pages after the first, which is read ({paths[0]})" in data.summary()
    x = data._splits["train"][[8, 9]][0]
    assert (x <= 1).all()
