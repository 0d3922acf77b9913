import numpy as np
import pytest
import torch

from nc_lightning.data import ArrayDataModule, SimCLR

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (40, 32, 30, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4


def ready(folder, x, test=None, labels=LABELS, **kwargs):
    path = folder / "data.npz"
    arrays = {"x_train": x, "y_train": labels, "x_test": x if test is None else test, "y_test": labels}
    np.savez(path, **arrays, **kwargs.pop("arrays", {}))
    data = ArrayDataModule(str(path), **{"batch_size": 8, "val_share": 0, **kwargs})
    data.setup()
    return data


def first(x):
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "int32", "uint16", "float32", "float64", "float16", ">i4"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_bytes_of_any_type_are_images(tmp_path, dtype, layout):
    x = BYTES.astype(dtype)
    data = ready(tmp_path, x if layout == "NHWC" else x.transpose(0, 3, 1, 2), views=2, augmentation=SimCLR())
    assert data.input_shape == (3, 32, 30)
    assert data._splits["train"].x.dtype == torch.uint8
    assert torch.equal(data._splits["train"].x, first(BYTES))
    assert data.mean.shape == (3,)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("scale", [(0, 1), (-1, 1), (0, 3.5)])
def test_other_floats_are_used_unchanged_and_reported(tmp_path, layout, scale):
    x = (BYTES / 255 * (scale[1] - scale[0]) + scale[0]).astype(np.float32)
    data = ready(tmp_path, x if layout == "NHWC" else x.transpose(0, 3, 1, 2))
    assert torch.equal(data._splits["train"].x, first(x))
    assert data.mean is None
    assert f"floats from {x.min():.3g} to {x.max():.3g}" in data.summary()


@pytest.mark.parametrize("scale", [1 / 255, 6 / 255])
@pytest.mark.parametrize("bins", [256, 2])
def test_floats_without_channels_are_single_channel_images(tmp_path, scale, bins):
    x = (BYTES[..., 0] // (256 // bins)) * (scale if bins > 2 else 1.0) - (0 if scale < 0.01 else 3)
    data = ready(tmp_path, x)
    assert data.input_shape == (1, 32, 30)
    assert torch.equal(data._splits["train"].x, ready(tmp_path, x[..., None])._splits["train"].x)
    assert torch.equal(data._splits["train"].x[:, 0], torch.from_numpy(x).float())


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float64"])
@pytest.mark.parametrize("shape", [(40, 32, 30), (40, 32, 30, 1), (40, 1, 32, 30), (40, 960), (40, 2, 4, 4, 30)])
def test_binary_inputs_are_0_and_1(tmp_path, dtype, shape):
    x = (BYTES[..., 0] > 127).astype(dtype).reshape(shape)
    data = ready(tmp_path, x)
    assert data._splits["train"].x.unique().tolist() == [0, 1]
    assert data._splits["train"].x.dtype == torch.float32
    assert torch.equal(data._splits["train"].x.flatten(), torch.from_numpy(x).float().flatten())
    assert data.mean is None
    assert "floats from 0 to 1" in data.summary()


def test_black_bytes_are_bytes_and_standardized_images_pass(tmp_path):
    black = ready(tmp_path, np.zeros_like(BYTES), augmentation=SimCLR())
    assert black._splits["train"].x.dtype == torch.uint8
    standardized = (BYTES - BYTES.mean()) / 20
    assert ready(tmp_path, standardized)._splits["train"].x.dtype == torch.float32


NOT_SCALED = {
    "12 bits": BYTES * 16.0 + 15,
    "16 bits": BYTES * 257.0,
    "fractions to 1000": BYTES / 0.255,
    "whole from -128": BYTES - 128.0,
    "past 255": np.rint(BYTES * 1.04),
    "past both ends": BYTES * 1.03 - 3,
    "fractions to 17": BYTES / 15,
    "below alone": BYTES / 255 - 30,
}


@pytest.mark.parametrize("kind", NOT_SCALED)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_floats_far_from_0_are_not_images(tmp_path, kind, dtype):
    x = NOT_SCALED[kind].astype(dtype)
    for shaped in (x, x[..., 0], x[:, None]):
        with pytest.raises(ValueError, match="x_test: got .* as images, expected whole numbers from 0 to 255") as error:
            ready(tmp_path, shaped)
        assert "\n" not in str(error.value)
    vectors = x[:, 0, 0]
    assert torch.equal(ready(tmp_path, vectors)._splits["train"].x, torch.from_numpy(vectors).float())


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((8, 8, 1), 1),
        ((1, 8, 8), 1),
        ((1, 4, 4), 1),
        ((3, 3, 1), 1),
        ((8, 8, 12), 12),
        ((12, 8, 8), 12),
        ((8, 9, 4), 4),
        ((3, 8, 9), 3),
        ((17, 8, 8), 17),
    ],
)
def test_channels_are_found(tmp_path, shape, channels):
    data = ready(tmp_path, RNG.random((40, *shape)))
    assert data.input_shape[0] == channels


