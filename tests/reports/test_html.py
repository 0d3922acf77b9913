import math
import re
from html.parser import HTMLParser

import pytest

from nc_lightning.geometry import measure, simplex_etf
from nc_lightning.plots import to_png, trajectory_figure
from nc_lightning.reports.html import report_html
from nc_lightning.reports.record import RunRecord

VOID = {"meta", "img", "br"}


class Reader(HTMLParser):
    """Collects rows of tables and images, and complains about tags that do not match."""

    def __init__(self):
        super().__init__()
        self.open, self.rows, self.images = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append([dict(attributes).get("class"), ""])
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1][1] += data


def read(page):
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def record(name="HSCL, version_0", classes=4, **geometry):
    import torch

    labels = torch.arange(classes).repeat(3)
    values = measure(simplex_etf(classes, classes - 1)[labels], labels) | geometry
    entry = {"epoch": 7.0, "step": 70.0, "loss/train": 0.25, "loss/bound": 0.2, "loss/optimality_gap": 0.05}
    entry |= {f"geometry/train/{key}": value for key, value in values.items()}
    entry |= {f"geometry/val/{key}": value + 0.5 for key, value in values.items()}
    png = to_png(trajectory_figure({"train": [(1.0, 2.0)]}, classes - 1))
    return RunRecord(name, classes, classes - 1, {"beta": 10.0}, "model:\n  beta: 10", [entry], {"cosines": png})


def test_values_are_shown_with_their_ideal_and_marked_where_they_meet_it():
    rows = {row[0][1]: row[1:] for row in read(report_html([record()])).rows}
    assert [text for _, text in rows["measure"]] == ["train", "val", "ideal"]
    assert [text for _, text in rows["nc1"]][1:] == ["0.5", "0"]
    assert rows["nc1"][0][0] == "met"
    assert rows["effective_rank"][0] == ["met", "3"]
    assert rows["effective_rank"][1] == [None, "3.5"]
    assert rows["loss/optimality_gap"] == [[None, "0.05"], [None, ""], [None, "0"]]
    assert rows["beta"] == [[None, "10"]]
    assert rows["epochs"] == [[None, "7"]]


def test_a_rank_is_not_marked_without_within_class_collapse():
    rows = {row[0][1]: row[1:] for row in read(report_html([record(nc1=0.5)])).rows}
    assert rows["nc1"][0] == [None, "0.5"]
    assert rows["effective_rank"][0] == [None, "3"]


def test_the_report_is_self_contained():
    page = report_html([record(), record("SCL, version_1")])
    assert not re.search(r"https?:|<script|<link|@import|url\(", page)
    images = read(page).images
    assert len(images) == 3  # one of each run, and the trajectory of both
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)


def test_runs_are_side_by_side():
    rows = {row[0][1]: row[1:] for row in read(report_html([record("A"), record("B", classes=5, nc1=math.nan)])).rows}
    assert [text for _, text in rows["measure"]] == ["A, train", "A, val", "B, train", "B, val", "ideal"]
    assert [text for _, text in rows["nc1"]] == ["0", "0.5", "-", "-", "0"]
    assert rows["effective_rank"][-1][1] == "3 or 4"
    assert [text for _, text in rows["loss/train"]] == ["0.25", "", "0.25", "", ""]


def test_texts_are_escaped():
    odd = record("<b>&\"run'")
    odd.settings["psi"] = "<script>alert(1)</script>"
    odd.config = "a: <i>1</i>"
    page = report_html([odd])
    read(page)
    assert "<script>" not in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_records_without_measurements_or_labels_have_a_report():
    assert "unknown" in report_html([RunRecord("new", 10, 9)])
    unlabeled = RunRecord("views", 10, 9, history=[{"epoch": 1.0, "geometry/train/rankme": 3.0}])
    rows = {row[0][1]: row[1:] for row in read(report_html([unlabeled, record()])).rows}
    assert rows["rankme"][0] == [None, "3"]
    assert rows["nc1"][0] == [None, "-"]
    with pytest.raises(ValueError, match="records: got none"):
        report_html([])
