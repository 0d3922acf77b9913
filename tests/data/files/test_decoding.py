"""Each image is stored in some form and must be read as a viewer shows it."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from nc_lightning.data.files.decoding import read_picture
from nc_lightning.data.sources.image_files import ImageFiles

RAMP = np.linspace(0, 1, 48).reshape(6, 8)
"""Gray values in [0, 1]."""


def read(path):
    return np.array(read_picture(path))


def gray(share):
    return np.repeat(np.rint(share * 255).astype(np.uint8)[..., None], 3, axis=2)


def png(path, rows, depth, color, extra=b"", width=None):
    """Write a PNG without Pillow, which writes neither 16-bit colors nor transparency at depths below 8."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height = len(rows)
    raw = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width or rows.shape[1], height, depth, color, 0, 0, 0)
    transparency = chunk(b"tRNS", extra) if extra else b""
    body = chunk(b"IHDR", head) + transparency + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm", "jp2"])
def test_16_bits_are_scaled_by_their_depth(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    Image.fromarray(np.rint(RAMP * 65535).astype(np.uint16)).save(path)
    assert np.abs(read(path).astype(int) - gray(RAMP)).max() <= 1


@pytest.mark.parametrize("largest", [1, 100, 255, 1023, 4095, 65535])
def test_a_pgm_is_scaled_by_its_largest_value(tmp_path, largest):
    samples = np.rint(RAMP * largest).astype(">u2" if largest > 255 else "u1")
    (tmp_path / "x.pgm").write_bytes(b"P5 8 6 %d\n" % largest + samples.tobytes())
    (tmp_path / "y.pgm").write_bytes(b"P2 8 6 %d\n" % largest + " ".join(map(str, samples.flatten())).encode())
    for name in ("x.pgm", "y.pgm"):
        assert np.abs(read(tmp_path / name).astype(int) - gray(samples.astype(float) / largest)).max() <= 1


def tiff(path, data, bits, photometric=1, order="<", sample_format=1, more=()):
    """Write a TIFF of one gray strip without Pillow."""
    height, width = RAMP.shape
    entries = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (273, 4, 8)]
    entries += [(277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format)]
    entries = sorted([*entries, *more])
    data += b"\0" * (len(data) % 2)
    directory = struct.pack(order + "H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack(order + "HHI", tag, kind, 1)
        directory += struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
    magic = b"II*\0" if order == "<" else b"MM\0*"
    path.write_bytes(magic + struct.pack(order + "I", 8 + len(data)) + data + directory + b"\0" * 4)
    return path


def test_tiffs_of_12_and_16_bits_are_scaled_by_their_depth(tmp_path):
    packed = np.rint(RAMP * 4095).astype(int).reshape(-1, 2)
    data = b"".join(bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255)) for a, b in packed.tolist())
    assert np.abs(read(tiff(tmp_path / "12.tif", data, 12)).astype(int) - gray(RAMP)).max() <= 1
    samples = np.rint(RAMP * 65535)
    for order, kind in (("<", "<u2"), (">", ">u2")):
        path = tiff(tmp_path / "16.tif", samples.astype(kind).tobytes(), 16, order=order)
        assert np.array_equal(read(path), gray(RAMP))
    inverted = tiff(tmp_path / "0.tif", samples.astype("<u2").tobytes(), 16, photometric=0)
    assert np.abs(read(inverted).astype(int) - gray(1 - RAMP)).max() <= 1


def test_floats_outside_0_to_1_are_refused(tmp_path):
    Image.fromarray(RAMP.astype(np.float32)).save(tmp_path / "x.tiff")
    assert np.array_equal(read(tmp_path / "x.tiff"), gray(RAMP.astype(np.float32)))
    for bad, message in (
        (RAMP * 255, r"floats from 0 to 255, expected them in \[0, 1\]"),
        (RAMP - 0.5, r"floats from -0.5 to 0.5, expected them in \[0, 1\]"),
        (np.where(RAMP > 0.5, np.nan, RAMP), r"samples that are not finite, expected floats in \[0, 1\]"),
        (np.where(RAMP > 0.5, np.inf, RAMP), r"samples that are not finite"),
    ):
        Image.fromarray(bad.astype(np.float32)).save(tmp_path / "bad.tiff")
        with pytest.raises(ValueError, match=rf"image: got .*bad.tiff: {message}"):
            ImageFiles([tmp_path / "bad.tiff"], torch.zeros(1)).decode(0)


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int16])
def test_integers_without_a_depth_are_refused(tmp_path, dtype):
    bits, sample_format = np.dtype(dtype).itemsize * 8, 1 if dtype == np.uint32 else 2
    data = np.rint(RAMP * 4095).astype(dtype).tobytes()
    path = tiff(tmp_path / "x.tiff", data, bits, sample_format=sample_format)
    with pytest.raises(ValueError, match="integers from 0 to 4095 without a declared depth"):
        read(path)


