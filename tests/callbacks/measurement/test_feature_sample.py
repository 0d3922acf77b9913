import pytest
import torch

from nc_lightning.callbacks.measurement.feature_sample import FeatureSample, thumbnails


def stream(sample, z, labels, inputs, size):
    for start in range(0, len(z), size):
        part = slice(start, start + size)
        sample.update(z[part], labels[part], inputs[part])
    return sample


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_first_samples_of_each_class_are_kept_in_any_batching(size):
    z, labels = torch.randn(100, 3), torch.randint(4, (100,))
    sample = stream(FeatureSample(5, 30), z, labels, torch.zeros(100, 1, 2, 2), size)  # class 4 is absent
    kept = [i for i in range(100) if int((labels[:i] == labels[i]).sum()) < 6]
    assert torch.equal(sample.z, z[kept])
    assert torch.equal(sample.labels, labels[kept])
    assert len(sample) == len(kept) == 24


def test_small_classes_are_not_padded():
    labels = torch.tensor([0] * 50 + [1])
    sample = stream(FeatureSample(2, 10), torch.randn(51, 2), labels, torch.zeros(51, 2), 20)
    assert sample.labels.bincount().tolist() == [5, 1]


def test_with_more_classes_than_points_the_first_classes_are_kept():
    sample = stream(FeatureSample(100, 30), torch.randn(100, 2), torch.arange(100), torch.zeros(100, 2), 9)
    assert sample.labels.tolist() == list(range(30))


def test_thumbnails_are_small_squares_with_values_in_0_to_1():
    z, labels = torch.randn(20, 2), torch.arange(20) % 2
    sample = stream(FeatureSample(2, 10), z, labels, 7 + 3 * torch.randn(20, 3, 64, 128), 6)
    assert sample.images.shape == (10, 3, 32, 32)
    assert float(sample.images.min()) == 0.0
    assert float(sample.images.max()) == 1.0


@pytest.mark.parametrize("shape", [(8,), (5, 9, 9), (2, 2, 2, 2)])
def test_inputs_that_are_not_images_have_no_thumbnail(shape):
    sample = stream(FeatureSample(2, 4), torch.randn(6, 2), torch.arange(6) % 2, torch.randn(6, *shape), 3)
    assert sample.images is None


def test_bytes_and_half_precision_images_get_thumbnails():
    for dtype in (torch.uint8, torch.float16):
        assert thumbnails(torch.ones(2, 1, 40, 20).to(dtype)).dtype == torch.float32


def test_a_thumbnail_is_padded_evenly():
    image = thumbnails(torch.stack([torch.ones(1, 8, 4), torch.zeros(1, 8, 4)]))
    assert image.shape == (2, 1, 8, 8)
    assert image[0, 0, 0].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="max_points: got 0"):
        FeatureSample(3, 0)
    with pytest.raises(ValueError, match="num_classes: got 0"):
        FeatureSample(0, 3)
