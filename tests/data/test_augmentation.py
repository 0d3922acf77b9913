import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from nc_lightning.data.augmentation import (
    GREY,
    SimCLR,
    _constants,
    _rotation,
    blur_matrix,
    draw_colours,
    draw_crops,
    resize_matrix,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@given(st.integers(2, 24), st.integers(2, 24), st.data())
def test_a_crop_is_torchvisions(height, width, data):
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
    x = torch.rand(3, height, width, generator=generator())
    rows = resize_matrix(torch.tensor([float(top)]), torch.tensor([float(h)]), height)[0]
    columns = resize_matrix(torch.tensor([float(left)]), torch.tensor([float(w)]), width)[0]
    expected = tv.resized_crop(x, top, left, h, w, [height, width], antialias=True)
    assert torch.allclose(rows @ x @ columns.T, expected, atol=1e-5)


def test_crops_are_drawn_as_by_torchvision():
    from torchvision.transforms.v2 import RandomResizedCrop

    count = 4000
    crops = draw_crops(count, 32, 24, 0.2, generator())
    assert (crops.top >= 0).all()
    assert (crops.left >= 0).all()
    assert (crops.top + crops.height <= 32).all()
    assert (crops.left + crops.width <= 24).all()
    transform = RandomResizedCrop((32, 24), scale=(0.2, 1.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        draw = getattr(transform, "make_params", None) or transform._get_params  # before torchvision 0.21
        drawn = [draw([torch.empty(3, 32, 24)]) for _ in range(count)]
    for key in ("top", "left", "height", "width"):
        ours, theirs = getattr(crops, key), torch.tensor([float(d[key]) for d in drawn])
        assert abs(ours.mean() - theirs.mean()) < 5 * (ours.var() / count + theirs.var() / count).sqrt()
        assert ours.std() == pytest.approx(float(theirs.std()), rel=0.1)


def test_a_blur_is_torchvisions_away_from_the_border():
    x = torch.rand(1, 21, 21, generator=generator())
    matrix = blur_matrix(torch.tensor([1.5]), 21)[0]
    expected = tv.gaussian_blur(x, [21, 21], [1.5, 1.5])
    assert torch.allclose((matrix @ x @ matrix.T)[:, 10, 10], expected[:, 10, 10], atol=1e-4)
    assert torch.equal(blur_matrix(torch.tensor([0.0]), 5)[0], torch.eye(5))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_colours_change_as_in_torchvision(monkeypatch, order):
    x = 0.4 + 0.2 * torch.rand(3, 9, 9, generator=generator())  # nothing is clamped on the way
    factor = [0.7, 1.3, 0.6]
    change = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation]
    expected = x
    for which in order:
        expected = change[which](expected, factor[which])
    drawn = [(f - 1) / 0.8 / 2 + 0.5 for f in factor] + [0.5]  # no turn of hue
    position = [float(order.index(which)) for which in range(3)] + [3.0]
    draws = [torch.tensor(drawn[:3]).view(3, 1, 1, 1), torch.tensor(drawn[3:]), torch.tensor([position])]
    draws += [torch.tensor([0.0]), torch.tensor([0.9])]
    monkeypatch.setattr(torch, "rand", lambda *shape, **kwargs: draws.pop(0))
    matrix, offset = draw_colours(x.mean((1, 2))[None], strength=1.0)
    assert not draws
    ours = (matrix[0] @ x.flatten(1) + offset[0][:, None]).view_as(x)
    assert torch.allclose(ours, expected, atol=2e-3)  # torchvision rounds the weights of grey


def test_turning_the_hue_keeps_luma_and_saturation_and_turns_back():
    grey, turn_to, turn_back = _constants(3, torch.empty(1))
    assert grey.tolist() == pytest.approx(GREY)
    turn = turn_back @ _rotation(torch.tensor([0.3])) @ turn_to
    back = turn_back @ _rotation(torch.tensor([-0.3])) @ turn_to
    colour = torch.rand(3, 50, generator=generator())
    turned = turn[0] @ colour
    assert torch.allclose(grey @ turned, grey @ colour, atol=1e-5)
    assert torch.allclose((turn_to @ turned)[1:].norm(dim=0), (turn_to @ colour)[1:].norm(dim=0), atol=1e-5)
    assert torch.allclose(back[0] @ turned, colour, atol=1e-5)


def test_frequencies_of_jitter_and_grey():
    x = torch.rand(1, 3, 8, 8, generator=generator()).expand(4000, 3, 8, 8).contiguous()
    matrix, _ = draw_colours(x.mean((2, 3)), 0.5, generator())
    eye = (matrix - torch.eye(3)).abs().amax((1, 2)) < 1e-6
    lost = (matrix - matrix[:, :1]).abs().amax((1, 2)) < 1e-6
    assert eye.float().mean() == pytest.approx(0.2 * 0.8, abs=0.02)
    assert lost.float().mean() == pytest.approx(0.2, abs=0.02)


def test_each_image_has_its_own_and_a_seed_decides():
    x = torch.rand(1, 3, 16, 16, generator=generator()).expand(64, 3, 16, 16)
    augment = SimCLR(blur=0.5)
    views = augment(x, generator(1))
    assert views.min() >= 0
    assert views.max() <= 1
    assert len({tuple(view.flatten().tolist()) for view in views}) == 64
    assert torch.equal(views, augment(x, generator(1)))
    assert not torch.equal(views, augment(x, generator(2)))


def test_a_flip_of_the_whole_image():
    x = torch.rand(9, 3, 5, 5, generator=generator())
    crops = draw_crops(9, 5, 5, 1.0, generator())
    whole = (crops.height == 5) & (crops.width == 5)
    assert whole.any()
    views = SimCLR(strength=0, smallest_crop=1.0, flip=1)(x, generator())
    assert torch.allclose(views[whole], x[whole].flip(3), atol=1e-6)


def test_grey_images():
    x = torch.rand(6, 1, 8, 8, generator=generator())
    assert SimCLR(strength=1.0)(x, generator()).shape == x.shape


def test_bad_arguments():
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
