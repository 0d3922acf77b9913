"""The new folder of an export: nothing is overwritten or half written, and errors name it."""

import resource
import sys

import pytest

from nc_lightning.data.preprocess import Preprocess
from nc_lightning.encoders import MLP, TimmEncoder
from nc_lightning.export import export
from nc_lightning.export.encoder import TrainedEncoder
from tests.export.runs import make_run

SHAPE = (3, 32, 32)
SMALL = {"input_shape": list(SHAPE), "hidden_features": [4]}
TIMM = {"name": "test_resnet", "input_shape": list(SHAPE)}

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")


@pytest.fixture
def small(tmp_path):
    return make_run(tmp_path / "run", MLP, SMALL)


def test_nothing_is_overwritten(small, tmp_path):
    first = export(small, "safetensors")
    assert export(small, "safetensors") == small / "encoder-safetensors-1"
    before = {path: path.read_bytes() for path in first.iterdir()}
    with pytest.raises(FileExistsError, match=r"^output: got '.*', which exists, expected a new folder$"):
        export(small, "safetensors", first)
    assert {path: path.read_bytes() for path in first.iterdir()} == before
    assert export(small / "checkpoints" / "last.ckpt", "safetensors", tmp_path / "deep" / "er").is_dir()


def test_nothing_half_written_is_left(small, monkeypatch):
    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(OSError, match="No space left"):
        export(small, "safetensors")
    assert sorted(path.name for path in small.iterdir()) == ["checkpoints", "config.yaml"]


@pytest.fixture
def no_room():
    """Limit the size of files to 8 kB: writing more is an error of the file system, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("format", ["safetensors", "timm", "pt2", pytest.param("onnx", marks=pytest.mark.exhaustive)])
def test_a_full_disk_is_named_with_the_output_and_not_as_a_fault_of_tracing(tmp_path, format, no_room, monkeypatch):
    encoder = TimmEncoder(**TIMM) if format == "timm" else MLP(**SMALL)
    trained = TrainedEncoder(
        encoder.eval(), Preprocess(), tuple(SHAPE), {"class_path": "x.Y"}, "HSCL", 1, tmp_path, None
    )
    monkeypatch.setattr("nc_lightning.export.folder.trained_encoder", lambda run: trained)
    with pytest.raises(OSError, match=r"^output: could not write .*/out: File too large; no file was left$"):
        export("run", format, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("taken/sub", r"\S*/taken is not a folder"),
        pytest.param("/proc/x/y", "/proc/x: No such file or directory", marks=LINUX),
    ],
)
def test_an_output_that_cannot_be_made_is_named(small, tmp_path, output, reason):
    (tmp_path / "taken").touch()
    with pytest.raises(OSError, match=rf"^output: could not write \S*{output}: {reason}; no file was left$"):
        export(small, "safetensors", tmp_path / output)


@pytest.mark.parametrize("format", ["safetensors", pytest.param("timm", marks=pytest.mark.slow)])
def test_all_files_have_the_permissions_of_new_files(tmp_path, format):
    run = make_run(tmp_path / "run", *((TimmEncoder, TIMM) if format == "timm" else (MLP, SMALL)))
    (tmp_path / "new").touch()
    modes = {path.name: path.stat().st_mode for path in export(run, format).iterdir()}
    assert modes == dict.fromkeys(modes, (tmp_path / "new").stat().st_mode)
    assert "model.safetensors" in modes
