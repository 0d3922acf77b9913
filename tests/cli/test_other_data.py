"""A checkpoint used with other data: images are standardized as in training, and classes are compared."""

import sys
from pathlib import Path

import numpy as np
import pytest

from nc_lightning.cli import main
from nc_lightning.cli.command_error import exit_on_error

pytestmark = pytest.mark.slow  # each test is several runs of the command line
IMAGES = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(80) % 2
SHORT = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
ON = ["--data=nc_lightning.data.ArrayDataModule", "--data.path=mine.npz", "--data.batch_size=20"]
FIT = ["fit", "--config", "hscl.yaml", *ON, "--trainer.max_epochs=1", *SHORT]


def write(name, images, names=("ant", "bee")):
    np.savez(name, x_train=images, y_train=LABELS, x_test=images, y_test=LABELS, classes=np.array(names))


@pytest.fixture
def ckpt(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    write("mine.npz", IMAGES)
    return Path(main(FIT).trainer.log_dir) / "checkpoints/last.ckpt"


def again(command, ckpt, *arguments):
    return main([command, "--config", str(ckpt.parents[1] / "config.yaml"), "--ckpt_path", str(ckpt), *arguments])


def features(cli):
    with np.load(Path(cli.trainer.log_dir) / "predictions.npz") as file:
        return file["z"]


def test_an_image_has_the_same_features_whichever_images_surround_it(ckpt, capsys):
    write("other.npz", np.concatenate([IMAGES[:40], IMAGES[40:] // 4]))
    keep_all = ["--data.val_share=0"]
    mine = features(again("predict", ckpt, *keep_all))
    assert "data: got" not in capsys.readouterr().err
    with pytest.warns(UserWarning, match="data: got images of mean .*, but training had .*; training's is used"):
        other = features(again("predict", ckpt, *keep_all, "--data.path=other.npz"))
    assert np.abs(mine[:40] - other[:40]).max() < 1e-5
    assert np.abs(mine[40:] - other[40:]).max() > 1e-2


@pytest.mark.some(3)
@pytest.mark.parametrize("command", ["validate", "test", "predict", "fit"])
def test_another_order_of_the_classes_is_refused_in_one_line(ckpt, capsys, command):
    longer = ["--trainer.max_epochs=2"] if command == "fit" else []
    with pytest.raises(SystemExit) as exit_, exit_on_error():
        again(command, ckpt, "--data.classes=[bee,ant]", *longer)
    assert exit_.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("nc-train: error: class_names: got 'bee' for class 0, expected 'ant' as in training")
    again(command, ckpt, "--data.classes=[ant,bee]", *longer)
