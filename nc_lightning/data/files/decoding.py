"""Decode an image file as a viewer shows it: upright, in 8 bits, on a white background."""

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BACKGROUND = (255, 255, 255)
"""Color behind transparent pixels."""

_OF_PAGES = (".tif", ".tiff", ".gif", ".apng")
"""File extensions whose files may have several pages or frames; other files are not opened to check."""
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT, _SIGNED = 258, 262, 339, 2
_LARGEST_SAMPLE = (281, 341)
_GRAY_STEPS = {"L;2": 85, "L;4": 17}
_SCALED_TO_16_BITS = ("PNG", "PPM", "JPEG2000")
"""Formats that declare a depth; Pillow scales their samples to 16 bits if they have more than 8."""


def read_picture(source: Path | bytes) -> Image.Image:
    """Return an image file, by its path or its content, as RGB with 8 bits per sample.

    The picture is rotated upright by its EXIF orientation. Samples of 10 to 16 bits are scaled by the depth that the
    file declares; floats are in [0, 1]. A TIFF whose largest sample is 2**k - 1 declares a depth of k bits. Transparent
    pixels are composited on white.

    Raises:
        ValueError: If samples are signed or not finite, exceed the declared depth, or have an unknown depth: 32-bit
            integers, or floats outside [0, 1].

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "half.png"
        >>> Image.new("RGBA", (1, 1), (255, 0, 0, 0)).save(path)
        >>> read_picture(path).getpixel((0, 0))
        (255, 255, 255)
    """
    with _open(source) as image:
        _scale_transparent_gray(image)
        if image.format == "TIFF":
            image.filename = ""  # otherwise Pillow maps uncompressed gray into memory, and misplaces rotated rows
        hidden = _hidden_in_16_bits(image, source)
        image.load()
        picture = _on_background(_in_8_bits(image))
        if hidden is not None:
            picture.paste(BACKGROUND, mask=Image.fromarray(hidden))
        orientation = _orientation(image)
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _open(source: Path | bytes) -> Image.Image:
    return Image.open(BytesIO(source) if isinstance(source, bytes) else source)


def has_more_pages(path: Path) -> bool:
    """Return whether a file has pages or frames after the first, which is all that `read_picture` returns.

    Example:
        >>> has_more_pages(Path("photo.jpg"))
        False
    """
    if path.suffix.lower() not in _OF_PAGES:
        return False
    try:
        with Image.open(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # Pillow raises many kinds of errors, and reading the picture reports them
        return False


def _scale_transparent_gray(image: Image.Image) -> None:
    """Scale the transparent gray of a PNG of 2 or 4 bits in the same way as Pillow scales its samples."""
    hidden, tiles = image.info.get("transparency"), getattr(image, "tile", [])
    if isinstance(hidden, int) and tiles and tiles[0][3] in _GRAY_STEPS:
        image.info["transparency"] = hidden * _GRAY_STEPS[tiles[0][3]]


def _hidden_in_16_bits(image: Image.Image, source: Path | bytes) -> np.ndarray[Any, Any] | None:
    """Return the mask of a 16-bit PNG's transparent color; Pillow itself compares only the upper 8 bits."""
    color, tiles = image.info.get("transparency"), getattr(image, "tile", [])
    if not (isinstance(color, tuple) and tiles and tiles[0].args == "RGB;16B"):
        return None
    del image.info["transparency"]
    with _open(source) as lower:
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        low = np.asarray(lower).astype(np.uint16)
    mask: np.ndarray[Any, Any] = np.all((np.asarray(image).astype(np.uint16) << 8 | low) == color, axis=-1)
    return mask


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # the picture may be whole even if its EXIF data are damaged
        return 1


def _in_8_bits(image: Image.Image) -> Image.Image:
    declared = _declared_largest(image)
    if not image.mode.startswith(("I", "F")):
        if _tag(image, _SAMPLE_FORMAT) == _SIGNED:
            raise ValueError(f"signed samples of {_tag(image, _BITS_PER_SAMPLE)} bits, expected unsigned ones")
        if _tag(image, _BITS_PER_SAMPLE) == 16 and (declared or 65535) < 65535:
            raise ValueError(f"colors up to {declared:g} in 16 bits, expected all 16 bits used, or gray")
        return image  # Pillow has already converted all others to 8 bits
    samples = np.asarray(image)
    if image.mode == "I" and _tag(image, _BITS_PER_SAMPLE) == 32 and _tag(image, _SAMPLE_FORMAT) != _SIGNED:
        samples = samples.view(np.uint32)  # Pillow has no mode for unsigned 32 bits
    samples = samples.astype(np.float64)
    low, high = samples.min(), samples.max()
    largest = _depth(image) if declared is None else declared
    if not np.isfinite(samples).all():
        raise ValueError("samples that are not finite, expected floats in [0, 1]")
    if largest is None:
        raise ValueError(f"integers from {low:.15g} to {high:.15g} without a declared depth, expected 8 to 16 bits")
    if low < 0 or high > largest:
        kind = "floats" if image.mode == "F" else "integers"
        raise ValueError(f"{kind} from {low:.15g} to {high:.15g}, expected them in [0, {largest:g}]")
    share = samples / largest
    if _tag(image, _PHOTOMETRIC) == 0:  # zero is white
        share = 1 - share
    if "transparency" in image.info:
        share[samples == image.info["transparency"]] = 1
    return Image.fromarray(np.rint(share * 255).astype(np.uint8))


def _depth(image: Image.Image) -> float | None:
    """Return the largest sample for the number of bits."""
    if image.mode == "F":
        return 1.0
    if image.format in _SCALED_TO_16_BITS:
        return 65535.0
    bits = _tag(image, _BITS_PER_SAMPLE)
    return 2.0**bits - 1 if bits is not None and image.mode.startswith("I;16") else None


def _declared_largest(image: Image.Image) -> float | None:
    """Return the largest sample that a TIFF declares if it is 2**k - 1, a depth and not the image's own maximum."""
    for number in _LARGEST_SAMPLE:
        value = _tag(image, number)
        if value is not None and 255 <= value < 2**32 and math.log2(value + 1).is_integer():
            return float(value)
    return None


def _tag(image: Image.Image, number: int) -> int | None:
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _on_background(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, (*BACKGROUND, 255)), over).convert("RGB")
