import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from nc_lightning.callbacks import PredictionWriter
from nc_lightning.data import DigitsDataModule, ImageFolderDataModule

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Means(LightningModule):
    def predict_step(self, batch):
        x, labels = batch
        return {"features": x.flatten(1).mean(1, keepdim=True), "labels": labels}


def predictions(folder, data, **kwargs):
    writer = PredictionWriter()
    Trainer(default_root_dir=folder, callbacks=[writer], **QUIET, **kwargs).predict(Means(), data)
    return np.load(writer.path, allow_pickle=False)


def tree(root):
    """Each image has its own gray level, so that its features identify it."""
    for number in range(24):
        path = root / "train" / ("ant", "bee")[number % 2] / f"{number}.png"
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
    with predictions(tmp_path, data, limit_predict_batches=limit) as file:
        features, labels, names, paths = (file[name] for name in ("features", "labels", "class_names", "paths"))
    assert names.tolist() == ["ant", "bee"]
    assert len(paths) == len(features) > 4
    numbers = [int(path.rpartition("/")[2].removesuffix(".png")) for path in paths]
    assert [path.split("/")[-2] for path in paths] == [names[label] for label in labels]
    grays = np.array([10 * number / 255 for number in numbers])
    mean, std = float(data.mean[0]), float(data.std[0])
    np.testing.assert_allclose(features[:, 0], (grays - mean) / std, atol=1e-5)


def test_predictions_of_data_without_files_have_no_paths(tmp_path):
    with predictions(tmp_path, DigitsDataModule()) as file:
        assert sorted(file.files) == ["features", "labels"]
        assert torch.from_numpy(file["labels"]).bincount().numel() == 10
