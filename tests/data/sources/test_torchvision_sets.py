import hashlib
import pickle
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torchvision import datasets

from nc_lightning.data import CIFAR10DataModule, FashionMNISTDataModule, STL10DataModule

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
RNG = np.random.default_rng(0)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def url(tmp_path):
    """Address of a server for the files in tmp_path/server."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "server"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A CIFAR-10 of 100 training and 20 test images, with its checksums patched into torchvision."""
    base = tmp_path / "server" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    for name, count in (("data_batch_1", 100), ("test_batch", 20)):
        batch = {"data": RNG.integers(0, 256, (count, 3072), dtype=np.uint8), "labels": [i % 10 for i in range(count)]}
        (base / name).write_bytes(pickle.dumps(batch))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}))
    path = tmp_path / "server" / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(base, arcname=base.name)
    set_ = monkeypatch.setattr
    set_(datasets.CIFAR10, "tgz_md5", md5(path))
    set_(datasets.CIFAR10, "train_list", [["data_batch_1", md5(base / "data_batch_1")]])
    set_(datasets.CIFAR10, "test_list", [["test_batch", md5(base / "test_batch")]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5(base / "batches.meta")}
    set_(datasets.CIFAR10, "meta", meta)
    return path


def make(root, **kwargs):
    data = CIFAR10DataModule(str(root), batch_size=20, **kwargs)
    data.prepare_data()
    data.setup()
    return data


def test_a_set_is_downloaded_from_a_mirror_once(tmp_path, archive, url):
    root = tmp_path / "data"
    data = make(root, download=True, url=f"{url}/{archive.name}")
    assert [path.name for path in root.iterdir()] == ["cifar-10-batches-py"]  # no archive, no partial files
    archive.unlink()
    again = make(root, download=True)  # it exists, so nothing is downloaded
    x, labels = next(iter(again.train_dataloader()))
    assert x.shape == (20, *again.input_shape)
    assert labels.bincount().tolist() == [2] * 10
    assert data.class_names == NAMES
    raw = datasets.CIFAR10(root, train=False)
    test = again._splits["test"]
    assert torch.equal(test.x, torch.from_numpy(raw.data).permute(0, 3, 1, 2))
    assert test.labels.tolist() == raw.targets


def test_classes_are_chosen_by_name(tmp_path, archive, url):
    make(tmp_path, download=True, url=f"{url}/{archive.name}")
    data = make(tmp_path, classes=["ship", "cat"], val_share=0)
    assert data.num_classes == 2
    assert data._splits["train"].labels.tolist() == [1, 0] * 10
    with pytest.raises(ValueError, match=r"classes: got \['yak'\], which the data does not have"):
        CIFAR10DataModule(classes=["ship", "yak"])


@pytest.mark.parametrize("harm", ["cut short", "unreachable"])
def test_an_interrupted_download_leaves_nothing(tmp_path, archive, url, harm):
    if harm == "cut short":
        archive.write_bytes(archive.read_bytes()[:500])
    else:
        archive.unlink()
    root = tmp_path / "data"
    with pytest.raises(OSError, match=r"download: got .*; try a mirror by --data.url, or put the data set into"):
        make(root, download=True, url=f"{url}/{archive.name}")
    assert list(root.iterdir()) == []


def test_a_download_to_a_full_disk_leaves_nothing(tmp_path, archive, url, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.CIFAR10, "download", full)
    with pytest.raises(OSError, match="download: got OSError: .* No space left on device"):
        make(tmp_path / "data", download=True, url=f"{url}/{archive.name}")
    assert list((tmp_path / "data").iterdir()) == []


def test_missing_and_damaged_sets_are_refused(tmp_path, archive, url, monkeypatch):
    monkeypatch.setenv("NC_DATA_DIR", str(tmp_path / "sets"))
    message = r"root: got '.*sets', which has no CIFAR10: looked for .*cifar-10-batches-py; add --data.download true"
    with pytest.raises(FileNotFoundError, match=message):
        CIFAR10DataModule().setup()
    make(tmp_path, download=True, url=f"{url}/{archive.name}")
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"half")
    with pytest.raises(ValueError, match="a damaged CIFAR10: .*; remove it and download it again"):
        make(tmp_path)


def test_gray_and_channels_first_sets_are_read(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, root, train=True, split="train"):
            count = 20 if train and split == "train" else 10
            self.data = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8)
            self.targets = torch.arange(count) % 10

    class FakeSTL(Fake):
        def __init__(self, root, split):
            super().__init__(root, split=split)
            self.data = RNG.integers(0, 256, (len(self.targets), 3, 96, 96), dtype=np.uint8)
            self.labels = self.targets.numpy().astype(np.uint8)

    (tmp_path / "FashionMNIST" / "raw").mkdir(parents=True)
    (tmp_path / "stl10_binary").mkdir()
    for module, fake in ((FashionMNISTDataModule, Fake), (STL10DataModule, FakeSTL)):
        monkeypatch.setattr(module, "dataset", fake)
        data = module(str(tmp_path), batch_size=20, val_share=0)
        data.setup()
        x, labels = next(iter(data.train_dataloader()))
        assert x.shape == (20, *data.input_shape)
        assert labels.bincount().tolist() == [2] * 10


def test_a_mirror_may_have_several_files(tmp_path, url):
    (tmp_path / "server").mkdir()
    data = FashionMNISTDataModule(str(tmp_path / "data"), download=True, url=url)
    with pytest.raises(OSError, match=r"download: got .*train-images-idx3-ubyte.gz.*; try a mirror"):
        data.prepare_data()
    assert list((tmp_path / "data").iterdir()) == []
