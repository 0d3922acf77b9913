import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from nc_lightning.data.augmentation import (
    GRAY,
    NO_BLUR,
    TRIES,
    Crops,
    SimCLR,
    blur_matrix,
    mix_colors,
    place_crops,
    resize_matrices,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def crops_of(count, height, width, smallest):
    return place_crops(torch.rand(2 * TRIES + 2, count, generator=generator()), height, width, smallest)


@given(st.integers(2, 24), st.integers(2, 24), st.data())
def test_a_crop_equals_that_of_torchvision(height, width, data):
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
    x = torch.rand(3, height, width, generator=generator())
    crops = Crops(torch.tensor([[float(top)], [float(left)]]), torch.tensor([[float(h)], [float(w)]]))
    flipped = torch.tensor([[data.draw(st.booleans())], [data.draw(st.booleans())]])
    rows, columns = resize_matrices(crops, height, width, flipped)
    expected = tv.resized_crop(x, top, left, h, w, [height, width], antialias=True)
    expected = expected.flip([dim for dim in (1, 2) if flipped[dim - 1]])
    assert torch.allclose(rows[0] @ x @ columns[0].T, expected, atol=1e-5)


def test_crops_are_drawn_from_the_distribution_of_torchvision():
    from torchvision.transforms.v2 import RandomResizedCrop

    count = 4000
    crops = crops_of(count, 32, 24, 0.2)
    assert (crops.start >= 0).all()
    assert (crops.start[0] + crops.size[0] <= 32).all()
    assert (crops.start[1] + crops.size[1] <= 24).all()
    transform = RandomResizedCrop((32, 24), scale=(0.2, 1.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = getattr(transform, "make_params", None) or transform._get_params  # before torchvision 0.21
        drawn = [draw([torch.empty(3, 32, 24)]) for _ in range(count)]
    for key, ours in zip(("top", "left", "height", "width"), (*crops.start, *crops.size), strict=True):
        theirs = torch.tensor([float(d[key]) for d in drawn])
        assert abs(ours.mean() - theirs.mean()) < 5 * (ours.var() / count + theirs.var() / count).sqrt()
        assert ours.std() == pytest.approx(float(theirs.std()), rel=0.1)


def test_a_blur_equals_that_of_torchvision_except_at_the_border():
    x = torch.rand(1, 21, 21, generator=generator())
    matrix = blur_matrix(torch.tensor([1.5]), 21)[0]
    expected = tv.gaussian_blur(x, [21, 21], [1.5, 1.5])
    assert torch.allclose((matrix @ x @ matrix.T)[:, 10, 10], expected[:, 10, 10], atol=1e-4)
    assert torch.equal(blur_matrix(torch.tensor([NO_BLUR]), 5)[0], torch.eye(5))


def drawn_for(strength, factors, turn=0.0, change=0.0, keep=0.9):
    """Return the uniform numbers that give these brightness, contrast, saturation and hue changes for one image."""
    strengths = [(f - 1) / (0.8 * strength) / 2 + 0.5 for f in factors] + [turn / (0.2 * strength) / 2 + 0.5]
    return torch.tensor([*strengths, 0.0, 0.0, 0.0, 0.0, change, keep])[:, None]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_color_jitter_equals_that_of_torchvision_in_any_order(order):
    x = 0.4 + 0.2 * torch.rand(3, 9, 9, generator=generator())  # nothing is clamped on the way
    factor = [0.7, 1.3, 0.6]
    change = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation]
    expected = x
    for which in order:
        expected = change[which](expected, factor[which])
    matrix, offset = mix_colors(drawn_for(1.0, factor), x.mean((1, 2))[None], strength=1.0)
    ours = (matrix[0] @ x.flatten(1) + offset[0][:, None]).view_as(x)
    assert torch.allclose(ours, expected, atol=2e-3)  # torchvision rounds the weights of the gray conversion


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_color_changes_does_not_matter(order):
    """The slow reference: each change is a separate step, with the hue rotated in YIQ."""
    brightness, contrast, saturation, turn = 0.7, 1.3, 0.6, 0.1
    x = torch.rand(3, 50, dtype=torch.float64, generator=generator())
    gray = torch.tensor(GRAY, dtype=torch.float64)
    yiq = torch.stack([gray, *torch.tensor([(0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], dtype=torch.float64)])
    angle = torch.tensor(2 * math.pi * turn, dtype=torch.float64)
    rotation = torch.eye(3, dtype=torch.float64)
    rotation[1:, 1:] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    steps = [
        lambda c: brightness * c,
        lambda c: contrast * c + (1 - contrast) * (gray @ c).mean(),
        lambda c: saturation * c + (1 - saturation) * (gray @ c),
        lambda c: torch.linalg.inv(yiq) @ rotation @ yiq @ c,
    ]
    expected = x
    for which in order:
        expected = steps[which](expected)
    uniform = drawn_for(1.0, (brightness, contrast, saturation), turn)
    matrix, offset = mix_colors(uniform, x.mean(1)[None].float(), strength=1.0)
    assert torch.allclose(matrix[0].double() @ x + offset[0].double(), expected, atol=1e-5)


def test_unjittered_images_keep_their_colors_and_grayscale_loses_them():
    mean = torch.rand(1, 3, generator=generator())
    kept = mix_colors(drawn_for(1.0, (0.7, 1.3, 0.6), 0.1, change=0.9), mean, strength=1.0)
    assert torch.equal(kept[0][0], torch.eye(3))
    assert kept[1].item() == 0
    lost = mix_colors(drawn_for(1.0, (0.7, 1.3, 0.6), 0.1, keep=0.1), mean, strength=1.0)
    assert torch.allclose(lost[0][0], 0.7 * 1.3 * torch.tensor(GRAY).expand(3, 3))


def test_turning_the_hue_keeps_luma_and_saturation_and_is_reversible():
    def turned_by(turn, color):
        return mix_colors(drawn_for(1.0, (1.0, 1.0, 1.0), turn), torch.rand(1, 3), strength=1.0)[0][0] @ color

    gray = torch.tensor(GRAY)
    color = torch.rand(3, 50, generator=generator())
    turned = turned_by(0.15, color)
    assert not torch.allclose(turned, color, atol=0.1)
    assert torch.allclose(gray @ turned, gray @ color, atol=1e-5)
    chroma = torch.tensor([(0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    assert torch.allclose((chroma @ turned).norm(dim=0), (chroma @ color).norm(dim=0), atol=1e-5)
    assert torch.allclose(turned_by(-0.15, turned), color, atol=1e-5)


def test_jitter_and_grayscale_have_the_configured_frequencies():
    matrix, _ = mix_colors(torch.rand(10, 4000, generator=generator()), torch.rand(4000, 3), 0.5)
    eye = (matrix - torch.eye(3)).abs().amax((1, 2)) < 1e-6
    lost = (matrix - matrix[:, :1]).abs().amax((1, 2)) < 1e-6
    assert eye.float().mean() == pytest.approx(0.2 * 0.8, abs=0.02)
    assert lost.float().mean() == pytest.approx(0.2, abs=0.02)


def test_each_image_has_its_own_parameters_and_the_seed_decides_them():
    x = torch.rand(1, 3, 16, 16, generator=generator()).expand(64, 3, 16, 16)
    augment = SimCLR(blur=0.5)
    views = augment(x, generator(1))
    assert views.min() >= 0
    assert views.max() <= 1
    assert len({tuple(view.flatten().tolist()) for view in views}) == 64
    assert torch.equal(views, augment(x, generator(1)))
    assert not torch.equal(views, augment(x, generator(2)))


def test_a_flip_mirrors_the_whole_image():
    x = torch.rand(9, 3, 5, 5, generator=generator())
    uniform = torch.rand(2 * TRIES + 3, 9, generator=generator())
    whole = (place_crops(uniform[:-1], 5, 5, 1.0).size == 5).all(0)
    assert whole.any()
    views = SimCLR(strength=0, smallest_crop=1.0, flip=1)(x, generator())
    assert torch.allclose(views[whole], x[whole].flip(3), atol=1e-6)


def test_gray_images_can_be_augmented():
    x = torch.rand(6, 1, 8, 8, generator=generator())
    assert SimCLR(strength=1.0)(x, generator()).shape == x.shape


def test_bad_arguments_are_refused():
    for arguments, message in (
        ({"strength": -1}, "strength: got -1"),
        ({"strength": 2}, "strength: got 2, expected at most 1.25"),
        ({"smallest_crop": 0}, "smallest_crop: got 0"),
        ({"flip": 1.5}, "flip: got 1.5, expected at most 1"),
    ):
        with pytest.raises(ValueError, match=message):
            SimCLR(**arguments)
    with pytest.raises(ValueError, match=r"augmentation: got inputs \(4, 32\), expected images"):
        SimCLR()(torch.rand(4, 32))
