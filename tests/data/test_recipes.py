"""Augmentation recipes: views differ, come from one image, and are standardized once."""

import functools
import random
import re

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from nc_lightning.data import ArrayDataModule, DigitsDataModule, SimCLR
from nc_lightning.data.loader import BatchLoader, LabeledTensors
from nc_lightning.data.preprocess import Preprocess
from nc_lightning.data.views import Views

IMAGES = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CROP = v2.Compose([v2.RandomResizedCrop(16, antialias=True), v2.RandomHorizontalFlip()])
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


def noise(image):
    return (image + torch.rand_like(image)) / 2


def by_random(image):
    return image * random.random()


RECIPES = {"v2": CROP, "function": noise, "random": by_random, "SimCLR": SimCLR()}


def arrays(folder, **kwargs):
    x, labels = IMAGES.repeat(8, 1, 1, 1).permute(0, 2, 3, 1).numpy(), np.arange(48) % 4
    np.savez(folder / "data.npz", x_train=x, y_train=labels, x_test=x, y_test=labels)
    return ArrayDataModule(str(folder / "data.npz"), **{"batch_size": 8, "val_share": 0.25, **kwargs})


@pytest.mark.parametrize("recipe", RECIPES)
def test_views_differ_with_every_kind_of_loader(recipe):
    random.seed(0)  # for the recipe that draws from it: two of its factors may be close by chance
    augmentation = RECIPES[recipe]
    labels = torch.arange(6)
    views = Views(2, augmentation)
    loader = BatchLoader(LabeledTensors(IMAGES, labels), [[0, 1, 2], [0, 1, 2]], Views(2, augmentation))
    others = Views(2, augmentation)
    batches = [views(IMAGES[:3]), views(IMAGES[:3]), others(IMAGES[:3]), *(x for x, _ in loader)]
    batches += [views(x) for (x,) in DataLoader(torch.utils.data.TensorDataset(IMAGES[:3]), batch_size=3)]
    flat = [view for batch in batches for view in batch]
    for i, first in enumerate(flat):
        for second in flat[:i]:
            assert (first - second).abs().amax((1, 2, 3)).min() > 1e-3