def test_integers_of_32_bits_are_named_in_the_error(tmp_path):
    data = np.full(RAMP.shape, 2**32 - 3, dtype=np.uint32).tobytes()
    with pytest.raises(ValueError, match=r"image: got .*x.tif: integers from 4294967293 to 4294967293 without a decl"):
        ImageFiles([tiff(tmp_path / "x.tif", data, 32)], torch.zeros(1)).decode(0)


def test_signed_bytes_are_refused(tmp_path):
    for value in (-5, 5):
        path = tiff(tmp_path / "x.tif", np.full(RAMP.shape, value, dtype=np.int8).tobytes(), 8, sample_format=2)
        with pytest.raises(ValueError, match=r"image: got .*x.tif: signed samples of 8 bits, expected unsigned ones"):
            ImageFiles([path], torch.zeros(1)).decode(0)


@pytest.mark.parametrize("tag", [281, 341])
def test_the_largest_sample_value_declares_the_depth(tmp_path, tag):
    for largest, dtype in ((1023, "<u2"), (4095, "<u2"), (2**20 - 1, "<u4"), (4095, "<i2"), (4095, "<f4")):
        samples = np.rint(RAMP * largest).astype(dtype)
        options = {"sample_format": {"u": 1, "i": 2, "f": 3}[dtype[1]], "more": [(tag, 4, largest)]}
        path = tiff(tmp_path / "x.tif", samples.tobytes(), 8 * samples.itemsize, **options)
        assert np.array_equal(read(path), gray(samples / largest)), dtype
    samples = np.rint(RAMP * 3871).astype("<u2")  # the largest sample of the image does not determine its depth
    path = tiff(tmp_path / "x.tif", samples.tobytes(), 16, more=[(tag, 4, 3871)])
    assert np.array_equal(read(path), gray(samples / 65535))
    path = tiff(tmp_path / "x.tif", samples.tobytes(), 16, more=[(tag, 4, 1023)])
    with pytest.raises(ValueError, match=r"integers from 0 to 3871, expected them in \[0, 1023\]"):
        read(path)


def test_a_declared_depth_that_differs_from_the_color_depth_is_refused(tmp_path):
    """Pillow keeps the upper 8 of 16 bits; an image with 12 used bits would keep four."""
    height, width = RAMP.shape
    data = np.repeat(np.rint(RAMP * 4095).astype("<u2")[..., None], 3, axis=2).tobytes()
    bits = struct.pack("<HHH", 16, 16, 16)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8 + len(data)), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data))]
    for largest, refused in ((4095, True), (65535, False), (3871, False)):
        entries = [struct.pack("<HHII", *tag) for tag in sorted([*tags, (281, 4, 1, largest)])]
        directory = struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4
        head = b"II*\0" + struct.pack("<I", 8 + len(data) + len(bits))
        (tmp_path / "x.tif").write_bytes(head + data + bits + directory)
        if refused:
            with pytest.raises(ValueError, match="colors up to 4095 in 16 bits, expected all 16 bits used"):
                read(tmp_path / "x.tif")
        else:
            assert read(tmp_path / "x.tif")[-1, -1].tolist() == [15, 15, 15]


