import numpy as np
import pytest

from nc_lightning.io import feature_writers
from nc_lightning.io.feature_files import FeatureFile
from nc_lightning.io.feature_writers import FORMATS, check_texts, write_arrays

ARRAYS = {
    "encoder": np.random.default_rng(0).standard_normal((9001, 3)),
    "z": np.random.default_rng(1).standard_normal((9001, 2)).astype(np.float32),
    "labels": np.arange(9001) % 4 - 1,
    "paths": np.arange(9001).astype(str),
}


@pytest.mark.parametrize("extension", FORMATS)
def test_what_is_written_is_measured(tmp_path, extension):
    path = tmp_path / f"file{extension}"
    write_arrays(path, extension, ARRAYS, ["ant", "bee", "cat"])
    file = FeatureFile(path)
    assert (len(file), file.feature_dim, file.num_unknown, file.classes) == (9001, 2, 2251, [0, 1, 2])
    known = ARRAYS["labels"] >= 0
    assert np.array_equal(np.concatenate([z for z, _ in file.batches()]), ARRAYS["z"][known])


@pytest.mark.parametrize("extension", FORMATS)
def test_arrays_without_rows_and_without_names_are_written(tmp_path, extension):
    write_arrays(tmp_path / "file", extension, {name: array[:0] for name, array in ARRAYS.items()})
    assert (tmp_path / "file").stat().st_size > 0


def test_an_unlabeled_row_of_a_table_has_no_class_name(tmp_path):
    from pyarrow import parquet

    write_arrays(tmp_path / "file", ".parquet", ARRAYS, ["ant", "bee", "cat"])
    assert parquet.read_table(tmp_path / "file")["class_names"].to_pylist()[:5] == [None, "ant", "bee", "cat", None]


def test_a_full_disk_is_an_oserror_in_every_format(tmp_path):
    for extension in FORMATS:
        with pytest.raises(OSError, match="No such file"):
            write_arrays(tmp_path / "none" / "file", extension, ARRAYS)


def test_more_text_than_a_header_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_writers, "_HEADER_BYTES", 100)
    with pytest.raises(
        ValueError, match="path: got '.*f.safetensors' for 20 file names of 0 MB, expected at most 90 MB"
    ):
        check_texts("path", tmp_path / "f.safetensors", ["name"] * 20)
    check_texts("path", tmp_path / "f.npz", ["name"] * 20)
