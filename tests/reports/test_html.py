import json
import math
import re
from html.parser import HTMLParser

import pytest

from nc_lightning.geometry import Ideal, measure, simplex_etf
from nc_lightning.plots import to_png, trajectory_figure
from nc_lightning.reports.html import _cosines, report_html
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
    entry |= {"loss/val": 0.75, "probe/train_accuracy": 0.875, "knn/val": 0.5}
    entry |= {f"geometry/train/{key}": value for key, value in values.items()}
    entry |= {f"geometry/val/{key}": value + 0.5 for key, value in values.items()}
    png = to_png(trajectory_figure({"train": [(1.0, 2.0)]}, classes - 1))
    return RunRecord(name, classes, classes - 1, {"beta": 10.0}, "model:\n  beta: 10", [entry], {"cosines": png})


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="charts">(.*?)</script>', page)[1])


def test_values_are_shown_with_their_ideal_and_marked_where_they_meet_it():
    rows = {row[0][1]: row[1:] for row in read(report_html([record()])).rows}
    assert [text for _, text in rows["measure"]] == ["train", "val", "ideal"]
    assert [text for _, text in rows["nc1"]][1:] == ["0.5", "0"]
    assert rows["nc1"][0][0] == "met"
    assert rows["effective_rank"][0] == ["met", "3"]
    assert rows["effective_rank"][1] == [None, "3.5"]
    assert rows["loss/optimality_gap"] == [[None, "0.05"], [None, ""], [None, "0"]]
    assert rows["loss/val"] == [[None, ""], [None, "0.75"], [None, ""]]
    assert rows["probe/train_accuracy"] == [[None, "0.875"], [None, ""], [None, ""]]
    assert rows["knn/val"] == [[None, ""], [None, "0.5"], [None, ""]]
    assert rows["beta"] == [[None, "10"]]
    assert rows["epochs"] == [[None, "7"]]


def test_a_rank_is_not_marked_without_within_class_collapse():
    rows = {row[0][1]: row[1:] for row in read(report_html([record(nc1=0.5)])).rows}
    assert rows["nc1"][0] == [None, "0.5"]
    assert rows["effective_rank"][0] == [None, "3"]


def test_the_report_is_self_contained():
    page = report_html([record(), record("SCL, version_1")])
    assert not re.search(r"<script[^>]* src|<link|@import|url\(|<(a|img|iframe)[^>]*https?:", page)
    assert len(page) - sum(len(image["src"]) for image in read(page).images) < 100_000
    images = read(page).images
    assert len(images) == 3  # one of each run, and the trajectory of both
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)


def test_runs_are_side_by_side():
    rows = {row[0][1]: row[1:] for row in read(report_html([record("A"), record("B", classes=5, nc1=math.nan)])).rows}
    assert [text for _, text in rows["measure"]] == ["A, train", "A, val", "B, train", "B, val", "ideal"]
    assert [text for _, text in rows["nc1"]] == ["0", "0.5", "-", "-", "0"]
    assert rows["effective_rank"][-1][1] == "3 or 4"
    assert [text for _, text in rows["loss/train"]] == ["0.25", "", "0.25", "", ""]


def test_a_comparison_begins_with_what_differs_and_folds_the_rest():
    runs = [record("A"), record("B"), record("C")]
    for run, beta in zip(runs, (2.0, 5.0, 5.0), strict=True):
        run.settings = {"objective": "HSCL", "beta": beta}
        run.config = f"model: {{init_args: {{beta: {beta}, psi: [1, 2]}}}}\ntrainer: [{{seed: {int(beta)}}}]"
    page = report_html(runs)
    first = page[page.index("<h2>What differs</h2>") : page.index("<details>")]
    assert [[text for _, text in row] for row in read(first).rows] == [["", "A", "B", "C"], ["beta", "2", "5", "5"]]
    options = page[page.index("<details>") : page.index("</details>") + len("</details>")]
    assert [[text for _, text in row] for row in read(options).rows][1:] == [
        ["model.init_args.beta", "2.0", "5.0", "5.0"],
        ["trainer.0.seed", "2", "5", "5"],
    ]
    rest = page[page.index("<h2>The same in all runs</h2>") : page.index("<h2>Configuration</h2>")]
    assert [[text for _, text in row] for row in read(rest).rows][1:] == [["objective", "HSCL"], ["epochs", "7"]]
    assert "What differs" not in report_html(runs[:1])


