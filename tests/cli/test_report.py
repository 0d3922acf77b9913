from pathlib import Path

import pytest

from nc_lightning.cli import report as nc_report
from nc_lightning.reports.record import RunRecord


@pytest.fixture(autouse=True)
def _runs(in_tmp):
    for name in ("a/version_0", "a/version_1", "b/version_0"):
        history = [{"epoch": 1.0, "geometry/train/nc1": 0.125}]
        RunRecord(f"HSCL, {Path(name).name}", 10, 9, history=history).write(Path(name) / "report.json")


def test_nc_report_rebuilds_the_report_of_a_run(capsys):
    path = nc_report.main(["a/version_0"])
    assert path == Path("a/version_0/report.html")
    assert "0.125" in path.read_text()
    assert capsys.readouterr().out == "report: a/version_0/report.html\n"
    path.write_text("old")
    nc_report.main(["a/version_0/report.json"])
    assert "0.125" in path.read_text()


def test_the_report_of_several_runs_overwrites_nothing():
    assert nc_report.main(["a/version_0", "a/version_1"]) == Path("comparison.html")
    assert nc_report.main(["a/version_0", "b/version_0"]) == Path("comparison-1.html")
    assert "HSCL, version_0 (b/version_0)" in Path("comparison-1.html").read_text()
    assert "(a/version_0)" not in Path("comparison.html").read_text()


def test_the_output_can_be_chosen():
    assert nc_report.main(["a/version_0", "--output", "new/mine.html"]) == Path("new/mine.html")
    assert Path("new/mine.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nc-report: error: RUN: got 'nowhere', expected the folder of a run"),
        (["a"], "nc-report: error: RUN: got 'a', expected the folder of a run"),
        (["broken.json"], "nc-report: error: RUN: got 'broken.json', which is damaged"),
        (["a/version_0", "--output", "there.html"], "nc-report: error: --output: got 'there.html', which exists"),
        (
            ["a/version_0", "--output", "there.html/sub.html"],
            "nc-report: error: --output: could not write there.html/sub.html: there.html is not a folder; no file was",
        ),
    ],
)
def test_bad_input_prints_one_line_and_exits_with_code_2(arguments, message, refusal):
    Path("broken.json").write_text("{")
    Path("there.html").write_text("mine")
    assert refusal(nc_report.main, arguments).startswith(message)
    assert Path("there.html").read_text() == "mine"
