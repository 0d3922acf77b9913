"""SimCLR's augmentation on whole batches: every image gets its own crop, flip, blur and color jitter.

Every step is linear in the image except the last, a clamp. Crop, resize, flip and blur together are one matrix for the
rows and one for the columns; all changes of color are one 3x3 matrix and an offset. So a batch always takes three
batched matrix products.
"""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from nc_lightning.checks import check_number

GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the luma of ITU-R BT.601."""
NO_BLUR = 1e-3
"""Standard deviation in pixels of a blur that changes nothing."""
TRIES = 10
"""Number of attempts to draw a crop that fits; after them, the whole image is taken."""

# Number of uniform numbers for each image: two for each try and two for the position of the crop, one for the flip, two
# for the blur. Colors take the strengths of four changes (three for gray images), four for their order (unused, kept so
# that the random stream does not change), and two that decide whether to jitter and whether to keep colors.
_OF_CROP, _OF_FLIP, _OF_BLUR, _OF_COLORS = 2 * TRIES + 2, 1, 2, {1: 9, 3: 10}


class SimCLR:
    """Augment images by SimCLR's recipe: random crop and resize, flip, color jitter, grayscale, and optionally blur.

    As in torchvision, area, aspect ratio and position of the crop, and the strength of brightness, contrast, saturation
    and hue are drawn for each image. Unlike there, colors are clamped once, at the end, and hue is rotated in the YIQ
    plane instead of HSV (as NVIDIA DALI does). In gray images only brightness and contrast change.

    Args:
        strength: Strength of the color jitter; SimCLR uses 0.5 for CIFAR and 1 for ImageNet; 0 disables it.
        smallest_crop: Smallest share of the image's area in a crop, in (0, 1].
        flip: Probability of a horizontal flip.
        blur: Probability of a Gaussian blur with a standard deviation of 0.1 to 2 pixels; SimCLR uses 0.5 for ImageNet
            and 0 for CIFAR.

    Shape:
        (N, 1 or 3, H, W) float in [0, 1] -> the same

    Raises:
        ValueError: If an argument is out of its range, or the images have another shape.

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

    def __repr__(self) -> str:
        values = (f"{name}={getattr(self, name):g}" for name in ("strength", "smallest_crop", "flip", "blur"))
        return f"{type(self).__name__}({', '.join(values)})"

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment a batch; the generator must be on the device of the images."""
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"augmentation: got inputs {tuple(x.shape)}, expected images (N, 1 or 3, H, W)")
        count, channels, height, width = x.shape
        parts = [_OF_CROP, _OF_FLIP, _OF_BLUR * (self.blur > 0), _OF_COLORS[channels] * (self.strength > 0)]
        uniform = torch.rand(sum(parts), count, generator=generator, device=x.device)
        of_crop, of_flip, of_blur, of_colors = uniform.split(parts)
        crops = place_crops(of_crop, height, width, self.smallest_crop)
        flipped = of_flip < constant((0.0, self.flip), x.device)[:, None]  # rows are never flipped
        rows, columns = resize_matrices(crops, height, width, flipped)
        if self.blur > 0:
            sigma = torch.add(constant(0.1, x.device), of_blur[0], alpha=1.9)
            sigma = torch.where(of_blur[1] >= self.blur, constant(NO_BLUR, x.device), sigma)
            of_rows = blur_matrix(sigma, height)
            rows = of_rows @ rows
            columns = (of_rows if height == width else blur_matrix(sigma, width)) @ columns
        x = torch.bmm(x.reshape(count, channels * height, width), columns.mT).view(count, channels, height, width)
        x = torch.matmul(rows[:, None], x)
        if self.strength > 0:
            matrix, offset = mix_colors(of_colors, x.mean((2, 3)), self.strength)
            x = torch.baddbmm(offset[:, :, None], matrix, x.flatten(2)).view_as(x)
        return x.clamp_(0, 1)


class Crops(NamedTuple):
    """Boxes in whole pixels: top and left (2, N), height and width (2, N)."""

    start: Tensor
    size: Tensor


def place_crops(uniform: Tensor, height: int, width: int, smallest: float) -> Crops:
    """Turn uniform numbers (2 TRIES + 2, N) into crop boxes, distributed as in torchvision.

    The share of the area is uniform, the aspect ratio log-uniform from 3:4 to 4:3.

    Example:
        >>> crops = place_crops(torch.rand(2 * TRIES + 2, 1000), 32, 32, smallest=0.2)
        >>> bool((crops.size.prod(0) >= 0.18 * 32 * 32).all())
        True
    """
    count, device = uniform.shape[1], uniform.device
    factor, shift = constant((1 - smallest, 2.0), device), constant((smallest, -1.0), device)
    amount = constant((height * width, math.log(4 / 3)), device)
    tries = uniform[: 2 * TRIES].view(2, count, TRIES)
    area, ratio = torch.addcmul(shift[:, None, None], tries, factor[:, None, None]) * amount[:, None, None]
    ratio = ratio.exp()
    whole = constant((height, width), device)[:, None]
    sides = uniform.new_empty(2, count, TRIES + 1)
    torch.div(area, ratio, out=sides[0, :, :TRIES])
    torch.mul(area, ratio, out=sides[1, :, :TRIES])
    sides[:, :, :TRIES].sqrt_().round_()
    sides[:, :, TRIES] = whole  # the last try always fits
    first = (sides.clamp(constant(1.0, device), whole[:, :, None]) == sides).sum(0).argmax(1)
    size = sides.gather(2, first[None, :, None].expand(2, -1, 1)).squeeze(2)
    start = uniform[2 * TRIES :] * (constant((height + 1, width + 1), device)[:, None] - size)
    return Crops(start.floor().minimum(constant((height - 1, width - 1), device)[:, None]), size)


def resize_matrices(crops: Crops, height: int, width: int, flipped: Tensor) -> tuple[Tensor, Tensor]:
    """Return the matrices (N, height, height) and (N, width, width) that crop boxes and resize them to the full size.

    Bilinear, with pixel centers at half-integers, as torchvision's ``resized_crop`` does when it enlarges. ``flipped``
    (2, N) says whether the result is also mirrored vertically, and horizontally.

    Example:
        >>> crops = Crops(torch.tensor([[1.0], [0.0]]), torch.tensor([[2.0], [4.0]]))
        >>> rows, columns = resize_matrices(crops, 4, 4, flipped=torch.tensor([[False], [True]]))
        >>> rows[0]
        tensor([[0.0000, 1.0000, 0.0000, 0.0000],
                [0.0000, 0.7500, 0.2500, 0.0000],
                [0.0000, 0.2500, 0.7500, 0.0000],
                [0.0000, 0.0000, 1.0000, 0.0000]])
        >>> columns[0].argmax(1)
        tensor([3, 2, 1, 0])
    """
    start, length, device = crops.start[..., None], crops.size[..., None], crops.start.device
    sizes = constant((height, width), device)[:, None, None]
    # Computed for both axes at once, as if images were square; the excess of the shorter side is cut off.
    pixel, middle = _pixels(max(height, width), device)
    center = torch.where(flipped[..., None], sizes - middle, middle)
    center = torch.addcmul(constant(-0.5, device), center, length / sizes)
    center = center.clamp(constant(0.0, device), length - 1) + start
    rows, columns = (1 - (center[..., None] - pixel).abs()).clamp_(min=0)
    return rows[:, :height, :height], columns[:, :width, :width]


def blur_matrix(sigma: Tensor, size: int) -> Tensor:
    """Return the matrices (N, size, size) of a Gaussian blur, renormalized at the border.

    Example:
        >>> blur_matrix(torch.tensor([NO_BLUR, 1.0]), size=3)[:, 1]
        tensor([[0.0000, 1.0000, 0.0000],
                [0.2741, 0.4519, 0.2741]])
    """
    return torch.softmax(_gaussian_exponents(size, sigma.device) / sigma.square()[:, None, None], -1)


def mix_colors(uniform: Tensor, mean: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Turn uniform numbers into SimCLR's color changes: jitter with probability 0.8, then grayscale with 0.2.

    Brightness b scales colors; contrast c pulls them towards the image's mean gray, saturation s towards their own
    gray; hue rotates them about the gray axis. Saturation and hue keep gray and commute; b scales the mean gray too.
    So, in any order, a color x becomes b c (G + s (cos R + sin T)) x + b (1 - c) m, with G the projection onto gray,
    R = 1 - G, T a quarter turn, and m the mean gray. Grayscale is s = 0.

    Args:
        uniform: Uniform numbers (10, N); (9, N) for gray images, which have no hue.
        mean: Mean color (N, 1 or 3) of each image, the reference of contrast.
        strength: Strength of the jitter: brightness, contrast and saturation change by a factor in 1 +- 0.8 strength,
            hue by up to 0.2 strength of a full turn.

    Returns:
        Matrices (N, channels, channels) and offsets (N, 1): colors x become M x + b.

    Example:
        >>> matrix, offset = mix_colors(torch.rand(10, 5), torch.full((5, 3), 0.5), strength=0.0)
        >>> bool(((matrix.sum(-1) - 1).abs() < 1e-6).all()), bool((offset.abs() < 1e-6).all())
        (True, True)
    """
    count, channels = mean.shape
    reach, turn = 0.8 * strength, 0.2 * strength * 2 * math.pi
    *strengths, _, _, _, _, change, keep = uniform
    least = constant((1 - reach, 1 - reach, 1 - reach, -turn), mean.device)[: len(strengths), None]
    width = constant((2 * reach, 2 * reach, 2 * reach, 2 * turn), mean.device)[: len(strengths), None]
    unchanged = constant((1.0, 1.0, 1.0, 0.0), mean.device)[: len(strengths), None]
    drawn = torch.addcmul(least, width, uniform[: len(strengths)])
    brightness, contrast, saturation, *angle = torch.where(change >= 0.8, unchanged, drawn)
    scale = brightness * contrast
    if channels == 1:
        return scale[:, None, None], (brightness - scale)[:, None] * mean
    vivid = scale * saturation.masked_fill(keep < 0.2, 0)
    gray, basis = _color_basis(mean.device)
    matrix = torch.stack([scale, vivid * angle[0].cos(), vivid * angle[0].sin()], 1) @ basis
    return matrix.view(count, 3, 3), ((brightness - scale) * (mean @ gray))[:, None]


