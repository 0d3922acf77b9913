import pytest
import torch

from nc_lightning.data import DigitPairsDataModule, DigitsDataModule, LatentClassDataModule, SimCLR, load_digits

MODULES = [
    DigitsDataModule,
    lambda **kwargs: DigitPairsDataModule(pairs_per_class=10, **kwargs),
    lambda **kwargs: LatentClassDataModule(num_classes=7, **kwargs),
]


def epoch(loader):
    x, labels = zip(*loader, strict=True)
    return torch.cat(x), torch.cat(labels)


@pytest.mark.parametrize("make", MODULES)
def test_shapes_are_known_before_setup_and_correct(make):
    data = make()
    num_classes, input_shape = data.num_classes, data.input_shape
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader(), data.geometry_dataloader()):
        x, labels = epoch(loader)
        assert x.shape[1:] == input_shape
        assert x.dtype == torch.float32
        assert set(labels.tolist()) == set(range(num_classes))


@pytest.mark.parametrize("make", MODULES)
def test_the_seed_decides_the_data_and_the_global_generator_does_not(make):
    first, second, other = make(seed=3), make(seed=3), make(seed=4)
    for index, data in enumerate((first, second, other)):
        torch.manual_seed(index)
        data.setup()
    for name in ("train_dataloader", "val_dataloader", "geometry_dataloader"):
        a, b, c = (epoch(getattr(data, name)())[0] for data in (first, second, other))
        assert torch.equal(a, b)
        assert a.shape != c.shape or not torch.equal(a, c)


@pytest.mark.parametrize("make", MODULES)
def test_evaluation_has_a_fixed_order_and_training_is_balanced(make):
    data = make()
    data.setup()
    for name in ("val_dataloader", "test_dataloader", "geometry_dataloader", "predict_dataloader"):
        loader = getattr(data, name)()
        assert torch.equal(epoch(loader)[0], epoch(loader)[0])
    for _, labels in data.train_dataloader():
        assert labels.bincount().unique().numel() == 1


def test_random_batches_are_not_balanced():
    data = DigitsDataModule(batches="random", batch_size=100)
    data.setup()
    counts = [labels.bincount(minlength=10) for _, labels in data.train_dataloader()]
    assert any(c.unique().numel() > 1 for c in counts)


@pytest.mark.parametrize("make", MODULES[:2])
def test_digits_have_views_only_in_training(make):
    mild = SimCLR(strength=0.2, flip=0.0, smallest_crop=1.0)
    plain, data = make(batch_size=200), make(batch_size=200, views=2, augmentation=mild)
    plain.setup()
    data.setup()
    (image, labels), ((first, second), same_labels) = (next(iter(d.train_dataloader())) for d in (plain, data))
    assert torch.equal(labels, same_labels)
    assert first.shape == second.shape == image.shape
    assert not torch.equal(first, second)
    nearest = torch.cdist(first.flatten(1), image.flatten(1)).argmin(1)
    assert (nearest == torch.arange(len(image))).float().mean() > 0.9, "a view comes from its own image"
    for name in ("geometry_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"):
        assert torch.equal(*(epoch(getattr(d, name)())[0] for d in (plain, data)))


def test_digits_splits_are_disjoint_and_complete():
    images, _ = load_digits()
    data = DigitsDataModule()
    data.setup()
    loaders = (data.geometry_dataloader(), data.val_dataloader(), data.test_dataloader())
    rows = [tuple(image.flatten().tolist()) for loader in loaders for image in epoch(loader)[0]]
    assert sorted(rows) == sorted(tuple(image.flatten().tolist()) for image in images)


def test_held_out_pairs_share_no_digit_with_training():
    data = DigitPairsDataModule(pairs_per_class=20)
    data.setup()

    def digits(loader):
        x, _ = epoch(loader)
        return {tuple(half.flatten().tolist()) for half in torch.cat([x[..., :8], x[..., 8:]])}

    train, val, test = (
        digits(loader()) for loader in (data.geometry_dataloader, data.val_dataloader, data.test_dataloader)
    )
    assert not train & val
    assert not train & test
    assert not val & test


def test_the_class_of_a_pair_is_its_number():
    images, labels = load_digits()
    label_of = {tuple(image.flatten().tolist()): int(label) for image, label in zip(images, labels, strict=True)}
    data = DigitPairsDataModule(pairs_per_class=5)
    data.setup()
    for x, number in zip(*epoch(data.geometry_dataloader()), strict=True):
        left, right = (label_of[tuple(half.flatten().tolist())] for half in (x[..., :8], x[..., 8:]))
        assert 10 * left + right == number


def test_unbalanced_pairs_have_fewer_of_the_numbers_from_10():
    balanced, data = DigitPairsDataModule(pairs_per_class=20), DigitPairsDataModule(pairs_per_class=20, imbalance=5)
    for module in (balanced, data):
        module.setup()
    assert epoch(balanced.geometry_dataloader())[1].bincount().tolist() == [20] * 100
    assert epoch(data.geometry_dataloader())[1].bincount().tolist() == [20] * 10 + [4] * 90
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert epoch(loader)[1].bincount().tolist() == [1] * 100
    extreme = DigitPairsDataModule(pairs_per_class=20, imbalance=100)
    extreme.setup()
    assert epoch(extreme.geometry_dataloader())[1].bincount().tolist() == [20] * 10 + [2] * 90


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DigitsDataModule(batch_size=0), "batch_size: got 0"),
        (lambda: DigitsDataModule(batches="sorted"), "batches: got 'sorted', expected one of balanced, random"),
        (lambda: DigitsDataModule(seed=-1), "seed: got -1"),
        (lambda: DigitsDataModule(views=0), "views: got 0"),
        (lambda: DigitPairsDataModule(pairs_per_class=1), "pairs_per_class: got 1"),
        (lambda: DigitPairsDataModule(imbalance=0.5), "imbalance: got 0.5, expected a finite number >= 1"),
        (lambda: LatentClassDataModule(num_classes=1), "num_classes: got 1"),
        (lambda: LatentClassDataModule(noise=-1.0), "noise: got -1.0"),
        (lambda: LatentClassDataModule(input_dim=0), "input_dim: got 0"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_digits_take_some_classes_per_batch_as_all_data_does():
    data = DigitPairsDataModule(pairs_per_class=10, batch_size=40, classes_per_batch=20)
    data.setup()
    assert all(len(labels.unique()) == 20 for _, labels in data.train_dataloader())