@pytest.mark.parametrize("shape", [(5, 6, 7), (3, 8, 3), (3, 3, 3), (8, 8, 8), (3, 32, 4), (4, 9, 1), (1, 28, 3)])
@pytest.mark.parametrize("dtype", ["float64", "uint8", "int64"])
def test_ambiguous_layouts_are_refused(tmp_path, shape, dtype):
    message = rf"x_test: got {dtype} of shape \(40, .*, which may be images .N, H, W, C. or .N, C, H, W., .*"
    x = RNG.integers(0, 256, (40, *shape)).astype(dtype)
    if shape[0] in (1, 3, 4):
        message += "last, not both; transpose them to the other layout$"
    with pytest.raises(ValueError, match=message):
        ready(tmp_path, x)


@pytest.mark.parametrize("dtype", ["float64", "uint8"])
def test_ambiguous_layouts_become_clear_when_transposed(tmp_path, dtype):
    x = RNG.integers(0, 256, (40, 3, 32, 4)).astype(dtype)
    assert ready(tmp_path, x.transpose(0, 2, 3, 1)).input_shape == (3, 32, 4)  # they were NCHW
    assert ready(tmp_path, x.transpose(0, 3, 1, 2)).input_shape == (4, 3, 32)  # they were NHWC


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float32"])
def test_bytes_of_five_dimensions_are_refused(tmp_path, dtype):
    clips = RNG.integers(0, 256, (40, 2, 8, 8, 3)).astype(dtype)
    with pytest.raises(
        ValueError, match=rf"x_test: got {dtype} of shape .40, 2, 8, 8, 3. from 0\S* to 255\S*, expected"
    ):
        ready(tmp_path, clips)
    assert ready(tmp_path, clips / 255).input_shape == (2, 8, 8, 3)


def test_integers_without_channels_are_images_and_vectors_are_vectors(tmp_path):
    gray = ready(tmp_path, BYTES[..., 0].astype(np.int64))
    assert gray.input_shape == (1, 32, 30)
    assert torch.equal(gray._splits["train"].x[:, 0], torch.from_numpy(BYTES[..., 0]))
    assert ready(tmp_path, BYTES[..., 0].astype(np.float32)).input_shape == (1, 32, 30)
    vectors = ready(tmp_path, BYTES[:, :, 0, 0].astype(np.int64))
    assert vectors.input_shape == (32,)
    assert vectors._splits["train"].x.dtype == torch.float32


@pytest.mark.parametrize(
    ("x", "test", "message"),
    [
        (BYTES.astype(np.uint16) * 16, None, "x_test: got uint16 images from 0 to 4080, expected 0 to 255; divide"),
        (BYTES.astype(np.int32) - 128, None, "x_test: got int32 images from -128 to 127, expected 0 to 255"),
        (BYTES.astype(np.uint16) * 16, BYTES, "x_train: got uint16 images from 0 to 4080"),
        (BYTES / 255, BYTES, "x_train: got floats used unchanged from 0 to 1, expected bytes as in x_test"),
        (BYTES, BYTES / 255, "x_train: got bytes from 0 to 255, expected floats used unchanged as in x_test"),
        (BYTES / 255 * 254.5, None, "x_test: got fractions from 0 to 254.5 as images, expected whole numbers"),
        (BYTES / 255 * 254.5, BYTES / 255, "x_train: got fractions from 0 to 254.5 as images, expected whole"),
        (np.where(BYTES == 0, np.nan, BYTES / 255), None, "x_test: got a number that is not finite"),
    ],
)
def test_ambiguous_scales_are_refused(tmp_path, x, test, message):
    with pytest.raises(ValueError, match=message):
        ready(tmp_path, x, test)


