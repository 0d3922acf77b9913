"""Views and batches on the device equal those on the CPU and need no host wait and few kernels."""

import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from nc_lightning import data as data_modules
from nc_lightning.data import SimCLR, concatenate_views
from nc_lightning.data.loader import BatchLoader, LabeledTensors
from nc_lightning.data.sources import tiny_imagenet, torchvision_sets
from nc_lightning.data.views import Views
from tests.on_both import on_both
from tests.pretend_device import DEVICE, NAME, Backend, Generator, Machine

RNG = np.random.default_rng(0)
IMAGES = torch.from_numpy(RNG.integers(0, 256, (12, 3, 16, 16), dtype=np.uint8))
RECIPES = {
    "none": None,
    "SimCLR": SimCLR(),
    "blurred": SimCLR(strength=1.0, blur=0.5),
    "unchanged colors": SimCLR(strength=0),
    "torchvision": v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(11)]),
}


def views_of(recipe, channels=3, count=2):
    return Views(count, RECIPES[recipe], torch.full((channels,), 0.5), torch.full((channels,), 0.2))


@pytest.mark.parametrize("size", [(16, 16), (16, 12)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("recipe", RECIPES)
def test_views_equal_those_of_the_cpu(recipe, channels, size):
    views = views_of(recipe, channels)
    x = IMAGES[:, :channels, : size[0], : size[1]]

    def make(x):
        return list(views(x, torch.Generator(x.device).manual_seed(1)))

    (cpu, device), _ = on_both(lambda: make, x, gradient=False)
    torch.testing.assert_close(device, cpu, rtol=0, atol=0)
    if recipe != "none":
        assert not torch.equal(cpu[0], cpu[1])


# Kernels for a view of square images, two of them for standardization; two more per batch convert bytes to float.
MOST_KERNELS = {"none": 2, "unchanged colors": 38, "SimCLR": 54, "blurred": 62}


@pytest.mark.parametrize("recipe", MOST_KERNELS)
def test_a_view_needs_no_synchronization_and_few_kernels(recipe):
    views = views_of(recipe)
    with Machine() as machine:
        x = IMAGES.to(NAME)
        for machine.phase in ("first", "later"):
            views(x, Generator(NAME).manual_seed(1))
    assert machine.waits_in("later") == {}
    assert machine.launches_in("later") <= 2 + 2 * MOST_KERNELS[recipe]


def test_the_random_generators_are_restored_after_transforms(monkeypatch):
    drawn = []
    monkeypatch.setattr(Backend, "get_rng_state", staticmethod(lambda device=None: drawn.append(device) or "before"))
    monkeypatch.setattr(
        Backend, "set_rng_state", staticmethod(lambda state, device=None: drawn.append((state, device)))
    )
    before = torch.get_rng_state()
    with Machine():
        views_of("torchvision", count=1)(IMAGES.to(NAME))
    assert drawn == [DEVICE, ("before", DEVICE)]
    assert torch.equal(torch.get_rng_state(), before)


def test_views_share_one_tensor():
    def make(x, labels):
        return concatenate_views(((x, x + 1), labels))

    (cpu, device), machine = on_both(lambda: make, torch.rand(4, 2), torch.arange(4), gradient=False)
    torch.testing.assert_close(device, cpu, rtol=0, atol=0)
    assert machine.waits_in("call") == {}


# --------------------------------------------------------------------------------------------------------- data modules


def arrays(tmp_path, **kwargs):
    x, y = RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez(tmp_path / "images.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return data_modules.ArrayDataModule(str(tmp_path / "images.npz"), **kwargs)


def vectors(tmp_path, **kwargs):
    x, y = RNG.standard_normal((40, 7)), np.arange(40) % 4
    np.savez(tmp_path / "vectors.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return data_modules.ArrayDataModule(str(tmp_path / "vectors.npz"), **kwargs | {"views": 1, "augmentation": None})


def draw_images(folder, names, count=10, side=8):
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8))
            image.save(folder / name / f"{i}.png")


def folders(tmp_path, **kwargs):
    draw_images(tmp_path / "tree", "abcd")
    return data_modules.ImageFolderDataModule(str(tmp_path / "tree"), **kwargs)


def hugging_face(tmp_path, **kwargs):
    import datasets

    images = [Image.fromarray(image) for image in RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)]
    classes = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))})
    table = datasets.Dataset.from_dict({"image": images, "label": [i % 4 for i in range(40)]}, features=classes)
    table.save_to_disk(str(tmp_path / "saved"))
    return data_modules.HuggingFaceDataModule(str(tmp_path / "saved"), **kwargs)


