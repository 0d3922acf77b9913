"""The page of a sweep, read as HTML; tests/browser looks at it."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from nc_lightning.geometry import Ideal
from nc_lightning.reports.record import RunRecord
from nc_lightning.sweeps.report import MOST_ROWS, sweep_html, write_figures
from nc_lightning.sweeps.results import Result

AXES = ["objective", "beta"]
ETF, GAP = "geometry/train/nc2_etf", "loss/optimality_gap"


def cell(root, beta, seed, etf, status="done", objective="hscl"):
    """Return a cell with a folder as a run leaves it."""
    name = f"{objective}-beta={beta}-seed={seed}"
    folder = root / "cells" / name / "lightning_logs" / "version_0"
    folder.mkdir(parents=True)
    (folder.parents[1] / "log.txt").touch()
    settings = {"objective": objective, "beta": beta, "seed": seed}
    if status != "done":
        return Result(name, settings, status, "<broken>")
    (folder / "report.html").touch()
    entry = {"epoch": 1.0, ETF: etf, GAP: 2 - etf, "geometry/train/nc1": 0.01, "geometry/train/zero_sum": 0.0}
    record = RunRecord(name, 10, 9, history=[entry])
    return Result(name, settings, status, "", 2.0, record, (folder / "report.json").resolve())


class Tables(HTMLParser):
    """Reads each table as rows of (text, value to sort by), and all links."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.links, self._inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self._inside = True
            self.tables[-1][-1].append(["", attributes.get("data-value")])
        if tag == "a":
            self.links.append(attributes["href"])

    def handle_endtag(self, tag):
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data):
        if self._inside:
            self.tables[-1][-1][-1][0] += data


def test_settings_are_ranked_with_their_spread_and_link_their_runs(tmp_path):
    results = [cell(tmp_path, beta, seed, beta / 10 + seed / 100) for beta in (5, 2) for seed in (0, 2)]
    results.append(cell(tmp_path, 7, 0, 0.0, status="failed"))
    page = sweep_html(results, AXES, tmp_path, [])
    read = Tables(page)
    (table,) = read.tables
    assert [text for text, _ in table[0]] == [
        *("rank", "nc2 etf", "seeds", "objective", "beta", "nc1", "zero sum", "optimality gap", "seconds")
    ]
    assert [text.strip() for text, _ in table[1]][:5] == ["1", "0.21 (0.2 to 0.22)", "0, 2", "hscl", "2"]
    assert [value for _, value in table[2]][:5] == ["2", "0.51", "2", "hscl", "5"]
    assert len(table) == 3, "a failed cell is no result"
    assert "5 cells: 4 done, 1 failed" in page
    assert page.count("hscl-beta=7-seed=0: failed, &lt;broken&gt;") == 2, "on its own and among all cells"
    paths = [tmp_path / unquote(link) for link in read.links]
    assert all(path.exists() for path in paths)
    assert {path.name for path in paths} == {"report.html", "version_0", "log.txt"}
    assert not any(link.startswith("/") for link in read.links)


def test_another_measure_changes_order_and_first_column(tmp_path):
    results = [cell(tmp_path, beta, 0, beta / 10) for beta in (2, 5)]
    (table,) = Tables(sweep_html(results, AXES, tmp_path, [], GAP)).tables
    assert [text for text, _ in table[0]][1] == "optimality gap"
    assert [row[4][0] for row in table[1:]] == ["5", "2"]


def test_a_large_sweep_has_ten_rows_at_the_top_and_folds_the_others(tmp_path):
    results = [cell(tmp_path, beta, seed, beta / 10) for beta in range(1, 41) for seed in range(3)]
    page = sweep_html(results, AXES, tmp_path, [])
    top, everything = Tables(page).tables
    assert len(top) == MOST_ROWS + 1
    assert len(everything) == 41
    assert "<details><summary>All 40 settings</summary>" in page
    assert "<details><summary>120 cells: 120 done</summary>" in page
    assert len(page) < 1000 * len(results)


def test_large_figures_stay_in_their_files(tmp_path, monkeypatch):
    figure = tmp_path / "figures" / "nc1 of.png"
    figure.parent.mkdir()
    figure.write_bytes(b"abc")
    results = [cell(tmp_path, 2, 0, 0.5)]
    assert 'src="data:image/png;base64,YWJj"' in sweep_html(results, AXES, tmp_path, [figure])
    monkeypatch.setattr("nc_lightning.sweeps.report.MOST_BYTES", 2)
    assert 'src="figures/nc1%20of.png"' in sweep_html(results, AXES, tmp_path, [figure])


def test_a_sweep_without_results_has_a_page(tmp_path):
    waiting = [Result("hscl-seed=0", {"objective": "hscl", "seed": 0}, "waiting")]
    page = sweep_html(waiting, ["objective"], tmp_path, write_figures(waiting, ["objective"], tmp_path / "figures"))
    assert Tables(page).tables == []
    assert "hscl-seed=0: waiting" in page


def titles_of(results, folder, monkeypatch):
    """Return the title and the ideal of each figure of a measure, without drawing any."""
    titles = {}
    monkeypatch.setattr(
        "nc_lightning.sweeps.report.measure_figure",
        lambda groups, axes, key, name, ideal: titles.update({key: (name, ideal)}),
    )
    for name, nothing in {"path_figure": None, "spectra_figure": None, "to_png": b"", "to_pdf": b""}.items():
        monkeypatch.setattr(f"nc_lightning.sweeps.report.{name}", lambda *args, nothing=nothing: nothing)
    write_figures(results, AXES, folder)
    return titles


def test_a_title_has_the_ideal_as_tables_have_it(tmp_path, monkeypatch):
    results = [cell(tmp_path, 2, 0, 0.0)]
    results[0].record.own_ideals = {"nc1": Ideal(8.99996, 0.1, "9")}
    titles = titles_of(results, tmp_path / "figures", monkeypatch)
    assert titles["geometry/train/nc1"] == ("nc1 (ideal: 9)", 8.99996)


def test_ticks_and_figures_use_the_ideals_of_the_loss(tmp_path, monkeypatch):
    results = [cell(tmp_path, 2, 0, 0.0), cell(tmp_path, 40, 0, 0.0, objective="hucl")]
    own = {"nc1": Ideal(0.0, 0.1, "0"), "zero_sum": Ideal(0.56, 0.1, "0.56"), "distance_to_optimum": Ideal(0, 0.1, "0")}
    results[1].record.own_ideals = own
    page = sweep_html(results, AXES, tmp_path, [])
    met = [re.findall(r'class="met"', row) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)[1:]]
    assert [len(marks) for marks in met] == [3, 1], "nc1 of both, the class means only of the one that reaches them"
    titles = titles_of(results, tmp_path / "figures", monkeypatch)
    assert titles["geometry/train/zero_sum"] == ("zero sum (ideal: 0; 0.56 for hucl 40)", None)
    assert titles["geometry/train/nc1"] == ("nc1 (ideal: 0)", 0.0), "all losses share it"
    assert Path(tmp_path / "figures" / "nc1.png").is_file()