def test_memory_grows_with_the_number_of_classes_not_with_the_largest_label(tmp_path):
    labels = np.array([3, 2**62, 7, 10**9])[LABELS]
    data = ready(tmp_path, BYTES, labels=labels, classes="found")
    assert data.num_classes == 4
    assert data._splits["train"].labels.tolist() == np.searchsorted(np.unique(labels), labels).tolist()
    chosen = ready(tmp_path, BYTES, labels=labels, classes=[2**62, 3])
    assert chosen._splits["train"].labels.bincount().tolist() == [10, 10]
    assert torch.equal(chosen._splits["train"].x, first(BYTES[np.isin(labels, [2**62, 3])]))


def test_class_names_are_read_from_a_file(tmp_path):
    assert ready(tmp_path, BYTES, arrays={"classes": np.array([b"ant", b"bee", "ü".encode(), b"emu"])}).class_names == [
        "ant",
        "bee",
        "ü",
        "emu",
    ]
    numbers = {"classes": np.array(["7", "3", "0", "1"])}
    data = ready(tmp_path, BYTES, arrays=numbers, classes=[3, 0])
    assert data.class_names == ["3", "0"]
    assert torch.equal(data._splits["train"].x, first(BYTES[np.isin(LABELS, [1, 2])]))
    with pytest.raises(ValueError, match=r"classes: got \[2\], which the data does not have, expected some of \['7'"):
        ready(tmp_path, BYTES, arrays=numbers, classes=[2, 3])
    with pytest.raises(ValueError, match="classes: got the name 'ant' for two classes"):
        ready(tmp_path, BYTES, arrays={"classes": np.array(["ant", "ant", "bee", "cat"])})


@pytest.mark.parametrize("names", [[10.0, 3.0, 0.0, 2.0], [b"10", b" 3", b"0.0", b"2.0"], [10, 3, 0, 2]])
def test_class_names_are_cleaned_like_those_of_a_table(tmp_path, names):
    data = ready(tmp_path, BYTES, arrays={"classes": np.array(names)}, classes=[2, 3])
    assert data.class_names == ["2", "3"]
    assert torch.equal(data._splits["train"].x, first(BYTES[np.isin(LABELS, [1, 3])]))
    assert data._splits["train"].labels.tolist() == [1, 0] * 10


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([0.5, 2.0, 3.0, 1.0], "classes: got 2, which may mean '2.0', expected a name in quotes"),
        (
            [0.5, 20.0, 30.0, 1.0],
            r"classes: got \[2, 3\], which the data does not have, expected some of \['0.5', '20.0'",
        ),
        (["-1", "-2", "-3", "-4"], r"classes: got \[2, 3\], which the data does not have, expected some of \['-1'"),
        (["2", "2.00", "b", "3.5"], "classes: got 2, which may be 2 or 2.00, expected a name in quotes"),
        (["ant", "", "bee", "cat"], "classes: got '' for label 1, expected a name"),
        (["ant", "bee", "  ", "cat"], "classes: got '' for label 2, expected a name"),
        ([1.0, 2.0, 3.0, np.nan], "classes: got 'nan' for label 3, expected a name"),
        (["ant", " ant", "bee", "cat"], "classes: got the name 'ant' for two classes"),
        ([1.0, 1.0, 2.0, 3.0], "classes: got the name '1' for two classes"),
    ],
)
def test_missing_and_ambiguous_class_names_are_refused(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        ready(tmp_path, BYTES, arrays={"classes": np.array(names)}, classes=[2, 3])


def test_negative_numbers_can_be_class_names(tmp_path):
    names = {"classes": np.array([-1, 1, 0, 2**62 + 1])}
    assert ready(tmp_path, BYTES, arrays=names, classes=[-1, 2**62 + 1]).class_names == ["-1", "4611686018427387905"]


def test_labels_beyond_64_bits_with_a_sign(tmp_path):
    labels = np.array([0, 1, 2, 2**64 - 1], dtype=np.uint64)[LABELS]
    with pytest.raises(
        ValueError, match=r"y_train: got 18446744073709551615, expected labels below 2\*\*63; is it the -1"
    ):
        ready(tmp_path, BYTES, labels=labels, classes="found")