def shards(tmp_path, **kwargs):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for i, pixels in enumerate(RNG.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)):
            Image.fromarray(pixels).save(tmp_path / "image.png")
            (tmp_path / "label").write_text(str(i % 4))
            archive.add(tmp_path / "image.png", f"{i}.png")
            archive.add(tmp_path / "label", f"{i}.cls")
    return data_modules.WebDatasetDataModule(str(tmp_path), **kwargs)


def unlabeled(tmp_path, **kwargs):
    draw_images(tmp_path / "tree", "a", 24)
    return data_modules.ImageFolderDataModule(str(tmp_path / "tree"), labels="none", **kwargs | {"batches": "random"})


def tiny(tmp_path, **kwargs):
    place = tmp_path / "tiny-imagenet-200"
    draw_images(place / "train", "abcd", 7, side=64)
    draw_images(place / "val", ["images"], 4, side=64)
    (place / "val" / "val_annotations.txt").write_text("".join(f"{i}.png\t{'abcd'[i]}\t0\n" for i in range(4)))
    return data_modules.TinyImageNetDataModule(str(tmp_path), **kwargs)


def of_torchvision(name):
    """A torchvision data set with 9 images of each of four classes."""

    def make(tmp_path, **kwargs):
        cls = getattr(data_modules, name)
        channels, height, width = cls.input_shape
        y = np.arange(36) % 4
        x = RNG.integers(0, 256, (36, height, width, channels), dtype=np.uint8)
        x = x.transpose(0, 3, 1, 2).copy() if name == "STL10DataModule" else x[..., 0] if channels == 1 else x
        found = SimpleNamespace(data=torch.from_numpy(x) if channels == 1 else x, targets=y.tolist(), labels=y)
        module = type(name, (cls,), {"_open": lambda self, train: found})(str(tmp_path), **kwargs, classes=[0, 1, 2, 3])
        (tmp_path / cls.folder).mkdir(parents=True)
        return module

    return make


SETS_OF_TORCHVISION = [cls.__name__ for cls in torchvision_sets.TorchvisionDataModule.__subclasses__()]
CACHED = {
    "ArrayDataModule": arrays,
    "vectors": vectors,
    "ImageFolderDataModule": folders,
    "unlabeled": unlabeled,
    "WebDatasetDataModule": shards,
    "HuggingFaceDataModule": hugging_face,
    "TinyImageNetDataModule": tiny,
    **{name: of_torchvision(name) for name in data_modules.__all__ if name in SETS_OF_TORCHVISION},
}
OTHERS = {
    "DigitsDataModule": lambda _, **kwargs: data_modules.DigitsDataModule(**kwargs | {"batch_size": 500}),
    "DigitPairsDataModule": lambda _, **kwargs: data_modules.DigitPairsDataModule(
        **kwargs | {"batch_size": 500, "pairs_per_class": 10}
    ),
    "LatentClassDataModule": lambda _, **kwargs: data_modules.LatentClassDataModule(batch_size=80),
}


@pytest.fixture(autouse=True)
def _four_classes(monkeypatch):
    monkeypatch.setattr(tiny_imagenet, "NUM_CLASSES", 4)


def attach(module, device):
    """Attach a trainer, which determines the device of training."""
    place = DEVICE if device == NAME else torch.device(device)
    module.trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=place), overfit_batches=0, state=SimpleNamespace(status=None)
    )
    return module


def batches(module, machine):
    """All tensors of two training epochs and of two passes over the other sets."""
    module.setup()
    flat, train = [], module.train_dataloader()
    others = [getattr(module, f"{name}_dataloader")() for name in ("geometry", "val", "test")]
    for machine.phase in ("first", "later"):
        train.sampler.set_epoch(machine.phase == "later")
        for loader in (train, *others):
            for x, labels in loader:
                flat += [x, labels] if isinstance(x, torch.Tensor) else [*x, labels]
    machine.phase = ""
    return flat


def test_every_data_module_is_tested_on_the_device():
    names = {name for name in data_modules.__all__ if name.endswith("DataModule")}
    assert names <= {*CACHED, *OTHERS}


MODULES = [(name, cache) for name in CACHED for cache in ("ram", "device")] + [(name, None) for name in OTHERS]


