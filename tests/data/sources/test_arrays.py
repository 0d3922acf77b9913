import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from nc_lightning import HSCL
from nc_lightning.data import ArrayDataModule
from nc_lightning.encoders import MLP

RNG = np.random.default_rng(0)
IMAGES = {
    "train": RNG.integers(0, 256, (80, 6, 5, 3), dtype=np.uint8),
    "test": RNG.integers(0, 256, (24, 6, 5, 3), dtype=np.uint8),
}
LABELS = {"train": np.arange(80) % 8, "test": np.arange(24) % 8}


def write(folder, **changed):
    arrays = {f"x_{k}": v for k, v in IMAGES.items()} | {f"y_{k}": v for k, v in LABELS.items()} | changed
    path = folder / "data.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def ready(*args, **kwargs):
    data = ArrayDataModule(*args, **kwargs)
    data.setup()
    return data


def everything(loader):
    x, labels = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(labels)


def test_sizes_are_known_before_setup_and_images_are_standardized(tmp_path):
    data = ArrayDataModule(write(tmp_path), batch_size=16, val_share=0.2)
    assert (data.num_classes, data.input_shape) == (8, (3, 6, 5))
    data.setup()
    x, labels = everything(data.geometry_dataloader())
    assert x.shape == (64, 3, 6, 5)
    assert x.dtype == torch.float32
    assert x.mean((0, 2, 3)).abs().max() < 1e-5
    assert (x.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    assert labels.bincount().tolist() == [8] * 8
    assert everything(data.val_dataloader())[1].bincount().tolist() == [2] * 8
    assert len(everything(data.test_dataloader())[0]) == 24
    (batch, batch_labels) = next(iter(data.train_dataloader()))
    assert batch.shape == (16, 3, 6, 5)
    assert batch_labels.bincount().tolist() == [2] * 8


def test_every_image_keeps_its_label_and_the_seed_decides_the_split(tmp_path):
    images = np.repeat(LABELS["train"].astype(np.uint8), 30).reshape(80, 6, 5)
    path = write(tmp_path, x_train=images, x_test=images[:24])
    data, again, other = (ready(path, val_share=0.5, seed=seed) for seed in (1, 1, 2))
    for loader in (data.geometry_dataloader(), data.val_dataloader()):
        x, labels = everything(loader)
        assert x[:, 0, 0, 0].argsort(stable=True).tolist() == labels.argsort(stable=True).tolist()
    assert torch.equal(everything(data.geometry_dataloader())[0], everything(again.geometry_dataloader())[0])
    assert torch.equal(data._splits["train"].labels, again._splits["train"].labels)
    assert not torch.equal(data._splits["train"].labels, other._splits["train"].labels)


def test_chosen_classes_are_renumbered(tmp_path):
    data = ready(write(tmp_path), classes=[7, 2, 3], val_share=0)
    assert data.num_classes == 3
    train, labels = data._splits["train"].x, data._splits["train"].labels
    assert labels.bincount().tolist() == [10, 10, 10]
    pixels = torch.from_numpy(IMAGES["train"][LABELS["train"] == 7].transpose(0, 3, 1, 2)).float()
    correlation = torch.corrcoef(torch.stack([train[labels == 0][:, 0].flatten(), pixels[:, 0].flatten()]))[0, 1]
    assert correlation == pytest.approx(1, abs=1e-5)
    assert torch.equal(data._splits["val"].x, data._splits["test"].x)


def test_vectors_are_used_unchanged(tmp_path):
    x = RNG.standard_normal((80, 7))
    data = ready(write(tmp_path, x_train=x, x_test=x[:24]), val_share=0)
    assert data.input_shape == (7,)
    assert torch.equal(everything(data.geometry_dataloader())[0], torch.from_numpy(x).float())


@pytest.mark.parametrize("val", ["val", "valid", "validation", "dev", "VALID"])
def test_a_validation_set_in_the_file_is_used(tmp_path, val):
    x = RNG.integers(0, 256, (16, 6, 5, 3), dtype=np.uint8)
    data = ready(write(tmp_path, **{f"x_{val}": x, f"Y_{val}": np.arange(16) % 8}), val_share=0.5)
    assert [len(data._splits[split]) for split in ("train", "val", "test")] == [80, 16, 24]
    assert torch.equal(data._splits["val"].x, torch.from_numpy(x.transpose(0, 3, 1, 2)))
    assert f"val: 16 inputs, 2 of each class (x_{val} in" in data.summary()
    assert data.num_bytes() == (80 + 16 + 24) * 6 * 5 * 3


def test_usual_split_names_are_found_and_other_arrays_are_counted(tmp_path):
    arrays = {"X_Training": IMAGES["train"], "Y_train": LABELS["train"], "x_eval": IMAGES["test"]}
    extra = {"y_TEST": LABELS["test"], "ids": LABELS["train"], "x_extra": IMAGES["test"], "x": IMAGES["test"]}
    np.savez(tmp_path / "data.npz", **arrays, **extra)
    data = ready(str(tmp_path / "data.npz"), val_share=0)
    assert [len(data._splits[split]) for split in ("train", "val", "test")] == [80, 24, 24]
    assert "skipped: 3 not read (ids first)" in data.summary()


def test_class_names_are_read_from_predictions(tmp_path):
    names = np.array(["ant", "bee", "cat", "dog", "emu", "fox", "gnu", "hen"])
    data = ready(write(tmp_path, class_names=names), classes=["hen", "bee"])
    assert data.class_names == ["hen", "bee"]
    assert data.passed_over.counts == {}
    with pytest.raises(ValueError, match="class_names: got names of shape .3,., expected one for each label up to 7"):
        ready(write(tmp_path, class_names=names[:3]))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "float32", ">f8"])
