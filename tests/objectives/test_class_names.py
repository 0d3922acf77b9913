"""A checkpoint stores its class names, and data with other classes are refused."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from PIL import Image

from nc_lightning import HSCL, HUCL
from nc_lightning.data import ArrayDataModule, DigitsDataModule, ImageFolderDataModule
from nc_lightning.encoders import MLP

QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
IMAGES = np.random.default_rng(0).integers(0, 256, (80, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(80) % 4
pytestmark = pytest.mark.filterwarnings("ignore:(?!class_names)")


def arrays(folder, names=None, classes=None, labels=LABELS):
    path = folder / f"{'-'.join(map(str, names or ['numbers']))}.npz"
    named = {} if names is None else {"classes": np.array(names)}
    np.savez(path, x_train=IMAGES, y_train=labels, x_test=IMAGES, y_test=labels, **named)
    return ArrayDataModule(path=str(path), batch_size=20, classes=classes)


def model():
    return HSCL(encoder=MLP((3, 4, 4), (6,)), num_classes=4)


def trained(folder, data):
    trainer, module = Trainer(max_epochs=1, **QUIET), model()
    trainer.fit(module, data)
    trainer.save_checkpoint(folder / "mine.ckpt")
    return module, folder / "mine.ckpt"


def run(command, module, data, path):
    getattr(Trainer(max_epochs=2, **QUIET), command)(module, datamodule=data, ckpt_path=path)


COMMANDS = ["validate", "test", "predict", "fit"]
ANIMALS = ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize("command", COMMANDS)
def test_other_names_or_another_order_are_refused(tmp_path, command):
    module, path = trained(tmp_path, arrays(tmp_path, ANIMALS))
    assert torch.load(path, weights_only=True)["class_names"] == ANIMALS
    swapped = arrays(tmp_path, ANIMALS, ["ant", "cat", "bee", "dog"])
    others = arrays(tmp_path, ["ant", "bee", "cat", "eel"])
    with pytest.raises(ValueError, match="class_names: got 'cat' for class 1, expected 'bee' as in training"):
        run(command, model(), swapped, path)
    with pytest.raises(ValueError, match="class_names: got 'eel' for class 3, expected 'dog' as in training"):
        run(command, model(), others, path)
    if command != "fit":
        for known in (module, HSCL.load_from_checkpoint(path, encoder=MLP((3, 4, 4), (6,)))):
            with pytest.raises(ValueError, match="class_names: got 'cat' for class 1"):
                run(command, known, swapped, None)
    # Data with the same classes in the same order, however they are stored.
    run(command, model(), arrays(tmp_path, ANIMALS[::-1], ANIMALS), path)


@pytest.mark.parametrize("command", COMMANDS)
def test_class_counts_are_compared_where_there_are_no_names(tmp_path, command, recwarn):
    _, path = trained(tmp_path, arrays(tmp_path, classes=[0, 1, 3, 2]))
    assert torch.load(path, weights_only=True)["class_names"] == [0, 1, 3, 2]
    run(command, model(), arrays(tmp_path, classes=[0, 1, 3, 2]), path)
    assert not [w for w in recwarn if "class_names" in str(w.message)]
    with pytest.raises(ValueError, match="class_names: got 2 for class 2, expected 3 as in training"):
        run(command, model(), arrays(tmp_path), path)
    with pytest.warns(UserWarning, match="class_names: got 'ant' for class 0, 0 in training; assumed to be the same"):
        run(command, model(), arrays(tmp_path, ANIMALS), path)


def test_a_new_fit_uses_its_own_classes(tmp_path):
    module, path = trained(tmp_path, arrays(tmp_path, ANIMALS))
    swapped = arrays(tmp_path, ANIMALS, ANIMALS[::-1])
    Trainer(max_epochs=1, **QUIET).fit(module, swapped)
    assert module.class_names == ANIMALS[::-1]
    run("validate", module, swapped, None)
    state = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in state.items() if key != "class_names"}, path)
    run("test", module, arrays(tmp_path, ANIMALS), path)  # a checkpoint of an earlier version has no class names
    assert module.class_names is None
    run("fit", module, swapped, path)
    assert module.class_names == ANIMALS[::-1]


def test_custom_data_modules_and_loaders_are_checked(tmp_path):
    class Own(LightningDataModule):
        class_names = ("ant", "bee", "cat", "eel")

        def test_dataloader(self):
            return arrays_.test_dataloader()

    arrays_ = arrays(tmp_path, ANIMALS)
    module, path = trained(tmp_path, arrays_)
    with pytest.raises(ValueError, match="class_names: got 'eel' for class 3"):
        run("test", model(), Own(), path)
    Own.class_names = np.array  # with some other meaning
    run("test", model(), Own(), path)
    Trainer(**QUIET).test(module, arrays_.test_dataloader())


def test_unlabeled_images_have_no_class_names(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(IMAGES[:20]):
        Image.fromarray(image).save(folder / f"{i}.png")
    data = ImageFolderDataModule(root=str(folder), labels="none", batch_size=5)
    module = HUCL(encoder=MLP((3, 4, 4), (6,)), num_classes=18, feature_dim=3)
    trainer = Trainer(max_epochs=1, **QUIET)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "mine.ckpt")
    assert "class_names" not in torch.load(tmp_path / "mine.ckpt", weights_only=True)
    module, path = trained(tmp_path, arrays(tmp_path, ANIMALS))
    run("predict", model(), data, path)


def test_digits_are_named_by_their_numbers():
    data = DigitsDataModule()
    data.setup()
    assert data.names_or_labels() == list(range(10))
