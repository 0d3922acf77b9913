import re

import numpy as np
import pytest
import torch

from nc_lightning.io.feature_files import FeatureFile

FEATURES = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
LABELS = np.arange(50) % 5


def write(folder, kind, features=FEATURES, labels=LABELS):
    path = folder / f"file.{kind.split()[0]}"
    if kind == "npz":
        np.savez(path, features=features, labels=labels)
    elif kind == "npz packed":
        np.savez_compressed(path, z=features, y=labels)
    elif kind == "npy":
        np.save(path, features)
        np.save(folder / "labels.npy", labels)
        return path, folder / "labels.npy"
    elif kind == "pt":
        torch.save({"embeddings": torch.from_numpy(features), "targets": torch.from_numpy(labels)}, path)
    elif kind == "pt pair":
        torch.save((torch.from_numpy(features), torch.from_numpy(labels)), path)
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file({"z": features, "labels": labels}, path)
    else:
        import pyarrow as pa
        from pyarrow import parquet

        columns = {"labels": labels}
        if kind == "parquet columns":
            columns |= {f"f{i}": features[:, i] for i in range(features.shape[1])}
        else:
            columns |= {"features": list(features)}
        parquet.write_table(pa.table(columns), path, row_group_size=20)
    return (path,)


KINDS = ["npz", "npz packed", "npy", "pt", "pt pair", "parquet", "parquet columns", "safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_file_type_gives_the_same_batches_repeatedly(tmp_path, kind):
    file = FeatureFile(*write(tmp_path, kind))
    assert (len(file), file.feature_dim, file.classes, file.num_unknown) == (50, 6, [0, 1, 2, 3, 4], 0)
    for _ in range(2):
        z, labels = (torch.cat(parts) for parts in zip(*file.batches(7), strict=True))
        assert torch.equal(z, torch.from_numpy(FEATURES))
        assert labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("kind", ["npz", "npy", "parquet", "safetensors"])
def test_labels_are_numbered_and_unknown_ones_are_dropped(tmp_path, kind):
    file = FeatureFile(*write(tmp_path, kind, labels=np.where(LABELS == 3, -1, 10 * LABELS)))
    assert (file.classes, file.num_unknown) == ([0, 10, 20, 40], 10)
    z, labels = (torch.cat(parts) for parts in zip(*file.batches(7), strict=True))
    assert torch.equal(z, torch.from_numpy(FEATURES[LABELS != 3]))
    assert set(labels.tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_labels_may_be_names(tmp_path, kind):
    names = np.array(["cat", "dog", "cow", "ant", "bee"])[LABELS]
    file = FeatureFile(*write(tmp_path, kind, labels=names))
    assert file.classes == ["ant", "bee", "cat", "cow", "dog"]
    assert next(iter(file.batches()))[1][:5].tolist() == [2, 4, 3, 0, 1]


def test_other_number_types_are_read(tmp_path):
    for dtype in (np.float16, np.float64, np.int32, ">f4"):
        np.savez(tmp_path / "file.npz", features=FEATURES.astype(dtype), labels=LABELS)
        z, _ = next(iter(FeatureFile(tmp_path / "file.npz").batches()))
        assert z.is_floating_point()
        assert torch.allclose(z.double(), torch.from_numpy(FEATURES.astype(dtype).astype(np.float64)))


def test_an_archive_is_not_loaded_into_memory(tmp_path, monkeypatch):
    path, *_ = write(tmp_path, "npz packed")
    file = FeatureFile(path)
    monkeypatch.setattr(np, "load", None)
    sizes = [len(z) for z, _ in file.batches(20)]
    assert sizes == [20, 20, 10]


BAD = {
    "no such file": (
        lambda f: [f / "none.npz"],
        FileNotFoundError,
        "FILE: got .*none.npz', expected a file",
    ),
    "ending": (
        lambda f: [touch(f / "a.tsv")],
        ValueError,
        "FILE: got 'a.tsv', expected .npz, .npy, .pt, .pth, .csv, .parquet, .safetensors, or a folder",
    ),
    "no features": (
        lambda f: [npz(f, labels=LABELS)],
        ValueError,
        "FILE: got labels in bad.npz, expected one of features, ",
    ),
    "lengths": (
        lambda f: [npz(f, features=FEATURES, labels=LABELS[:9])],
        ValueError,
        r"got features of shape \(50, 6\) and 9 labels",
    ),
    "images": (
        lambda f: [npz(f, features=FEATURES[:, :, None], labels=LABELS)],
        ValueError,
        r"got features of shape \(50, 6, 1\) in bad.npz, expected \(N, d\)",
    ),
    "float labels": (
        lambda f: [npz(f, features=FEATURES, labels=LABELS / 2)],
        ValueError,
        r"got labels of shape \(50,\) and type float64",
    ),
    "unknown only": (lambda f: [npz(f, features=FEATURES, labels=LABELS * 0 - 1)], ValueError, "unknown labels only"),
    "by columns": (
        lambda f: [npz(f, features=np.asfortranarray(FEATURES), labels=LABELS)],
        ValueError,
        "stored by columns, expected numbers stored by rows",
    ),
    "text": (
        lambda f: [npz(f, features=np.array([["a"]]), labels=LABELS[:1])],
        ValueError,
        "got features of type <U1 in bad.npz",
    ),
    "no name": (
        lambda f: [npz(f, features=FEATURES, labels=np.where(LABELS > 1, "ant", " "))],
        ValueError,
        "FILE: got the label '' in row .*, expected the name of a class",
    ),
    "nan as a name": (
        lambda f: [npz(f, features=FEATURES, labels=np.where(LABELS > 1, "ant", "nan"))],
        ValueError,
        "FILE: got the label 'nan' in row ",
    ),
    "objects": (
        lambda f: [npz(f, features=FEATURES, labels=LABELS.astype(object))],
        ValueError,
        "FILE: got Python objects as labels in bad.npz, expected integers or strings",
    ),
    "damaged labels": (
        lambda f: [*write(f, "npz"), touch(f / "y.npy")],
        ValueError,
        "FILE: got .*y.npy', which is",
    ),
    "damaged": (lambda f: [touch(f / "a.npz")], ValueError, "FILE: got .*a.npz', which is damaged or not a .npz"),
    "damaged pt": (lambda f: [touch(f / "a.pt")], ValueError, "FILE: got .*a.pt', which is damaged or not a .pt"),
    "empty": (lambda f: [npz(f, features=FEATURES[:0], labels=LABELS[:0])], ValueError, "FILE: got "),
}


def touch(path):
    path.write_bytes(b"nothing of use")
    return path


def npz(folder, **arrays):
    np.savez(folder / "bad.npz", **arrays)
    return folder / "bad.npz"


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(tmp_path, case):
    make, error, message = BAD[case]
    with pytest.raises(error, match=message) as raised:
        FeatureFile(*make(tmp_path))
    assert not re.search("\n", str(raised.value))


ODD = {
    "complex.pt": lambda p: torch.save((torch.ones(3, 2, dtype=torch.complex64), torch.arange(3)), p),
    "sparse.pt": lambda p: torch.save((torch.eye(3).to_sparse(), torch.arange(3)), p),
    "complex.npz": lambda p: np.savez(p, z=np.ones((3, 2), dtype=np.complex64), y=np.arange(3)),
    "complex.npy": lambda p: np.save(p, np.ones((3, 2), dtype=np.complex64)),
    "texts.npy": lambda p: np.save(p, np.array([["a", "b"]] * 3)),
}


@pytest.mark.parametrize("name", ODD)
def test_features_that_are_not_dense_numbers_are_refused(tmp_path, name):
    ODD[name](tmp_path / name)
    np.save(tmp_path / "labels.npy", np.arange(3))
    labels = tmp_path / "labels.npy" if name.endswith(".npy") else None
    with pytest.raises(ValueError, match="FILE: got (features|z) of type .*, expected (dense|real) numbers"):
        list(FeatureFile(tmp_path / name, labels).batches())


def test_tables_with_missing_values_are_refused(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [[1.0, 2.0], [3.0, 4.0], [5.0]]
    parquet.write_table(pyarrow.table({"features": rows, "labels": [0, 1, 0]}), tmp_path / "ragged.parquet")
    with pytest.raises(ValueError, match="FILE: got features of several lengths"):
        list(FeatureFile(tmp_path / "ragged.parquet").batches())
    parquet.write_table(pyarrow.table({"features": rows[:2], "labels": ["a", None]}), tmp_path / "gap.parquet")
    with pytest.raises(ValueError, match="FILE: got labels of shape .* expected"):
        FeatureFile(tmp_path / "gap.parquet")


def test_features_in_the_other_byte_order_are_read(tmp_path):
    np.save(tmp_path / "z.npy", np.arange(6.0).reshape(3, 2).astype(">f4"))
    np.save(tmp_path / "labels.npy", np.arange(3))
    ((z, _),) = FeatureFile(tmp_path / "z.npy", tmp_path / "labels.npy").batches()
    assert z.tolist() == [[0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize("kind", ["npz", "npy", "parquet"])
def test_names_in_bytes_are_names(tmp_path, kind):
    names = np.array([b"ant", "bée".encode(), b"cat", b"dog", b"emu"])
    labels = names[LABELS].astype(object) if kind == "parquet" else names[LABELS]
    file = FeatureFile(*write(tmp_path, kind, labels=labels))
    assert file.classes == ["ant", "bée", "cat", "dog", "emu"]
    assert torch.cat([labels for _, labels in file.batches()]).tolist() == LABELS.tolist()


def test_white_space_around_a_name_is_ignored(tmp_path):
    labels = np.array(["ant", " ant", "bee ", "bee"])
    assert FeatureFile(npz(tmp_path, features=np.eye(4), labels=labels)).classes == ["ant", "bee"]