@pytest.mark.parametrize("column", [False, True])
def test_labels_may_be_a_column_and_of_other_types(tmp_path, dtype, column):
    count = 2 if dtype == "bool" else 8
    labels = {split: of_split % count for split, of_split in LABELS.items()}
    given = {f"y_{k}": v.astype(dtype).reshape((-1, 1) if column else -1) for k, v in labels.items()}
    data = ready(write(tmp_path, **given), val_share=0)
    assert data.num_classes == count
    assert data._splits["train"].labels.tolist() == labels["train"].tolist()
    assert data._splits["train"].labels.dtype == torch.int64


def test_an_objective_trains_on_arrays(tmp_path):
    data = ArrayDataModule(write(tmp_path), batch_size=16)
    trainer = Trainer(fast_dev_run=2, logger=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(HSCL(encoder=MLP(data.input_shape), num_classes=data.num_classes), data)


def pickled(folder, name):
    array = np.array([{}] * 24, dtype=object)
    return write(folder, **{name: array})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: write(f, y_test=None), "path: got x_test, x_train, y_train in data.npz, expected x_train, y_train"),
        (
            lambda f: write(f, x_val=IMAGES["test"]),
            "got x_test, x_train, x_val, y_test, y_train in data.npz, expected .*, x_val, y_val$",
        ),
        (
            lambda f: write(f, X_train=IMAGES["train"]),
            "path: got x_train and X_train in data.npz, expected one x_train",
        ),
        (
            lambda f: write(f, x_val=IMAGES["test"][:, 1:], y_val=LABELS["test"]),
            r"x_val: got inputs of shape \(3, 5",
        ),
        (lambda f: write(f, classes=np.arange(8), class_names=np.arange(8)), "path: got classes and class_names in"),
        (
            lambda f: write(f, y_train=LABELS["train"] * 3),
            r"labels: got .0, 1, 2, 3, 4, ..., 21., expected 0 to C - 1",
        ),
        (
            lambda f: write(f, y_train=LABELS["train"] / 2),
            "y_train: got float64 of shape .80,., expected whole numbers",
        ),
        (
            lambda f: write(f, y_train=np.where(LABELS["train"], 1, np.nan)),
            "y_train: got float64 of shape .80,., expected whole numbers",
        ),
        (lambda f: write(f, y_train=LABELS["train"] * 1e18), "y_train: got float64 of shape .80,., expected whole"),
        (
            lambda f: write(f, y_train=np.eye(8)[LABELS["train"]]),
            "y_train: got float64 of shape .80, 8., expected whole",
        ),
        (lambda f: write(f, y_train=LABELS["train"].astype(float) - 1), "labels: got -1, expected none below 0"),
        (lambda f: write(f, y_train=LABELS["train"][:9]), r"x_train: got uint8 of shape \(80, 6, 5, 3\) and 9 labels"),
        (
            lambda f: write(f, x_train=IMAGES["train"][:, :, :4]),
            r"x_train: got inputs of shape \(3, 6, 4\), expected \(3, 6, 5",
        ),
        (lambda f: pickled(f, "y_test"), "y_test: Object arrays cannot be loaded when allow_pickle=False"),
        (lambda f: pickled(f, "x_test"), "Object arrays cannot be loaded"),
    ],
)
def test_bad_files_are_refused(tmp_path, make, message):
    with pytest.raises(ValueError, match=message):
        ready(make(tmp_path))


def test_bad_arguments_are_refused(tmp_path):
    path = write(tmp_path, y_train=10 * LABELS["train"], y_test=10 * LABELS["test"])
    assert ArrayDataModule(path, classes=[70, 0]).num_classes == 2
    with pytest.raises(ValueError, match=r"classes: got \[3\], which the data does not have, expected some of \[0, 10"):
        ArrayDataModule(path, classes=[0, 3])
    with pytest.raises(ValueError, match=r"classes: got \[4\], expected at least two"):
        ArrayDataModule(path, classes=[4])
    with pytest.raises(ValueError, match="val_share: got 1, expected a share"):
        ArrayDataModule(path, val_share=1)
    with pytest.raises(FileNotFoundError, match=r"path: got '.*none.npz', expected a .npz file that exists"):
        ArrayDataModule(str(tmp_path / "none.npz"))
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match=r"path: got '.*broken.npz', which is damaged or not a .npz"):
        ArrayDataModule(str(tmp_path / "broken.npz"))
