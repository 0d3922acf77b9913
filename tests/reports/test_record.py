import json
import math

import pytest

from nc_lightning.geometry import Ideal
from nc_lightning.reports.record import RunRecord


@pytest.fixture
def record():
    history = [
        {"epoch": 1.0, "geometry/train/nc1": math.inf, "geometry/val/nc1": math.nan},
        {
            "epoch": 2.0,
            "geometry/train/nc1": 0.5,
            "geometry/train/within_class_variation": 0.1,
            "geometry/train/effective_rank": 8.0,
            "loss/train": 0.3,
        },
    ]
    return RunRecord(
        "HSCL, version_0", 10, 9, {"beta": 10.0, "seed": None}, "model: 1\n", history, {"plane": b"\x89PNG"}
    )


def test_a_record_is_read_as_it_was_written(record, tmp_path):
    record.write(tmp_path / "deep" / "report.json")
    for path in (tmp_path / "deep", tmp_path / "deep" / "report.json"):
        again = RunRecord.read(path)
        assert math.isnan(again.history[0].pop("geometry/val/nc1"))
        assert again.history[0]["geometry/train/nc1"] == math.inf
        assert again.figures == record.figures
        assert (again.settings, again.config, again.name) == (record.settings, record.config, record.name)
    json.loads(
        (tmp_path / "deep" / "report.json").read_text(), parse_constant=pytest.fail
    )  # no NaN, which JSON does not have


def test_ideals_of_the_loss_are_kept_and_records_without_them_are_read(record, tmp_path):
    record.own_ideals = {"zero_sum": Ideal(0.56, 0.02, "0.56")}
    record.write(tmp_path / "report.json")
    assert RunRecord.read(tmp_path).own_ideals == record.own_ideals
    fields = json.loads((tmp_path / "report.json").read_text())
    del fields["own_ideals"]
    (tmp_path / "report.json").write_text(json.dumps(fields))
    assert RunRecord.read(tmp_path).own_ideals == {}
    (tmp_path / "report.json").write_text(json.dumps(fields | {"own_ideals": {"zero_sum": 0.56}}))
    with pytest.raises(ValueError, match="damaged"):
        RunRecord.read(tmp_path)


def test_a_record_describes_the_last_measurement(record):
    assert record.latest("geometry/train/")["nc1"] == 0.5
    assert record.latest("geometry/val/") == {}
    assert record.path("train") == [(0.1, 8.0)]
    assert record.path("val") == []
    assert RunRecord("new", 2, 1).latest("geometry/") == {}


def test_a_failed_write_keeps_the_old_file(record, tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    record.write(path)
    before = path.read_bytes()

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        record.write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_bad_files_are_refused(record, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"RUN: got '.*nothing', expected the folder of a run, with its report"):
        RunRecord.read(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="RUN: got"):
        RunRecord.read(tmp_path)
    path = tmp_path / "report.json"
    record.write(path)
    whole = path.read_text()
    changed = json.dumps(json.loads(whole) | {"format": 99})
    wrong = json.dumps(json.loads(whole) | {"surprise": 1})
    for text in ("", "[1]", "{}", "null", whole[: len(whole) // 2], changed, wrong, '{"format": 1}'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"RUN: got '.*', which is damaged or not a record of a run"):
            RunRecord.read(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="damaged"):
        RunRecord.read(path)