@pytest.mark.parametrize("depth", [8, 16])
def test_pngs_of_any_depth_and_color_type_are_read(tmp_path, depth):
    rng = np.random.default_rng(0)
    top = 2**depth - 1
    for color, channels in ((0, 1), (2, 3), (4, 2), (6, 4)):
        share = rng.random((4, 5, channels))
        if channels in (2, 4):
            alpha = share[..., -1:]
            expected = share[..., :-1] * alpha + 1 - alpha
        else:
            expected = share
        path = png(tmp_path / "x.png", np.rint(share * top).reshape(4, -1).reshape(4, 5, channels), depth, color)
        expected = np.broadcast_to(expected * 255, (4, 5, 3))
        assert np.abs(read(path) - expected).max() <= 2, color


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "tiff", "webp", "avif"])
def test_the_picture_is_upright(tmp_path, ending, orientation):
    shown = np.zeros((16, 32, 3), dtype=np.uint8)
    shown[:8, :16], shown[:8, 16:], shown[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: shown.transpose(1, 0, 2),
        6: np.rot90(shown),  # viewers rotate it clockwise
        7: np.rot90(shown, 2).transpose(1, 0, 2),
        8: np.rot90(shown, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{ending}"
    options = {} if ending in ("png", "tiff") else {"quality": 100}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, **options)
    picture = read(path)
    assert picture.shape == shown.shape
    for y, x in ((4, 8), (4, 24), (12, 8), (12, 24)):
        assert np.abs(picture[y, x].astype(int) - shown[y, x]).max() < 16, (y, x)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_uncompressed_gray_tiff_is_upright(tmp_path, dtype, orientation):
    stored = np.tile(np.arange(16, dtype=np.uint8) * 16, (8, 1))
    stored[:2] = 255
    turned = {5: stored.T, 6: np.rot90(stored, -1), 7: np.rot90(stored, 2).T, 8: np.rot90(stored)}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    gray = stored if dtype == "uint8" else stored.astype(np.uint16) * 257
    Image.fromarray(gray).save(tmp_path / "x.tiff", exif=exif, compression=None)
    assert np.array_equal(read(tmp_path / "x.tiff")[..., 0], turned)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_ignored(tmp_path):
    Image.new("RGB", (8, 6), (1, 2, 3)).save(tmp_path / "x.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert (read(tmp_path / "x.png") == (1, 2, 3)).all()


def test_images_that_look_alike_are_equal(tmp_path):
    """Put different colors under transparent pixels, in every form that Pillow writes."""
    alpha = np.zeros((6, 8), dtype=np.uint8)
    alpha[:3] = 255
    seen = []
    for hidden in (0, 200):
        color = np.full((6, 8, 3), hidden, dtype=np.uint8)
        color[:3] = (90, 90, 90)
        rgba = Image.fromarray(np.dstack([color, alpha]))
        palette = Image.frombytes("P", (8, 6), (alpha == 0).astype(np.uint8).tobytes())
        palette.putpalette([90, 90, 90, hidden, hidden, hidden])
        files = {
            "rgba.png": (rgba, {}),
            "rgba.webp": (rgba, {"lossless": True, "exact": True}),
            "rgba.tiff": (rgba, {}),
            "la.png": (Image.merge("LA", [Image.fromarray(color[..., 0]), Image.fromarray(alpha)]), {}),
            "palette.png": (palette, {"transparency": 1}),
            "alphas.png": (palette, {"transparency": b"\xff\x00"}),
            "palette.gif": (palette, {"transparency": 1}),
            "l.png": (Image.fromarray(color[..., 0]), {"transparency": hidden}),
            "rgb.png": (Image.fromarray(color), {"transparency": (hidden,) * 3}),
        }
        for name, (image, options) in files.items():
            path = tmp_path / f"{hidden}_{name}"
            image.save(path, **options)
            picture = read(path)
            assert (picture[:3] == 90).all(), name
            assert (picture[3:] == 255).all(), name
        deep = np.full((6, 8), hidden * 257)
        deep[:3] = 90 * 257
        seen.append(read(png(tmp_path / "deep.png", deep, 16, 0, struct.pack(">H", hidden * 257))))
        deep = np.repeat(deep[..., None], 3, axis=2)
        seen.append(read(png(tmp_path / "deep.png", deep, 16, 2, struct.pack(">HHH", *[hidden * 257] * 3))))
    assert all((picture == seen[0]).all() for picture in seen)
    assert (seen[0][:3] == 90).all()
    assert (seen[0][3:] == 255).all()


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("hidden", [0, 1, 2])
def test_transparent_gray_of_few_bits_is_white(tmp_path, depth, hidden):
    samples = np.arange(8) % 2**depth
    packed = np.packbits([int(bit) for sample in samples for bit in f"{sample:0{depth}b}"])[None]
    path = png(tmp_path / "x.png", packed, depth, 0, struct.pack(">H", hidden), width=8)
    expected = np.where(samples == hidden, 255, samples * 255 // (2**depth - 1))
    assert read(path)[0, :, 0].tolist() == expected.tolist()


@pytest.mark.parametrize("hidden", [(300, 300, 300), (1, 200, 7), (511, 256, 65535)])
def test_transparent_16_bit_colors_are_compared_in_all_bits(tmp_path, hidden):
    samples = np.array([[hidden, [sample ^ 1 for sample in hidden], [sample ^ 256 for sample in hidden], (9, 9, 9)]])
    path = png(tmp_path / "x.png", samples, 16, 2, struct.pack(">HHH", *hidden))
    picture = read(path)
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(picture[0, 1:], samples[0, 1:] >> 8)


def test_half_transparent_pixels_are_mixed_with_white(tmp_path):
    Image.new("RGBA", (2, 2), (100, 0, 200, 51)).save(tmp_path / "x.png")
    assert (read(tmp_path / "x.png") == (224, 204, 244)).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "RGBA"])
def test_ordinary_images_are_converted_as_by_pillow(tmp_path, mode):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).convert(mode)
    path = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    image.save(path)
    with Image.open(path) as stored:
        assert np.array_equal(read(path), np.array(stored.convert("RGB")))