def test_the_charts_are_part_of_the_page_and_cannot_end_its_script():
    page = report_html([record("</script><b>"), record("B")])
    charts = data_of(page)
    assert [chart["title"].split(",")[0] for chart in charts] == [
        "Loss",
        "Loss minus its lower bound",
        "NC1",
        "Effective rank of the class means",
    ]
    assert charts[0]["lines"][0]["name"] == "</script><b>, train"
    assert page.count('<figure class="chart">') == len(charts)
    assert "uPlot" not in report_html([RunRecord("new", 10, 9)])


def with_own_ideals(name="HUCL", zero_sum=0.56, distance=0.01, **geometry):
    run = record(name, distance_to_optimum=distance, zero_sum=zero_sum, **geometry)
    values = {"nc1": 0.0, "distance_to_optimum": 0.0, "zero_sum": 0.56, "loss/optimality_gap": 0.0}
    run.own_ideals = {key: Ideal(value, 0.02, f"{value:g}") for key, value in values.items()}
    return run


def test_a_loss_with_another_minimum_is_judged_by_its_own_ideals():
    page = report_html([with_own_ideals()])
    rows = {row[0][1]: row[1:] for row in read(page).rows}
    assert [text for _, text in rows["measure"]] == ["train", "val", "this loss", "NC"]
    assert rows["zero_sum"] == [["met", "0.56"], [None, "1.06"], [None, "0.56"], [None, "0"]]
    assert rows["distance_to_optimum"][0] == ["met", "0.01"]
    assert [text for _, text in rows["distance_to_optimum"]][2:] == ["0", ""]
    assert rows["effective_rank"][0] == [None, "3"]  # not known at this minimum
    assert [text for _, text in rows["loss/optimality_gap"]] == ["0.05", "", "0", ""]
    assert 'that of "this loss"' in page.replace("&#34;", '"')
    far = {row[0][1]: row[1:] for row in read(report_html([with_own_ideals(distance=0.5)])).rows}
    assert far["zero_sum"][0] == [None, "0.56"]


def test_runs_with_and_without_own_ideals_are_compared():
    page = report_html([record("A", zero_sum=0.56), with_own_ideals("B")])
    rows = {row[0][1]: [text for _, text in row[1:]] for row in read(page).rows}
    assert rows["measure"] == ["A, train", "A, val", "B, train", "B, val", "B, this loss", "NC"]
    assert rows["zero_sum"] == ["0.56", "1.06", "0.56", "1.06", "0.56", "0"]
    assert rows["distance_to_optimum"] == ["-", "-", "0.01", "0.51", "0", ""]
    assert rows["loss/optimality_gap"] == ["0.05", "", "0.05", "", "0", "0"]
    marks = [mark for mark, _ in next(row[1:] for row in read(page).rows if row[0][1] == "zero_sum")]
    assert marks == [None, None, "met", None, None, None]


def test_texts_are_escaped():
    odd = record("<b>&\"run'")
    odd.settings["psi"] = "<script>alert(1)</script>"
    odd.config = "a: <i>1</i>"
    page = report_html([odd])
    read(page)
    assert "<script>alert" not in page
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


def test_runs_set_side_by_side_show_their_classes_in_one_order():
    def record(name, pairs):
        rows = [[1.0 if j == k else 0.9 if {j, k} in pairs else -0.3 for j in range(k + 1)] for k in range(6)]
        cosines = {"classes": 6, "names": [], "labels": list(range(6)), "rows": rows}
        return RunRecord(name, 6, 5, figures={"cosines": b"in an order of its own"}, cosines=cosines)

    same = [record("a", [{0, 5}, {1, 4}, {2, 3}]), record("b", [{0, 5}, {1, 4}, {2, 3}])]
    other = record("c", [{0, 1}, {2, 3}, {4, 5}])
    (first, second), (once, _, again) = _cosines(same), _cosines([same[0], other, other])
    assert first == second, "equal cosines are equal pictures"
    assert first != once, "the order depends on all runs"
    assert again["cosines"] != once["cosines"]
    assert "in an order of its own" not in report_html([*same, other])
    assert _cosines([RunRecord("old", 6, 5)]) == [{}], "records of earlier versions have no cosines"
