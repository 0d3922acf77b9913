"""An untrusted file never runs code: a pickle with a payload is tried on every loading path."""

import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from nc_lightning.cli import main as nc_train
from nc_lightning.cli import measure as nc_measure
from nc_lightning.cli import report as nc_report
from nc_lightning.cli.command_error import exit_on_error

MARKER = Path("payload-ran")


class Payload:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (MARKER,)


def objects(n=30):
    array = np.empty(n, dtype=object)
    array[:] = [Payload()] * n
    return array


def as_torch(path, content):
    torch.save(content, path)


def as_pickle(path, content):
    Path(path).write_bytes(pickle.dumps(content))


def as_zipped_pickle(path, name):
    """An archive of arrays with a bare pickle among them."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, pickle.dumps(Payload()))


TRAIN = ["fit", "--config=scl.yaml", "--trainer.fast_dev_run=true"]
ARRAYS = [*TRAIN, "--data=nc_lightning.data.ArrayDataModule", "--data.batch_size=10", "--data.path"]
X, Y = np.zeros((30, 4)), np.arange(30) % 3
STATE = {"state_dict": {}, "objective": "SCL", "payload": Payload()}

DOORS = {
    "nc-train --ckpt_path": (nc_train, [*TRAIN, "--ckpt_path", "x.ckpt"], lambda: as_torch("x.ckpt", STATE)),
    "nc-train --ckpt_path, a bare pickle": (
        nc_train,
        [*TRAIN, "--ckpt_path", "x.ckpt"],
        lambda: as_pickle("x.ckpt", STATE),
    ),
    "nc-train validate": (
        nc_train,
        ["validate", *TRAIN[1:], "--ckpt_path", "x.ckpt"],
        lambda: as_torch("x.ckpt", STATE),
    ),
    "nc-train predict": (nc_train, ["predict", *TRAIN[1:], "--ckpt_path", "x.ckpt"], lambda: as_torch("x.ckpt", STATE)),
    "ArrayDataModule, inputs": (
        nc_train,
        [*ARRAYS, "x.npz"],
        lambda: np.savez("x.npz", x_train=objects(), y_train=Y, x_test=X, y_test=Y),
    ),
    "ArrayDataModule, test inputs": (
        nc_train,
        [*ARRAYS, "x.npz"],
        lambda: np.savez("x.npz", x_train=X, y_train=Y, x_test=objects(), y_test=Y),
    ),
    "ArrayDataModule, labels": (
        nc_train,
        [*ARRAYS, "x.npz"],
        lambda: np.savez("x.npz", x_train=X, y_train=objects(), x_test=X, y_test=Y),
    ),
    "ArrayDataModule, classes": (
        nc_train,
        [*ARRAYS, "x.npz"],
        lambda: np.savez("x.npz", x_train=X, y_train=Y, x_test=X, y_test=Y, classes=objects(3)),
    ),
    "ArrayDataModule, a bare pickle": (nc_train, [*ARRAYS, "x.npz"], lambda: as_pickle("x.npz", Payload())),
    "ArrayDataModule, a pickle in the archive": (
        nc_train,
        [*ARRAYS, "x.npz"],
        lambda: as_zipped_pickle("x.npz", "x_train.npy"),
    ),
    "nc-train --config": (
        nc_train,
        ["fit", "--config", "x.yaml"],
        lambda: Path("x.yaml").write_text(f"seed_everything: !!python/object/apply:pathlib.Path.touch [{MARKER}]\n"),
    ),
    "nc-measure .pt": (
        nc_measure.main,
        ["x.pt"],
        lambda: as_torch("x.pt", {"features": torch.eye(3), "labels": Payload()}),
    ),
    "nc-measure .pt, a bare pickle": (nc_measure.main, ["x.pt"], lambda: as_pickle("x.pt", Payload())),
    "nc-measure .npz, features": (
        nc_measure.main,
        ["x.npz"],
        lambda: np.savez("x.npz", features=objects(), labels=Y),
    ),
    "nc-measure .npz, labels": (nc_measure.main, ["x.npz"], lambda: np.savez("x.npz", features=X, labels=objects())),
    "nc-measure .npz, a pickle in the archive": (
        nc_measure.main,
        ["x.npz"],
        lambda: as_zipped_pickle("x.npz", "features"),
    ),
    "nc-measure .npy, features": (
        nc_measure.main,
        ["x.npy", "y.npy"],
        lambda: (np.save("x.npy", objects()), np.save("y.npy", Y)),
    ),
    "nc-measure .npy, labels": (
        nc_measure.main,
        ["x.npy", "y.npy"],
        lambda: (np.save("x.npy", X), np.save("y.npy", objects())),
    ),
    "nc-measure .npy, a bare pickle": (
        nc_measure.main,
        ["x.npy", "y.npy"],
        lambda: (as_pickle("x.npy", Payload()), np.save("y.npy", Y)),
    ),
    "nc-measure .parquet": (nc_measure.main, ["x.parquet"], lambda: as_pickle("x.parquet", Payload())),
    "nc-report": (nc_report.main, ["report.json"], lambda: as_pickle("report.json", Payload())),
}


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])


@pytest.mark.parametrize("door", DOORS)
def test_no_loading_path_runs_a_payload(door, capsys):
    command, arguments, write = DOORS[door]
    write()
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        command(arguments)
    assert not MARKER.exists()
    assert exit_.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert line.startswith("nc-")
    assert "Traceback" not in line


def test_the_payload_runs_when_unpickled_without_safeguards():
    as_torch("x.pt", Payload())
    torch.load("x.pt", weights_only=False)
    assert MARKER.exists(), "else the tests above prove nothing"