def test_a_view_is_reproduced_by_the_same_seed():
    state = torch.get_rng_state()
    Views(2, CROP)(IMAGES)
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (Views(2, CROP)(IMAGES, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(torch.stack(first), torch.stack(second))


class Seen(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.views = []

    def training_step(self, batch):
        self.views.append(torch.stack(batch[0]))
        return self.layer.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("recipe", ["v2", "SimCLR"])
def test_views_differ_under_overfit_batches(tmp_path, recipe):
    data = arrays(tmp_path, views=2, augmentation=RECIPES[recipe])
    model = Seen()
    Trainer(max_epochs=2, overfit_batches=2, limit_val_batches=0, num_sanity_val_steps=0, **QUIET).fit(model, data)
    assert len(model.views) == 4
    flat = torch.cat(model.views)
    assert all(not torch.equal(a, b) for i, a in enumerate(flat) for b in flat[:i])
    again = Seen()
    data = arrays(tmp_path, views=2, augmentation=RECIPES[recipe])
    torch.rand(7)
    Trainer(max_epochs=2, overfit_batches=2, limit_val_batches=0, num_sanity_val_steps=0, **QUIET).fit(again, data)
    assert torch.equal(torch.cat(again.views), flat)


class HalfInPlace(SimCLR):
    def __call__(self, x, generator=None):
        return x.mul_(0.5)


@pytest.mark.filterwarnings("ignore:augmentation. got one that is not random")
@pytest.mark.parametrize("augmentation", [lambda x: x.mul_(0.5), HalfInPlace()])
@pytest.mark.parametrize("images", [torch.ones(2, 3, 4, 4), torch.full((2, 3, 4, 4), 255, dtype=torch.uint8)])
def test_all_views_of_a_sample_come_from_one_image(augmentation, images):
    given = images.clone()
    for view in Views(3, augmentation)(images):
        assert (view == 0.5).all()
    assert torch.equal(images, given)


def test_identical_views_are_reported(tmp_path):
    with pytest.warns(UserWarning, match="views: got 2 without augmentation, so all views of an input are identical"):
        arrays(tmp_path, views=2).setup()
    with pytest.warns(UserWarning, match="augmentation: got one that is not random, so all views"):
        Views(2, v2.Resize(8))(IMAGES)


def test_a_batch_with_repeated_images_is_warned_about(tmp_path):
    data = arrays(tmp_path, batch_size=40)
    data.setup()
    with pytest.warns(
        UserWarning, match="batch_size: got 40, so a balanced batch holds 10 of each class and repeats .*9"
    ):
        data.train_dataloader()


@pytest.mark.filterwarnings("error:batch_size")
def test_a_batch_without_repeated_images_gives_no_warning(tmp_path):
    data = arrays(tmp_path, batch_size=36)
    data.setup()
    data.train_dataloader()


NORMALIZE = v2.Normalize([0.5] * 3, [0.25] * 3)


class Wrapped:
    __slots__ = ("step",)

    def __init__(self, step):
        self.step = step

    def __call__(self, x):
        return self.step(x)

    def run(self, x):
        return self.step(x)


def closed_over(step):
    return lambda x: step(x)


def of_its_own(x):
    return (x - x.mean()) / (x.std() + 1e-6)


NORMALIZED = {
    "alone": NORMALIZE,
    "composed": v2.Compose([v2.RandomResizedCrop(16, antialias=True), v2.ColorJitter(0.8, 0.8, 0.8, 0.2), NORMALIZE]),
    "at times": v2.RandomApply([NORMALIZE]),
    "sequence": nn.Sequential(nn.Identity(), NORMALIZE),
    "slots": Wrapped(NORMALIZE),
    "bound method": Wrapped(NORMALIZE).run,
    "Lambda": v2.Lambda(NORMALIZE),
    "closure": closed_over(NORMALIZE),
    "global object": lambda x: NORMALIZE(x),
    "global function": v2.Lambda(lambda x: v2.functional.normalize(x, [0.5], [0.5])),
    "partial": functools.partial(v2.functional.normalize, mean=[0.5], std=[0.5]),
    "preset of weights": ImageClassification(crop_size=16, resize_size=16),
    "arithmetic": lambda x: 2 * x - 1,
    "mean alone": v2.Normalize([0.5] * 3, [1.0] * 3),
    "scale alone": v2.Normalize([0.0] * 3, [0.3] * 3),
    "each image's own": of_its_own,
    "to 255": lambda x: x * 255,
    "from 255 twice": lambda x: x / 255,
}


@pytest.mark.parametrize("recipe", NORMALIZED)
def test_a_second_normalization_is_refused(tmp_path, recipe):
    message = "augmentation: got means of .* for black, white and noise, expected them in .*; remove the step that norm"
    with pytest.raises(ValueError, match=message) as error:
        arrays(tmp_path, views=2, augmentation=NORMALIZED[recipe]).setup()
    assert "\n" not in str(error.value)


IMAGES_AGAIN = {
    "SimCLR": v2.Compose(
        [
            v2.RandomResizedCrop(16, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.GaussianBlur(5),
        ]
    ),
    "RandAugment": v2.RandAugment(4, magnitude=30),
    "TrivialAugmentWide": v2.TrivialAugmentWide(),
    "noise": v2.GaussianNoise(sigma=0.3, clip=False),
    "erased": v2.RandomErasing(p=1, value="random"),
    "solarized": v2.RandomSolarize(0.5, p=1),
    "padded": v2.RandomCrop(16, padding=4),
    "brightness": lambda x: x * (0.6 + 0.8 * torch.rand(1)),
    "dropout": nn.Dropout(0.3),
    "own range": lambda x: (x - x.min()) / (x.max() - x.min()),
    "bytes": v2.ToDtype(torch.uint8, scale=True),
    "of ours": HalfInPlace(),
}


@pytest.mark.filterwarnings("error:augmentation. got values")
@pytest.mark.parametrize("recipe", [*RECIPES, *IMAGES_AGAIN])
def test_other_recipes_are_accepted_and_draw_nothing_at_setup(tmp_path, recipe):
    data = arrays(tmp_path, augmentation={**RECIPES, **IMAGES_AGAIN}[recipe])
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    data.setup()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states[1:]
    next(iter(data.train_dataloader()))


OF_ANOTHER_SHAPE = {
    "larger crop": (v2.RandomResizedCrop(24, antialias=True), (3, 24, 24)),
    "smaller crop": (v2.CenterCrop(8), (3, 8, 8)),
    "not square": (v2.Resize((16, 12)), (3, 16, 12)),
    "padded": (v2.Pad(2), (3, 20, 20)),
    "gray": (v2.Grayscale(), (1, 16, 16)),
    "flat": (nn.Flatten(0), (768,)),
}


@pytest.mark.parametrize("recipe", OF_ANOTHER_SHAPE)
def test_views_of_another_shape_than_the_images_are_refused(tmp_path, recipe):
    augmentation, shape = OF_ANOTHER_SHAPE[recipe]
    shapes = rf"got views of shape {re.escape(str(shape))} of images \(3, 16, 16\), expected the same"
    with pytest.raises(ValueError, match=f"augmentation: {shapes}") as error:
        arrays(tmp_path, augmentation=augmentation).setup()
    assert "\n" not in str(error.value)


def test_views_of_different_sizes_are_refused_in_one_line():
    with pytest.raises(
        ValueError, match=r"augmentation: got views of the shapes \[\(3, \d+, \d+\), .*, expected the same"
    ):
        Views(1, v2.RandomResize(8, 40))(IMAGES)


def test_digits_also_refuse_a_second_normalization():
    with pytest.raises(ValueError, match="augmentation: got means of -1, 1 and .* for black"):
        DigitsDataModule(views=2, augmentation=v2.Normalize([0.5], [0.5])).setup()


def test_a_hidden_normalization_is_warned_about():
    views = Views(2, lambda x: (x + 0.1 * torch.rand_like(x) - 0.5) / 0.25, torch.zeros(3), torch.ones(3))
    with pytest.warns(UserWarning, match=r"augmentation: got values from -\S+ to \S+ of images in \[0, 1\]"):
        views(IMAGES)


def test_bytes_from_a_recipe_are_scaled_to_0_to_1():
    views = Views(1, v2.ToDtype(torch.uint8, scale=True))
    assert torch.allclose(views(IMAGES), IMAGES / 255)


def test_preprocess_gives_the_images_of_evaluation(tmp_path):
    data = arrays(tmp_path)
    data.setup()
    loader = data.geometry_dataloader()
    x = data._splits["train"].x[: data.batch_size]
    expected = next(iter(loader))[0]
    preprocess = data.preprocess()
    assert torch.allclose(preprocess(x), expected, atol=1e-6)
    assert torch.allclose(preprocess(x.float() / 255), expected, atol=1e-6)
    again = Preprocess(torch.zeros(3), torch.ones(3))
    again.load_state_dict(preprocess.state_dict())
    assert torch.equal(again(x), preprocess(x))
    vectors = Preprocess()
    assert torch.equal(vectors(torch.ones(2, 5)), torch.ones(2, 5))
    assert torch.equal(vectors(torch.ones(2, 5, dtype=torch.int64)), torch.ones(2, 5))
    with pytest.raises(TypeError, match="preprocess: got images in torch.int64, expected torch.uint8, or floats in"):
        preprocess(x.long())
