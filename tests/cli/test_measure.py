import json
import math
import sys

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nc_lightning.cli.measure import main
from nc_lightning.geometry import measure, simplex_etf, unit_ball


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
        (["nan.npz"], "nc-measure: error: z: got nan in row 1, expected finite features"),
    ],
)
def test_errors_are_one_line(file, capsys, arguments, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-measure"])
    np.savez("nan.npz", features=np.array([[0.0, 1.0], [math.nan, 2.0]]), labels=np.array([0, 1]))
    with pytest.raises(SystemExit, match="2"):
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