@functools.cache
def _color_basis(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the weights of gray (3,), and G, 1 - G and T of `mix_colors` as rows (3, 9)."""
    yiq = torch.tensor([GRAY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], dtype=torch.float64, device="cpu")
    quarter = torch.tensor([(0, 0, 0), (0, 0, -1), (0, 1, 0)], dtype=torch.float64, device="cpu")
    turn = torch.linalg.inv(yiq) @ quarter @ yiq
    gray = torch.tensor(GRAY, device="cpu").expand(3, 3)
    basis = torch.stack([gray, torch.eye(3, device="cpu") - gray, turn.float()]).flatten(1)
    return constant(GRAY, device), basis.to(device)


@functools.cache
def _pixels(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the indices (size,) of pixels, and their centers."""
    pixel = torch.arange(size, dtype=torch.float32, device=device)
    return pixel, pixel + 0.5


@functools.cache
def _gaussian_exponents(size: int, device: torch.device) -> Tensor:
    """Return the exponents (size, size) of a Gaussian kernel with standard deviation 1."""
    pixel, _ = _pixels(size, device)
    return (pixel[:, None] - pixel).square() / -2


@functools.cache
def constant(values: float | tuple[float, ...], device: torch.device) -> Tensor:
    """Return float32 numbers on a device, cached, because every copy to a device would block the host.

    Example:
        >>> constant((1.0, 2.0), torch.device("cpu"))
        tensor([1., 2.])
    """
    return torch.tensor(values, dtype=torch.float32, device="cpu").to(device)