@pytest.mark.parametrize(("name", "cache"), MODULES)
def test_batches_equal_those_of_the_cpu(tmp_path, name, cache):
    flat = {}
    for device in ("cpu", NAME):
        RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
        make = {**CACHED, **OTHERS}[name]
        options = {"cache": cache} if cache else {}
        with Machine() as machine:
            place = tmp_path / device
            place.mkdir()
            module = attach(make(place, views=2, augmentation=SimCLR(), batch_size=20, **options), device)
            flat[device] = batches(module, machine)
            if device == NAME and cache == "device":
                assert all(split.x.device == split.labels.device == DEVICE for split in module._splits.values())
            flat[device] = [(t.device.type, t.cpu()) for t in flat[device]]
    assert {place for place, _ in flat[NAME]} == {NAME}
    assert len(flat["cpu"]) > 8
    torch.testing.assert_close([t for _, t in flat[NAME]], [t for _, t in flat["cpu"]], rtol=0, atol=0)
    assert machine.waits_in("later") == {}


def test_files_may_be_decoded_by_workers(tmp_path):
    draw_images(tmp_path, "abcd")
    seen = []
    for device in ("cpu", NAME):
        with Machine() as machine:
            module = data_modules.ImageFolderDataModule(str(tmp_path), cache="none", num_workers=1, batch_size=8)
            seen.append([t.cpu() for t in batches(attach(module, device), machine)])
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=0)


def test_large_batches_are_copied_from_pinned_memory():
    dataset = LabeledTensors(torch.zeros(64, 3, 32, 32), torch.zeros(64, dtype=torch.int64))
    with Machine() as machine:
        loader = BatchLoader(dataset, [list(range(64))], Views(), NAME)
        machine.phase = "epoch"
        next(iter(loader))
    assert machine.waits_in("epoch") == {}


# -------------------------------------------------------------------------------------------- a cache that does not fit


@pytest.mark.parametrize("name", CACHED)
def test_a_cache_that_does_not_fit_is_refused_before_reading(tmp_path, name, monkeypatch):
    with Machine():
        module = attach(CACHED[name](tmp_path, cache="device"), NAME)
        needed = module.num_bytes()
        if name not in SETS_OF_TORCHVISION:  # these stand-ins have fewer images than the real sets
            assert needed == sum(split.x.nbytes for split in module.read().values())
        monkeypatch.setattr(Backend, "memory", needed - 1)
        expected = r"^cache: got device for [\d,]+ MiB of images, expected at most [\d,]+ MiB, as is free on pretend:0"
        with monkeypatch.context() as unread:
            unread.setattr(module, "read", lambda: pytest.fail("read"))
            with pytest.raises(ValueError, match=expected):
                module.setup()
        monkeypatch.setattr(Backend, "memory", needed)
        module.setup()


def test_a_set_used_for_two_splits_is_cached_once(tmp_path, monkeypatch):
    with Machine():
        module = attach(arrays(tmp_path, cache="device", val_share=0.0), NAME)
        monkeypatch.setattr(Backend, "memory", module.num_bytes())
        module.setup()
        assert module._splits["val"] is module._splits["test"]


def test_sets_of_unknown_size_are_checked_after_reading(tmp_path, monkeypatch):
    with Machine():
        module = attach(arrays(tmp_path, cache="device"), NAME)
        needed = module.num_bytes()
        monkeypatch.setattr(module, "num_bytes", lambda: 0)
        monkeypatch.setattr(Backend, "memory", needed - 1)
        with pytest.raises(ValueError, match="^cache: got device for"):
            module.setup()


@pytest.mark.parametrize("name", ["ArrayDataModule", "ImageFolderDataModule"])
def test_only_chosen_classes_have_to_fit(tmp_path, name):
    module = CACHED[name](tmp_path, cache="device", classes=[1, 3] if name == "ArrayDataModule" else ["b", "d"])
    half = module.num_bytes()
    assert half == sum(module._chosen(split).x.nbytes for split in module.read().values())


@pytest.mark.parametrize(("name", "images"), [("CIFAR100DataModule", 60_000), ("FashionMNISTDataModule", 70_000)])
def test_sets_of_known_size_give_their_size_in_bytes(name, images):
    module = getattr(data_modules, name)()
    size = images * np.prod(module.input_shape)
    assert module.num_bytes() == size
    assert getattr(data_modules, name)(classes=[0, 1]).num_bytes() == 2 * size // len(module.names)


def test_a_device_without_memory_information_is_not_checked(tmp_path, monkeypatch):
    monkeypatch.delattr(Backend, "mem_get_info")
    with Machine():
        attach(arrays(tmp_path, cache="device"), NAME).setup()
    attach(vectors(tmp_path, cache="device"), "cpu").setup()
