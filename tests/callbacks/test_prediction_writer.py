import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from nc_lightning import HSCL
from nc_lightning.callbacks import PredictionWriter
from nc_lightning.callbacks import prediction_writer as writer_module
from nc_lightning.data import DigitsDataModule, ImageFolderDataModule, LatentClassDataModule
from nc_lightning.encoders import MLP
from nc_lightning.io.feature_files import FeatureFile
from tests.on_processes import on_processes

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Means(LightningModule):
    def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
        x, labels = batch
        return {"features": x.flatten(1).mean(1, keepdim=True), "labels": labels}


def predict(folder, module, data, writer=None, **kwargs):
    writer = writer or PredictionWriter()
    trainer = Trainer(default_root_dir=folder, callbacks=[writer], **QUIET, **kwargs)
    trainer.predict(module, data, return_predictions=False)
    return writer.written


def objective():
    torch.manual_seed(0)
    return HSCL(encoder=MLP((3, 4, 4), [8]), num_classes=2).eval()


def tree(root, splits=("train",)):
    """Each image has its own gray level, so that its features identify it."""
    for number in range(24):
        for split in splits:
            path = root / split / ("ant", "bee")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), 10 * number, dtype=np.uint8)).save(path)
    return str(root)


@pytest.mark.parametrize("options", [{"cache": "ram"}, {"cache": "none"}, {"cache": "none", "num_workers": 1}])
@pytest.mark.parametrize("limit", [1.0, 2])
@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.filterwarnings("ignore:skipped")
def test_names_and_paths_match_the_features(tmp_path, options, limit, damaged):
    data = ImageFolderDataModule(tree(tmp_path / "tree"), val_share=0.25, batch_size=4, on_error="skip", **options)
    if damaged:
        (tmp_path / "tree" / "train" / "bee" / "3.png").write_bytes(b"")
    written = predict(tmp_path, Means(), data, limit_predict_batches=limit)
    with np.load(written["predict"], allow_pickle=False) as file:
        features, labels, names, paths = (file[name] for name in ("z", "labels", "class_names", "paths"))
        assert paths.tolist() == [str(data._splits["train"].paths[i]) for i in file["indices"]]
    assert names.tolist() == ["ant", "bee"]
    assert len(paths) == len(features) > 4
    numbers = [int(path.rpartition("/")[2].removesuffix(".png")) for path in paths]
    assert [path.split("/")[-2] for path in paths] == [names[label] for label in labels]
    grays = np.array([10 * number / 255 for number in numbers])
    mean, std = float(data.mean[0]), float(data.std[0])
    np.testing.assert_allclose(features[:, 0], (grays - mean) / std, atol=1e-5)


def test_predictions_of_data_without_files_have_no_paths(tmp_path):
    with np.load(predict(tmp_path, Means(), DigitsDataModule())["predict"]) as file:
        assert file.files == ["z", "labels", "indices"]
        assert torch.from_numpy(file["labels"]).bincount().numel() == 10


