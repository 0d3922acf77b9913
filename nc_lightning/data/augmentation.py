"""SimCLR's augmentation on whole batches: one crop, flip, blur and change of colour for each image, drawn at once.

All of it is linear in the image but the last step, a clamp. A crop with its resize, a flip and a blur are one matrix
for the rows and one for the columns; any sequence of colour changes is one 3x3 matrix and an offset. So a batch takes
three batched matrix products, whatever was drawn.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.geometry.checks import check_number

GREY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""
TRIES = 10
"""How often a crop that does not fit is drawn again before the whole image is taken."""


class SimCLR:
    """SimCLR's recipe: a random crop, resized back, a flip, then colours changed, or lost; a blur if asked for.

    As in torchvision, each image draws area, aspect ratio and place of its crop, the order and the strength of
    brightness, contrast, saturation and hue. Unlike there, colours are clamped once, at the end, and hue is turned in
    the YIQ plane instead of HSV (as NVIDIA DALI does). Grey images have brightness and contrast changed alone.

    Args:
        strength: Of the change of colours; 0.5 is SimCLR's for CIFAR, 1 for ImageNet, 0 for none.
        smallest_crop: Smallest share of the image's area in a crop, in (0, 1].
        flip: Probability of a horizontal flip.
        blur: Probability of a Gaussian blur with a standard deviation of 0.1 to 2 pixels; SimCLR has 0.5 for ImageNet
            and none for CIFAR.

    Shape:
        (N, 1 or 3, H, W) float in [0, 1] -> the same

    Raises:
        ValueError: If an argument is out of its range, or the images are not of such a shape.

    Source:
        Chen, Kornblith, Norouzi, Hinton (2020), A simple framework for contrastive learning of visual representations,
        appendix A.

    Example:
        >>> augment = SimCLR(strength=0.5)
        >>> augment(torch.rand(4, 3, 32, 32), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(self, strength: float = 0.5, smallest_crop: float = 0.2, flip: float = 0.5, blur: float = 0.0) -> None:
        check_number("strength", strength, at_least=0)
        check_number("smallest_crop", smallest_crop, above=0)
        check_number("flip", flip, at_least=0)
        check_number("blur", blur, at_least=0)
        if strength > 1.25:
            raise ValueError(f"strength: got {strength}, expected at most 1.25, where brightness may reach 0")
        for name, value in (("smallest_crop", smallest_crop), ("flip", flip), ("blur", blur)):
            if value > 1:
                raise ValueError(f"{name}: got {value}, expected at most 1")
        self.strength = strength
        self.smallest_crop = smallest_crop
        self.flip = flip
        self.blur = blur

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment a batch; the generator is on the device of the images."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"augmentation: got inputs {tuple(x.shape)}, expected images (N, 1 or 3, H, W)")
        count, channels, height, width = x.shape
        crop = draw_crops(count, height, width, self.smallest_crop, generator, x.device)
        rows = resize_matrix(crop.top, crop.height, height)
        columns = resize_matrix(crop.left, crop.width, width)
        flipped = torch.rand(count, generator=generator, device=x.device) < self.flip
        columns = torch.where(flipped[:, None, None], columns.flip(1), columns)
        if self.blur > 0:
            sigma = 0.1 + 1.9 * torch.rand(count, generator=generator, device=x.device)
            left_out = torch.rand(count, generator=generator, device=x.device) >= self.blur
            sigma = sigma.masked_fill(left_out, 0)
            rows, columns = blur_matrix(sigma, height) @ rows, blur_matrix(sigma, width) @ columns
        x = torch.bmm(x.reshape(count, channels * height, width), columns.mT).view(count, channels, height, width)
        x = torch.matmul(rows[:, None], x)
        if self.strength > 0:
            matrix, offset = draw_colours(x.mean((2, 3)), self.strength, generator)
            x = torch.baddbmm(offset[:, :, None], matrix, x.flatten(2)).view_as(x)
        return x.clamp_(0, 1)


class Crops(NamedTuple):
    """Boxes (N,) each, in whole pixels."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def draw_crops(
    count: int,
    height: int,
    width: int,
    smallest: float,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Crops:
    """Draw boxes of a uniform share of the area and a log-uniform aspect ratio of 3:4 to 4:3, as torchvision does.

    Example:
        >>> crops = draw_crops(1000, 32, 32, smallest=0.2, generator=torch.Generator().manual_seed(0))
        >>> bool((crops.height * crops.width >= 0.18 * 32 * 32).all())
        True
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    area = height * width * (smallest + (1 - smallest) * uniform(count, TRIES))
    ratio = torch.exp(math.log(4 / 3) * (2 * uniform(count, TRIES) - 1))
    w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    found = fits.any(1)
    w = torch.where(found, w.gather(1, first).squeeze(1), torch.full_like(w[:, 0], width))
    h = torch.where(found, h.gather(1, first).squeeze(1), torch.full_like(h[:, 0], height))
    top = (uniform(count) * (height - h + 1)).floor().clamp(max=height - 1)
    left = (uniform(count) * (width - w + 1)).floor().clamp(max=width - 1)
    return Crops(top, left, h, w)


def resize_matrix(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Return the matrices (N, size, size) that cut ``length`` pixels from ``start`` on and stretch them over all.

    Bilinear, with the pixels' centres as everywhere: what torchvision's ``resized_crop`` does where it enlarges.

    Example:
        >>> resize_matrix(torch.tensor([1.0]), torch.tensor([2.0]), size=4)[0]
        tensor([[0.0000, 1.0000, 0.0000, 0.0000],
                [0.0000, 0.7500, 0.2500, 0.0000],
                [0.0000, 0.2500, 0.7500, 0.0000],
                [0.0000, 0.0000, 1.0000, 0.0000]])
    """
    pixel = torch.arange(size, device=start.device, dtype=start.dtype)
    centre = (pixel + 0.5) * (length[:, None] / size) - 0.5
    centre = centre.clamp(min=0).minimum(length[:, None] - 1) + start[:, None]
    return (1 - (centre[:, :, None] - pixel).abs()).clamp_(min=0)


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Return the matrices (N, size, size) of a Gaussian blur, renormalised at the border; sigma 0 is the identity.

    Example:
        >>> blur_matrix(torch.tensor([0.0, 1.0]), size=3)[:, 1]
        tensor([[0.0000, 1.0000, 0.0000],
                [0.2741, 0.4519, 0.2741]])
    """
    pixel = torch.arange(size, device=sigma.device, dtype=sigma.dtype)
    distance = pixel[:, None] - pixel
    weights = torch.exp(-0.5 * (distance / sigma.clamp(min=1e-3)[:, None, None]) ** 2)
    return weights / weights.sum(-1, keepdim=True)


def draw_colours(mean: Tensor, strength: float, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Draw SimCLR's changes of colour: with probability 0.8 a jitter, then with 0.2 none left but grey.

    Args:
        mean: (N, 1 or 3) mean colour of each image, which contrast is relative to.
        strength: Brightness, contrast and saturation change by a factor of up to 1 +- 0.8 of it, hue by 0.2 of it.
        generator: On the device of ``mean``.

    Returns:
        Matrices (N, channels, channels) and offsets (N, channels): colours c become M c + b.

    Example:
        >>> matrix, offset = draw_colours(torch.full((5, 3), 0.5), strength=0.0)
        >>> bool(((matrix.sum(-1) - 1).abs() < 1e-6).all()), bool((offset.abs() < 1e-6).all())
        (True, True)
    """
    count, channels = mean.shape
    grey, turn_to, turn_back = _constants(channels, mean)
    eye = torch.eye(channels, device=mean.device, dtype=mean.dtype).expand(count, channels, channels)
    to_grey = grey.expand(channels, channels)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=mean.device, dtype=mean.dtype)

    factor = 1 + 0.8 * strength * (2 * uniform(3, count, 1, 1) - 1)
    brightness, contrast, saturation = (factor.clamp(min=0) * eye).unbind()
    if channels == 3:
        saturation = saturation + (1 - factor[2].clamp(min=0)) * to_grey
        hue = turn_back @ _rotation(0.2 * strength * (2 * uniform(count) - 1) * 2 * math.pi) @ turn_to
    else:
        saturation, hue = eye, eye
    changes = torch.stack([brightness, contrast, saturation, hue])
    order = uniform(count, len(changes)).argsort(1)
    matrix, offset, images = eye, torch.zeros_like(mean), torch.arange(count, device=mean.device)
    for place in range(len(changes)):
        which = order[:, place]
        change = changes[which, images]
        level = ((matrix @ mean[:, :, None]).squeeze(2) + offset) @ grey
        matrix, offset = change @ matrix, (change @ offset[:, :, None]).squeeze(2)
        # Contrast moves colours away from the image's mean grey as it is at this point.
        pull = torch.where(which == 1, (1 - factor[1, :, 0, 0].clamp(min=0)) * level, torch.zeros_like(level))
        offset = offset + pull[:, None]
    left_out = uniform(count) >= 0.8
    matrix, offset = torch.where(left_out[:, None, None], eye, matrix), offset.masked_fill(left_out[:, None], 0)
    lost = (uniform(count) < 0.2) & (channels == 3)
    matrix = torch.where(lost[:, None, None], to_grey @ matrix, matrix)
    offset = torch.where(lost[:, None], (offset @ grey)[:, None].expand_as(offset), offset)
    return matrix, offset


def _constants(channels: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of grey, and the matrices from RGB to YIQ and back."""
    if channels == 1:
        one = like.new_ones(1)
        return one, one, one
    yiq = like.new_tensor([GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])
    return yiq[0], yiq, torch.linalg.inv(yiq)


def _rotation(angle: Tensor) -> Tensor:
    """(N, 3, 3) rotations about the first axis."""
    zero, one, sine, cosine = torch.zeros_like(angle), torch.ones_like(angle), angle.sin(), angle.cos()
    rows = [(one, zero, zero), (zero, cosine, -sine), (zero, sine, cosine)]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
