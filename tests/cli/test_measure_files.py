"""nc-measure finds features and labels in files of many kinds, and tells files of labels from files to compare."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from nc_lightning.cli.command_error import CommandError
from nc_lightning.cli.measure import OF_NORMS, main
from nc_lightning.geometry import MEASURES, measure, simplex_etf, unit_ball

LABELS = torch.arange(240) % 4
Z = (simplex_etf(4, 6)[LABELS] + 0.1 * torch.randn(240, 6, generator=torch.Generator().manual_seed(0))).double()
EXPECTED = {key: pytest.approx(value, rel=1e-6, abs=1e-9) for key, value in measure(Z, LABELS).items()}
FREE = {key for key, one in MEASURES.items() if one.label_free}


def of_labels(values):
    return {key: value for key, value in values.items() if key != "intrinsic_dimension"}


def write(kind, features, labels):
    z, y = Z.numpy(), LABELS.numpy()
    path = f"file.{kind}"
    if kind == "npz":
        np.savez(path, **{"paths": np.array(["a"]), features: z, labels: y})
    elif kind == "pt":
        torch.save({features: Z, labels: LABELS}, path)
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file({features: z, labels: y}, path)
    elif kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({features: list(z), labels: y, "path": ["a"] * 240}), path)
    elif kind == "csv":
        names = [f"{features}_{i}" for i in range(6)]
        rows = [
            [f"{i}.png", *map(repr, row.tolist()), str(label)] for i, (row, label) in enumerate(zip(z, y, strict=True))
        ]
        Path(path).write_text("\n".join(",".join(row) for row in [["path", *names, labels], *rows]) + "\n")
    else:
        from datasets import Dataset

        path = "saved"
        Dataset.from_dict({features: z.tolist(), labels: y.tolist(), "path": ["a"] * 240}).save_to_disk(path)
    return path


KINDS = ["npz", "pt", "safetensors", "parquet", "csv", "folder"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("features", "labels"), [("X", "y"), ("Embeddings", "target"), ("feats", "label")])
def test_the_usual_names_are_found(in_tmp, kind, features, labels):
    assert of_labels(main([write(kind, features, labels)])) == EXPECTED


@pytest.mark.parametrize("kind", KINDS)
def test_other_names_are_given(in_tmp, kind, capsys):
    path = write(kind, "h", "species")
    with pytest.raises(CommandError, match="expected .*name .* with --features-key"):
        main([path])
    assert of_labels(main([path, "--features-key", "h", "--labels-key", "species"])) == EXPECTED
    with pytest.raises(CommandError, match="species.* in .*, expected no among them"):
        main([path, "--features-key", "no", "--labels-key", "species"])
    with pytest.raises(CommandError, match="species.* in .*, expected no among them"):
        main([path, "--features-key", "h", "--labels-key", "no"])
    capsys.readouterr()
    main([path, "--features-key", "h"])
    assert "note: there are no labels, so only the measures that need none are shown" in capsys.readouterr().err


def test_a_table_of_numbers_alone_has_no_labels(in_tmp):
    np.savetxt("z.csv", Z.numpy(), delimiter=",")
    np.savetxt("y.txt", LABELS.numpy(), fmt="%d")
    assert of_labels(main(["z.csv", "--labels", "y.txt"])) == EXPECTED
    assert set(main(["z.csv"])) == FREE


@pytest.mark.parametrize("form", ["z.npy", "z.pt"])
def test_without_labels_there_are_the_measures_that_need_none(in_tmp, form, capsys):
    np.save("z.npy", Z.numpy())
    torch.save(Z, "z.pt")
    values = main([form])
    assert set(values) == FREE
    for key in FREE - {"intrinsic_dimension"}:
        assert values[key] == EXPECTED[key]
    output = capsys.readouterr()
    assert "Geometry of no classes in 6 dimensions" in output.out
    assert output.err.count("nc-measure: note: there are no labels") == 1
    main([form, "--json"])
    assert set(json.loads(capsys.readouterr().out)) == FREE
    main([form, "--tensorboard", "logs"])
    for option in ("--plot", "--ood"):
        with pytest.raises(CommandError, match=f"{option}: got 'features' without labels, expected labels"):
            main([form, option, "new.png"])


def test_two_arrays_of_features_are_side_by_side_and_share_their_labels(in_tmp):
    np.save("a.npy", Z.numpy())
    np.save("b.npy", 2 * Z.numpy())
    np.save("y.npy", LABELS.numpy())
    assert {name: set(values) for name, values in main(["a.npy", "b.npy"]).items()} == {"a.npy": FREE, "b.npy": FREE}
    shared = main(["a.npy", "b.npy", "--labels", "y.npy"])
    assert shared == main(["a.npy", "y.npy", "b.npy", "y.npy"])
    assert of_labels(shared["a.npy"]) == EXPECTED
    assert of_labels(main(["a.npy", "y.npy"])) == EXPECTED
    mixed = main(["a.npy", "y.npy", "b.npy"])
    assert (of_labels(mixed["a.npy"]), set(mixed["b.npy"])) == (EXPECTED, FREE)


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_the_files_of_a_pattern_are_one_set_in_natural_order(in_tmp, kind):
    for number, rows in enumerate(torch.arange(240).split(20)):  # 0 to 11: 10 comes after 9
        if kind == "npy":
            np.save(f"feats_{number}.npy", Z[rows].numpy())
            np.save(f"labels_{number}.npy", LABELS[rows].numpy())
        else:
            np.savez(f"part{number}.npz", z=Z[rows].numpy(), y=LABELS[rows].numpy())
    values = main(["feats_*.npy", "labels_*.npy"] if kind == "npy" else ["part*.npz"])
    assert of_labels(values) == EXPECTED
    if kind == "npy":
        assert main(["feats_*.npy", "--labels", "labels_*.npy"]) == values


def test_a_hint_names_the_measures_that_assume_normalized_features(in_tmp, capsys):
    np.savez("large.npz", z=10 * Z.numpy(), y=LABELS.numpy())
    main(["large.npz"])
    hint = "note: features are not normalized (norms up to "
    assert hint in (said := capsys.readouterr().err)
    assert all(key in said for key in OF_NORMS)
    main(["large.npz", "--normalization", "unit_ball"])
    assert hint not in capsys.readouterr().err
    once, ten_times = measure(unit_ball(Z), LABELS), measure(10 * unit_ball(Z), LABELS)
    assert {key for key, value in once.items() if ten_times[key] != pytest.approx(value, rel=1e-2)} == set(OF_NORMS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_*.npy"], "FILE: got 'no_*.npy', expected files that match the pattern"),
        (["y.npy"], "FILE: got features of shape (240,) in y.npy, expected (N, d)"),
        (
            ["z.npy", "short.npy"],
            "FILE: got features of shape (240, 6) in z.npy and 7 labels in short.npy, expected (N, d) and N",
        ),
        (["empty.csv"], "FILE: got no columns in empty.csv, expected columns of features"),
        (["alone.csv"], "FILE: got y in alone.csv, expected columns of features"),
        (
            ["pickled.pt"],
            "FILE: got Python objects in pickled.pt, which only pickle can read and may run code, expected",
        ),
        (
            ["z.npy", "y.npy", "y.npy"],
            "FILE: got features of shape (240,) in y.npy, expected (N, d); if these are labels",
        ),
        (["z.npy", "--labels", "z.npz"], "--labels: got 'z.npz', expected a .npy, .pt or .txt with labels alone"),
        (["z.npy", "--labels", "no.npy"], "FILE: got 'no.npy', expected a file that exists"),
        (
            ["z.npy", "column.npy"],
            "FILE: got labels of shape (240, 1) and type int64 in column.npy, expected (N,) integers",
        ),
        (
            ["[zs]*.npy", "y.npy"],
            "FILE: got features of shape (240, 6) without labels in z.npy and (7,) in sh",
        ),
        (["ragged.csv"], "FILE: got 1 values in row 2 of ragged.csv, expected 2"),
        (["text.csv"], "FILE: got 'b' in column name and row 1 of text.csv, expected numbers; name the features with"),
        (["folder"], "FILE: got the folder 'folder', expected a file, a pattern such as 'feats_*.npy', or the folder"),
        (["z.xyz"], "FILE: got 'z.xyz', expected .npz, .npy, .pt, .pth, .csv, .parquet, .safetensors, or a folder"),
    ],
)
def test_errors_say_what_to_do(in_tmp, arguments, message):
    np.save("z.npy", Z.numpy())
    np.savez("z.npz", z=Z.numpy(), y=LABELS.numpy())
    np.save("y.npy", LABELS.numpy())
    np.save("short.npy", LABELS[:7].numpy())
    np.save("column.npy", LABELS[:, None].numpy())
    Path("ragged.csv").write_text("a,b\n1,2\n3\n")
    Path("text.csv").write_text("a,name\n1,2\n3,b\n")
    Path("empty.csv").touch()
    Path("alone.csv").write_text("y\n1\n")
    torch.save({"z": Z.numpy()}, "pickled.pt")
    Path("z.xyz").touch()
    Path("folder").mkdir()
    with pytest.raises(CommandError) as raised:
        main(arguments)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_a_data_set_with_splits_names_them(in_tmp):
    from datasets import Dataset, DatasetDict

    part = Dataset.from_dict({"x": Z.tolist(), "y": LABELS.tolist()})
    DatasetDict({"train": part, "test": part}).save_to_disk("both")
    with pytest.raises(CommandError, match="which has several splits, expected one: both/test, both/train"):
        main(["both"])
    assert of_labels(main(["both/test"])) == EXPECTED


def csv(path, **columns):
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    Path(path).write_text("\n".join(rows) + "\n")


FRACTIONS = {f"f{i}": Z[:, i].tolist() for i in range(6)}


def test_a_column_named_class_has_the_labels(in_tmp):
    csv("z.csv", **FRACTIONS, Class=LABELS.tolist())
    assert of_labels(main(["z.csv"])) == EXPECTED


def test_columns_taken_as_features_are_named_and_those_of_whole_numbers_suspected(in_tmp, capsys):
    csv("z.csv", id=range(240), **FRACTIONS, kind=LABELS.tolist())
    np.savetxt("bare.csv", torch.cat([Z, LABELS[:, None]], 1).numpy(), delimiter=",")
    main(["z.csv"])
    notes = capsys.readouterr().err
    assert "the features are the columns id, f0, f1, ..., f5, kind" in notes
    assert "note: columns of whole numbers (id, kind) are measured as features" in notes
    main(["z.csv", "--labels-key", "kind"])
    assert "note: columns of whole numbers (id) are measured" in capsys.readouterr().err
    assert of_labels(main(["z.csv", "--labels-key", "kind", "--features-key", "f"])) == EXPECTED
    main(["bare.csv"])
    assert "note: columns of whole numbers (6) are measured" in capsys.readouterr().err
    assert of_labels(main(["bare.csv", "--labels-key", "6"])) == EXPECTED
    csv("counts.csv", a=range(240), b=LABELS.tolist())
    main(["counts.csv"])
    assert "of whole numbers" not in capsys.readouterr().err


def test_labels_given_apart_replace_those_in_the_file(in_tmp):
    np.savez("z.npz", z=Z.numpy(), y=np.zeros(240, dtype=int))
    np.save("y.npy", LABELS.numpy())
    assert of_labels(main(["z.npz", "--labels", "y.npy"])) == EXPECTED


@pytest.mark.parametrize("kind", ["npz", "csv", "txt", "npy"])
def test_whole_numbers_with_a_point_are_labels(in_tmp, kind):
    labels = LABELS.double().numpy()
    np.savez("z.npz", z=Z.numpy(), y=labels)
    csv("z.csv", **FRACTIONS, y=labels.tolist())
    np.save("z.npy", Z.numpy())
    np.savetxt("y.txt", labels)
    Path("y.txt").write_text(Path("y.txt").read_text() + "\n\n")
    np.save("y.npy", labels)
    files = {"npz": ["z.npz"], "csv": ["z.csv"], "txt": ["z.npy", "--labels", "y.txt"], "npy": ["z.npy", "y.npy"]}
    assert of_labels(main(files[kind])) == EXPECTED


@pytest.mark.parametrize("kind", KINDS)
def test_a_given_name_is_found_in_any_case_and_a_near_one_suggested(in_tmp, kind):
    path = write(kind, "penultimate", "species")
    assert of_labels(main([path, "--features-key", "Penultimate", "--labels-key", "SPECIES"])) == EXPECTED
    with pytest.raises(CommandError, match="expected penult among them; did you mean penultimate.$"):
        main([path, "--features-key", "penult"])
    with pytest.raises(CommandError, match="expected specis among them; did you mean species.$"):
        main([path, "--features-key", "penultimate", "--labels-key", "specis"])


def test_tensors_of_a_training_are_read_without_a_warning(in_tmp, recwarn):
    torch.save({"z": Z.clone().requires_grad_(), "y": LABELS}, "z.pt")
    assert of_labels(main(["z.pt"])) == EXPECTED
    assert not [str(one.message) for one in recwarn if "requires_grad" in str(one.message)]
