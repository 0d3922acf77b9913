"""Decode one image file as a viewer shows it: upright, in 8 bits, on a white background."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BACKGROUND = (255, 255, 255)
"""Color behind transparent pixels."""

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
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_GREY_STEPS = {"L;2": 85, "L;4": 17}
_SCALED_TO_16_BITS = ("PNG", "PPM", "JPEG2000")
"""Formats that declare a depth, and whose samples Pillow scales to 16 bits where they have more than 8."""


def read_picture(path: Path) -> Image.Image:
    """Return an image as RGB, 8 bits a sample.

    The picture is turned upright by its EXIF orientation. Samples of 10 to 16 bits are scaled by the depth that the
    file declares, floats are taken as [0, 1]. Transparent pixels are composited on white.

    Raises:
        ValueError: If the samples have no declared depth: 32-bit integers, or floats outside [0, 1].

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "half.png"
        >>> Image.new("RGBA", (1, 1), (255, 0, 0, 0)).save(path)
        >>> read_picture(path).getpixel((0, 0))
        (255, 255, 255)
    """
    with Image.open(path) as image:
        _scale_transparent_grey(image)
        if image.format == "TIFF":
            image.filename = ""  # else Pillow maps uncompressed grey into memory, and misplaces the rows of turned ones
        image.load()
        picture = _on_background(_in_8_bits(image))
        orientation = _orientation(image)
    return picture.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else picture


def _scale_transparent_grey(image: Image.Image) -> None:
    """Scale the transparent grey of a PNG of 2 or 4 bits as Pillow scales its samples."""
    hidden, tiles = image.info.get("transparency"), getattr(image, "tile", [])
    if isinstance(hidden, int) and tiles and tiles[0][3] in _GREY_STEPS:
        image.info["transparency"] = hidden * _GREY_STEPS[tiles[0][3]]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF declares nothing, and the picture may be whole
        return 1


def _in_8_bits(image: Image.Image) -> Image.Image:
    if not image.mode.startswith(("I", "F")):
        return image  # Pillow has brought all others to 8 bits
    samples = np.asarray(image).astype(np.float64)
    largest = _largest_sample(image, samples)
    if largest is None:
        raise ValueError(
            f"samples of mode {image.mode} from {samples.min():g} to {samples.max():g} without a declared depth, "
            "expected 8 to 16 bits or floats in [0, 1]"
        )
    share = samples / largest
    if _tag(image, _PHOTOMETRIC) == 0:  # white is zero
        share = 1 - share
    if "transparency" in image.info:
        share[samples == image.info["transparency"]] = 1
    return Image.fromarray(np.rint(share * 255).astype(np.uint8))


def _largest_sample(image: Image.Image, samples: np.ndarray[Any, Any]) -> float | None:
    if image.mode == "F":
        return 1.0 if ((samples >= 0) & (samples <= 1)).all() else None
    if image.format in _SCALED_TO_16_BITS:
        return 65535.0
    bits = _tag(image, _BITS_PER_SAMPLE)
    return 2.0**bits - 1 if bits is not None and image.mode.startswith("I;16") else None


def _tag(image: Image.Image, number: int) -> int | None:
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _on_background(image: Image.Image) -> Image.Image:
    if not _may_be_transparent(image):
        return image.convert("RGB")
    hidden = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(hidden, tuple) and max(hidden) > 255:
        image.info["transparency"] = tuple(sample >> 8 for sample in hidden)  # Pillow keeps the 16 bits of the file
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, (*BACKGROUND, 255)), over).convert("RGB")


def _may_be_transparent(image: Image.Image) -> bool:
    of_palette = image.palette is not None and image.palette.mode.endswith("A")
    return image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or of_palette or "transparency" in image.info