def read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def read_safetensors(path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    with safe_open(path, "np") as file:
        texts = {name: np.array(json.loads(text)) for name, text in file.metadata().items()}
    return load_file(path) | texts


def read_parquet(path):
    from pyarrow import parquet

    table = parquet.read_table(path)
    arrays = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    names = arrays.pop("class_names")
    assert names.tolist() == [("ant", "bee")[label] for label in arrays["labels"]]
    return arrays | {"class_names": np.array(["ant", "bee"])}


READERS = {".npz": read_npz, ".safetensors": read_safetensors, ".parquet": read_parquet}


@pytest.mark.parametrize("extension", READERS)
def test_every_format_has_the_features_of_each_layer_and_split(tmp_path, extension):
    data = ImageFolderDataModule(tree(tmp_path / "tree", ("train", "val", "test")), batch_size=5)
    path, module = tmp_path / "out" / f"f{extension}", objective()
    writer = PredictionWriter("train, test", ["encoder", "z"], str(path))
    written = predict(tmp_path, module, data, writer)
    assert {name: path.name for name, path in written.items()} == {s: f"f_{s}{extension}" for s in ("train", "test")}
    assert sorted(p.name for p in path.parent.iterdir()) == sorted(p.name for p in written.values())
    assert len({p.stat().st_mode for p in [*written.values(), tmp_path / "tree/train/ant/0.png"]}) == 1
    for split, file in written.items():
        (_x, _labels), images = next(iter(data._evaluation_loader(split))), data._splits[split]
        batches = [batch for batch, _ in data._evaluation_loader(split)]
        with torch.no_grad():
            h = torch.cat([module.encoder(batch) for batch in batches]).numpy()
            z = torch.cat([module(batch) for batch in batches]).numpy()
        arrays = READERS[extension](file)
        assert set(arrays) == {"encoder", "z", "labels", "indices", "paths", "class_names"}
        np.testing.assert_allclose(arrays["encoder"], h, rtol=0, atol=1e-6)
        np.testing.assert_allclose(arrays["z"], z, rtol=0, atol=1e-6)
        assert arrays["labels"].tolist() == images.labels.tolist()
        assert arrays["indices"].tolist() == list(range(24))
        assert arrays["paths"].tolist() == list(map(str, images.paths))
        assert arrays["class_names"].tolist() == ["ant", "bee"]
        read = torch.cat([features for features, _ in FeatureFile(file).batches(7)])
        assert np.array_equal(read.numpy(), arrays["z"].astype(np.float32))


class Plain(LightningModule):
    """A module of a user, whose batches are inputs alone."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

    def forward(self, batch):
        return self.head(self.body(batch[0]).mean((2, 3)))


def test_a_module_and_loaders_of_a_user(tmp_path):
    module, images = Plain().eval(), torch.randn(23, 1, 5, 5)
    order = torch.randperm(23).tolist()
    loader = DataLoader(TensorDataset(images), 4, sampler=order)
    trainer = Trainer(callbacks=[PredictionWriter(layers="body,z")], default_root_dir=tmp_path, **QUIET)
    returned = torch.cat(trainer.predict(module, loader))
    arrays = read_npz(tmp_path / "predictions.npz")
    with torch.no_grad():
        assert torch.equal(returned, module([images[order]]))  # as Lightning returns them
        np.testing.assert_allclose(arrays["body"], module.body(images).mean((2, 3)).numpy(), atol=1e-6)
    np.testing.assert_allclose(arrays["z"][order], returned.numpy(), atol=1e-6)
    assert arrays["indices"].tolist() == list(range(23))
    assert set(arrays) == {"body", "z", "indices"}


class Both(LightningModule):
    """The features of all views of a batch, view after view."""

    def predict_step(self, batch):
        return torch.cat(batch[0])


def test_views_are_consecutive_rows_of_a_sample(tmp_path):
    x = torch.arange(6.0)[:, None]
    arrays = read_npz(predict(tmp_path, Both(), DataLoader([((v, v + 10), int(v)) for v in x], 4))["predict"])
    assert arrays["z"].ravel().tolist() == [0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 5, 15]
    assert arrays["labels"].tolist() == arrays["indices"].tolist() == np.arange(6).repeat(2).tolist()


def test_an_existing_file_is_kept_and_all_files_get_the_same_number(tmp_path):
    data = DigitsDataModule()
    (tmp_path / "f_val.npz").write_text("mine")
    written = predict(tmp_path, Means(), data, PredictionWriter(["train", "val"], path=str(tmp_path / "f.npz")))
    assert [path.name for path in written.values()] == ["f-1_train.npz", "f-1_val.npz"]
    assert (tmp_path / "f_val.npz").read_text() == "mine"
    assert data.predict_splits is None
    assert predict(tmp_path, Means(), data)["predict"].name == "predictions.npz"


class Stops(Means):
    def predict_step(self, batch, batch_idx=0, dataloader_idx=0):
        if batch_idx == 2:
            raise RuntimeError("stopped")
        return super().predict_step(batch)


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_of_it(path, *_):
    path.write_bytes(b"half")
    no_space()


@pytest.mark.parametrize("fault", ["stopped", "while predicting", "while assembling"])
def test_nothing_is_left_of_a_prediction_that_ends_early(tmp_path, monkeypatch, fault):
    message = "predict.path: could not write .*out/predictions.npz: No space left on device; no file was left"
    if fault == "while predicting":
        monkeypatch.setattr(writer_module.PartFiles, "append", no_space)
    elif fault == "while assembling":
        monkeypatch.setattr(writer_module, "write_arrays", half_of_it)
    module = Stops() if fault == "stopped" else Means()
    writer = PredictionWriter("train,val", path=str(tmp_path / "out" / "predictions.npz"))
    with pytest.raises((RuntimeError, OSError), match="stopped" if fault == "stopped" else message):
        predict(tmp_path, module, DigitsDataModule(batch_size=200), writer)
    assert list((tmp_path / "out").iterdir()) == []
    assert not any(layer._forward_hooks for layer in module.modules())


class OwnData(LightningDataModule):
    def predict_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(6, 4), torch.arange(6) % 2), batch_size=3)


REFUSED = {
    "split": ({"splits": "train,dev"}, "predict.splits: got 'dev', expected some of train, val, test"),
    "split twice": ({"splits": ["val", "val"]}, "predict.splits: got .* expected different names"),
    "no layers": ({"layers": []}, "predict.layers: got .., expected different names, separated by commas"),
    "name of labels": ({"layers": "labels"}, "predict.layers: got 'labels', the name of another array"),
    "layer": (
        {"layers": "encodr"},
        "predict.layers: got 'encodr', expected z or a submodule of HSCL, such as encoder",
    ),
    "ending": ({"path": "f.csv"}, "predict.path: got 'f.csv', expected a file that ends in .npz, .safetensors or"),
    "own data": (
        {"splits": "val"},
        "predict.splits: got val for OwnData, which has no predict_splits, expected a data",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_settings_are_refused_before_anything_runs(tmp_path, case):
    arguments, message = REFUSED[case]
    data = OwnData() if case == "own data" else DigitsDataModule()
    data.predict_dataloader = None
    with pytest.raises(ValueError, match=message) as raised:
        predict(tmp_path, objective(), data, PredictionWriter(**arguments))
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_format_without_its_package_is_refused(tmp_path, monkeypatch):
    for name, package in {"f.parquet": "pyarrow", "f.safetensors": "safetensors"}.items():
        monkeypatch.setitem(__import__("sys").modules, package, None)
        with pytest.raises(
            ModuleNotFoundError, match=f"predict.path: got '{name}', which needs {package}: pip install"
        ):
            predict(tmp_path, Means(), DigitsDataModule(), PredictionWriter(path=name))


def test_a_data_module_without_splits_is_predicted(tmp_path):
    assert read_npz(predict(tmp_path, Identity(), OwnData())["predict"])["labels"].tolist() == [0, 1] * 3


def test_a_layer_of_other_length_is_refused(tmp_path):
    class Halves(LightningModule):
        def __init__(self):
            super().__init__()
            self.every_other = nn.Identity()

        def predict_step(self, batch):
            self.every_other(batch[0][::2])
            return batch[0]

    with pytest.raises(ValueError, match=r"layers: got an output .2, 4. of 'every_other' for 3 inputs, expected .N, d"):
        predict(tmp_path, Halves(), OwnData(), PredictionWriter(layers="every_other,z"))
    assert list(tmp_path.iterdir()) == []


class Identity(LightningModule):
    def predict_step(self, batch):
        return batch[0]


def _two(rank, folder, padded):
    data = TensorDataset(torch.arange(7.0)[:, None], torch.arange(7))
    sampler = DistributedSampler(data, shuffle=True) if padded else None
    writer = PredictionWriter(path=f"{folder}/{padded}.npz")
    options = QUIET | {"default_root_dir": folder, "use_distributed_sampler": not padded}
    trainer = Trainer(devices=2, strategy="ddp", callbacks=[writer], **options)
    trainer.predict(Identity(), DataLoader(data, 2, sampler=sampler), return_predictions=False)
    return str(writer.written["predict"])


def _not_shared(rank, folder):
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(Path, "is_dir", lambda self: False)
        with pytest.raises(OSError, match="predict.path: got .*which the processes do not share, expected a folder"):
            _two(rank, folder, False)


def _objective(folder, **options):
    data = LatentClassDataModule(batch_size=60, samples_per_class=37)
    torch.manual_seed(0)
    module = HSCL(encoder=MLP((32,), [16]), num_classes=10).eval()
    return str(predict(folder, module, data, PredictionWriter("train,val", "encoder,z"), **options)["val"])


def _in_turn(rank, folder):
    paths = [_two(rank, folder, padded) for padded in (False, True)]
    _not_shared(rank, f"{folder}/other")
    return paths, _objective(folder, devices=2, strategy="ddp")


@pytest.mark.slow
def test_two_processes_write_each_sample_once(gloo, tmp_path):
    (paths, of_objective), others = on_processes(2, _in_turn, str(tmp_path))
    assert (paths, of_objective) == others
    assert paths == [str(tmp_path / "False.npz"), str(tmp_path / "True.npz")]
    for path in paths:
        arrays = read_npz(path)
        for name in ("z", "labels", "indices"):
            assert arrays[name].ravel().tolist() == list(range(7))
    names = ["False.npz", "True.npz", "predictions_train.npz", "predictions_val.npz"]
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == names
    one, two = read_npz(_objective(tmp_path / "one")), read_npz(of_objective)
    assert one.keys() == two.keys() == {"encoder", "z", "labels", "indices"}
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, rtol=0, atol=1e-6)
