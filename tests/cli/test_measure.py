import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.cli.measure import main
from nc_lightning.geometry import ClassStatistics, intrinsic_dimension, nc5, simplex_etf, unit_ball
from nc_lightning.geometry import measure as measures_of_statistics


def measure(z, labels):
    """All values of the command; those of neighbors on at most 1,000 samples spread evenly."""
    sample = z[torch.arange(1000) * len(z) // 1000] if len(z) > 1000 else z
    return measures_of_statistics(z, labels) | {"intrinsic_dimension": intrinsic_dimension(sample).item()}


@pytest.fixture
def file(in_tmp):
    labels = torch.arange(6).repeat(200)
    z = (simplex_etf(6, 8)[labels] + 0.1 * torch.randn(1200, 8)).float()
    np.savez("features.npz", features=z.numpy(), labels=labels.numpy())
    return z, labels


def test_nc_measure_prints_the_values_of_measure(file, capsys):
    z, labels = file
    assert main(["features.npz"]) == pytest.approx(measure(z, labels), rel=1e-12, abs=1e-12)
    output = capsys.readouterr().out
    for text in ("Geometry of 6 classes in 8 dimensions", "effective_rank", "ncc_accuracy", "ideal"):
        assert text in output
    assert main(["features.npz", "--normalization", "unit_ball"]) == pytest.approx(measure(unit_ball(z), labels))


def test_files_may_be_larger_than_a_batch(in_tmp):
    z, labels = torch.randn(9001, 3), torch.randint(4, (9001,))
    np.save("z.npy", z.numpy())
    np.save("y.npy", labels.numpy())
    assert main(["z.npy", "y.npy"]) == pytest.approx(measure(z, labels), rel=1e-9, abs=1e-12)


def test_other_data_are_compared_with_the_class_means(file, capsys):
    z, labels = file
    other = torch.randn(5000, 8) + 1
    np.savez("ood.npz", features=other.numpy())  # without labels
    np.savez("unknown.npz", features=other.numpy(), labels=np.full(5000, -1))
    np.save("ood.npy", other.numpy())
    torch.save(other, "ood.pt")
    torch.save({"z": other}, "dict.pt")
    expected = nc5(ClassStatistics(6, 8).update(z, labels), other.double().mean(0)).item()
    for name in ("ood.npz", "unknown.npz", "ood.npy", "ood.pt", "dict.pt"):
        assert main(["features.npz", "--ood", name])["nc5"] == pytest.approx(expected, rel=1e-9)
    assert "nc5" in capsys.readouterr().out
    ball = nc5(ClassStatistics(6, 8).update(unit_ball(z), labels), unit_ball(other).double().mean(0)).item()
    values = main(["features.npz", "--ood", "ood.npy", "--normalization", "unit_ball"])
    assert values["nc5"] == pytest.approx(ball, rel=1e-9)
    assert "nc5" not in main(["features.npz"])


def test_other_data_in_a_table_need_no_labels(file):
    import pyarrow as pa
    from pyarrow import parquet

    columns = {f"d{i}": np.arange(4.0) - i for i in range(8)}
    parquet.write_table(pa.table(columns), "ood.parquet")
    parquet.write_table(pa.table(columns | {"labels": np.arange(4)}), "labeled.parquet")
    values = [main(["features.npz", "--ood", name])["nc5"] for name in ("ood.parquet", "labeled.parquet")]
    assert values[0] == values[1] > 0


def test_a_sample_is_used_for_neighbors_and_said(file, capsys):
    main(["features.npz"])
    assert "nc-measure: note: intrinsic_dimension is that of 1000 samples" in capsys.readouterr().err
    np.savez("few.npz", features=np.random.default_rng(0).normal(size=(20, 3)), labels=np.arange(20) % 2)
    assert math.isnan(main(["few.npz"])["intrinsic_dimension"])
    assert "intrinsic_dimension is" not in capsys.readouterr().err


def test_json_output_holds_every_value(file, capsys):
    z, labels = file
    main(["features.npz", "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values == pytest.approx(measure(z, labels), rel=1e-12, abs=1e-12)
    np.savez("one.npz", features=z[:1].numpy(), labels=labels[:1].numpy())
    main(["one.npz", "--json"])
    assert json.loads(capsys.readouterr().out)["nc1"] is None


def test_a_plot_and_tensorboard_events_are_written(file):
    main(["features.npz", "--plot", "out.png", "--tensorboard", "logs"])
    with open("out.png", "rb") as image:
        assert image.read(8) == b"\x89PNG\r\n\x1a\n"
    events = EventAccumulator("logs")
    events.Reload()
    assert "geometry/features/nc1" in events.Tags()["scalars"]
    assert events.Tags()["images"] == ["geometry/features"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.npz"], "nc-measure: error: FILE: got 'none.npz', expected a file that exists"),
        (["features.npz", "--plot", "features.npz"], "nc-measure: error: --plot: got 'features.npz', which exists"),
        (["nan.npz"], "nc-measure: error: FILE: got nan in row 1 of nan.npz, expected finite features"),
        (["features.npz", "--ood", "none.npz"], "nc-measure: error: FILE: got 'none.npz', expected a file that exists"),
        (["features.npz", "--ood", "two.npz"], "nc-measure: error: --ood: got features of dimension 2, expected 8"),
        (["nan8.npz", "--ood", "nan8.npz"], "nc-measure: error: FILE: got nan in row 3 of nan8.npz"),
        (["features.npz", "--ood", "nan8.npz"], "nc-measure: error: FILE: got nan in row 3 of nan8.npz"),
        (["features.npz", "--ood", "text.npz"], "nc-measure: error: FILE: got 'text.npz', which is damaged"),
        (["features.npz", "--ood", "flat.npz"], "nc-measure: error: FILE: got features of shape (3,) in flat.npz"),
        (
            ["features.npz", "--ood", "named.npz"],
            "nc-measure: error: FILE: got other in named.npz, expected one of features, feature, feats",
        ),
    ],
)
def test_errors_are_one_line(file, capsys, arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-measure"])
    np.savez("nan.npz", features=np.array([[0.0, 1.0], [math.nan, 2.0]]), labels=np.array([0, 1]))
    np.savez("nan8.npz", features=np.full((4, 8), [[0.0], [0.0], [0.0], [math.nan]]), labels=np.zeros(4, dtype=int))
    np.savez("two.npz", features=np.zeros((3, 2)))
    np.savez("flat.npz", features=np.zeros(3))
    np.savez("named.npz", other=np.zeros((3, 8)))
    Path("text.npz").write_text("no archive")
    with pytest.raises(SystemExit, match="2"), exit_on_error():
        main(arguments)
    error = capsys.readouterr().err
    assert error.startswith(message)
    assert error.count("\n") == 1


def test_a_single_class_has_a_table(in_tmp, capsys):
    np.savez("one.npz", features=np.eye(3), labels=np.zeros(3, dtype=int))
    assert main(["one.npz"])["ncc_accuracy"] == 1
    assert "single class" in capsys.readouterr().err


def test_unlabeled_samples_are_counted(in_tmp, capsys):
    np.savez("some.npz", features=np.random.default_rng(0).normal(size=(9, 3)), labels=np.arange(9) % 3 - 1)
    main(["some.npz"])
    assert "nc-measure: note: 3 samples without a label are skipped" in capsys.readouterr().err


def test_class_names_and_paths_do_not_change_the_values(file, capsys):
    z, labels = file
    more = {"class_names": np.array(["10", "2", "3", "4", "5", "6"]), "paths": np.arange(1200).astype(str)}
    np.savez("predictions.npz", features=z.numpy(), labels=labels.numpy(), **more)
    assert main(["predictions.npz"]) == main(["features.npz"])


@pytest.fixture
def layers(file):
    z, labels = file
    h = torch.randn(len(z), 5)
    names = np.array([f"class {label}" for label in range(6)])
    np.savez("layers.npz", encoder=h.numpy(), z=z.numpy(), labels=labels.numpy(), class_names=names)
    np.save("h.npy", h.numpy())
    np.save("y.npy", labels.numpy())
    return h, z, labels


def test_arrays_of_a_file_are_side_by_side(layers, capsys):
    h, z, labels = layers
    values = main(["layers.npz", "--features-key", "encoder,z"])
    expected = {"encoder": measure(h, labels), "z": measure(z, labels)}
    assert list(values) == ["encoder", "z"]
    assert values == {name: pytest.approx(own, rel=1e-9, abs=1e-9) for name, own in expected.items()}
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].strip() == "Geometry of 6 classes in 5 dimensions, 6 classes in 8 dimensions"
    assert next(line.split() for line in shown if "ncc_accuracy" in line)[:2] == [
        "ncc_accuracy",
        f"{expected['encoder']['ncc_accuracy']:.5g}",
    ]
    main(["layers.npz", "--features-key", "encoder,z", "--json"])
    assert json.loads(capsys.readouterr().out)["z"]["nc1"] == values["z"]["nc1"]
    assert main(["layers.npz", "--features-key", "encoder"]) == values["encoder"]


def test_files_are_side_by_side(layers, in_tmp):
    h, _, labels = layers
    values = main(["h.npy", "y.npy", "features.npz", "--plot", "compared.png", "--tensorboard", "logs"])
    assert list(values) == ["h.npy", "features.npz"]
    assert values["h.npy"]["nc1"] == pytest.approx(measure(h, labels)["nc1"])
    assert (in_tmp / "compared.png").is_file()
    events = EventAccumulator("logs").Reload()
    assert events.Scalars("geometry/h.npy/nc1")[0].value == pytest.approx(values["h.npy"]["nc1"], rel=1e-6)
    torch.save({"encoder": h, "labels": labels}, "layers.pt")
    of_both = main(["layers.npz", "layers.pt", "--features-key", "encoder"])
    assert list(of_both) == ["layers.npz: encoder", "layers.pt: encoder"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["layers.npz", "--features-key", "encoder,h"],
            "FILE: got class_names, encoder, labels, z in layers.npz, expected h among",
        ),
        (
            ["layers.npz", "--features-key", "z,z"],
            "--features-key: got 'z,z', expected different names, separated by commas",
        ),
        (["layers.npz", "--features-key", ""], "--features-key: got '', expected different names, separated by commas"),
        (["late.npz", "features.npz"], "FILE: got nan in row 4999 of late.npz, expected finite features"),
        (["features.npz", "--ood", "ood.npz"], "FILE: got nan in row 4999 of ood.npz, expected finite features"),
        (
            ["features.npz", "short.npz"],
            "FILE: got features of shape (3, 2) and 2 labels in short.npz, expected (N, d)",
        ),
        (["layers.npz", "layers.npz"], "FILE: got 'layers.npz' twice, expected each file and array once"),
    ],
)
def test_bad_comparisons_are_refused_with_one_line(layers, capsys, arguments, message):
    late = np.zeros((5000, 8))
    late[-1] = np.nan
    np.savez("ood.npz", features=late)
    late[0] = np.nan  # has no label
    np.savez("late.npz", features=late, labels=np.arange(5000) % 3 - 1)
    np.savez("short.npz", features=np.zeros((3, 2)), labels=np.arange(2))
    with pytest.raises(SystemExit), exit_on_error():
        main(arguments)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--plot", "out.xyz", "--plot: got 'out.xyz', expected a file that ends in ."),
        ("--plot", "out", "--plot: got 'out', expected a file that ends in "),
        ("--plot", "features.npz/out.png", "--plot: got the folder 'features.npz', expected one to write to: "),
        ("--plot", "/proc/out.png", "--plot: got the folder '/proc', expected one to write to: "),
        ("--tensorboard", "features.npz/logs", "--tensorboard: got the folder 'features.npz/logs', expected one to"),
        ("--tensorboard", "/proc/logs", "--tensorboard: got the folder '/proc/logs', expected one to write to: "),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_before_anything_is_measured(
    file, capsys, in_tmp, option, value, message
):
    with pytest.raises(SystemExit), exit_on_error():
        main(["features.npz", option, value])
    output, error = capsys.readouterr()
    assert output == ""
    assert error.startswith(f"nc-measure: error: {message}")
    assert error.count("\n") == 1
    assert [path.name for path in in_tmp.iterdir()] == ["features.npz"]


def test_a_plot_is_of_the_kind_of_its_ending_in_a_new_folder(file, in_tmp):
    main(["features.npz", "--plot", "new/OUT.PDF"])
    assert (in_tmp / "new" / "OUT.PDF").read_bytes().startswith(b"%PDF")
    assert len(list((in_tmp / "new").iterdir())) == 1
