"""Reports and pages of sweeps of any number of classes and cells, on a phone and a desk, by day and by night."""

import itertools
import re
from dataclasses import replace

import pytest
import torch

from nc_lightning.geometry import ClassStatistics, measure
from nc_lightning.plots import cosines_figure, spectrum_figure, to_png
from nc_lightning.reports.html import report_html
from nc_lightning.reports.record import RunRecord
from nc_lightning.sweeps.report import sweep_html, write_figures
from nc_lightning.sweeps.results import Result

pytestmark = pytest.mark.browser
SIZES = {"phone": {"width": 390, "height": 800}, "desk": {"width": 1300, "height": 900}}


def record(name, classes, epochs=3):
    """Return the record of a run of random features that contract."""
    torch.manual_seed(0)
    labels = torch.arange(classes).repeat(2)
    means, noise = torch.randn(classes, 16)[labels], torch.randn(2 * classes, 16)
    history = []
    for epoch in range(1, epochs + 1):
        values = measure(means + noise / epoch, labels)
        history.append(
            {"epoch": float(epoch), "step": 10.0 * epoch, "loss/train": 0.25 + 1 / epoch, "loss/val": 1.5 + 1 / epoch}
            | {"loss/bound": 0.25, "loss/optimality_gap": 1 / epoch, "probe/val_accuracy": 0.5}
            | {f"geometry/{part}/{key}": value for part in ("train", "val") for key, value in values.items()}
        )
    stats = ClassStatistics(classes, 16).update(means + noise, labels)
    figures = {"cosines": to_png(cosines_figure(stats)), "spectrum": to_png(spectrum_figure(stats))}
    settings = {"objective": name, "augmentation": f"Compose({'RandomHorizontalFlip(p=0.5), ' * 20})"}
    return RunRecord(name, classes, 16, settings, f"model: {{name: {name}}}", history, figures)


FITS = "document.documentElement.scrollWidth <= window.innerWidth"
CHARTS_FIT = """(boxes => boxes.length === 4 && boxes.every(box => box.width > 250 && box.right < window.innerWidth))(
    [...document.querySelectorAll(".chart canvas")].map(canvas => canvas.getBoundingClientRect()))"""


@pytest.fixture
def opened(chromium, tmp_path):
    """Open a page without network, and note errors."""
    contexts, wrong = [], []

    def call(html, size="desk", scheme="light", **options):
        (tmp_path / "page.html").write_text(html)
        contexts.append(chromium.new_context(viewport=SIZES[size], color_scheme=scheme, offline=True, **options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(r.url))
        page.goto((tmp_path / "page.html").as_uri())
        return page

    yield call
    for context in contexts:
        context.close()
    assert wrong == []


def fits(page):
    return page.evaluate(FITS)


@pytest.mark.some(2)
@pytest.mark.parametrize(("classes", "runs"), [(100, 4), (1000, 1), (1000, 4), (10, 1), (3, 4), (3, 1)])
def test_reports_fit_and_have_curves(opened, classes, runs):
    base = record("Run", classes)
    page = opened(report_html([replace(base, name=f"Run{i}, version_{i}") for i in range(runs)]))
    for size, scheme in itertools.product(SIZES, ("light", "dark")):
        page.set_viewport_size(SIZES[size])
        page.emulate_media(color_scheme=scheme)
        # Charts are drawn again a moment later.
        page.wait_for_function(f"{FITS} && {CHARTS_FIT}")
        background, text = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
        dark, light = sorted(sum(map(int, re.findall(r"\d+", color)[:3])) / 3 for color in (background, text))
        assert light - dark > 150
        assert (background != "rgb(255, 255, 255)") == (scheme == "dark")
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert fits(page), "also where all is unfolded"
    for image in page.locator("figure img").all():
        assert image.evaluate("image => image.width <= image.naturalWidth"), "no picture is enlarged"


def test_hovering_shows_the_values_of_an_epoch_in_all_charts(opened):
    page = opened(report_html([record("Run", 10)]))
    over = page.locator(".chart .u-over").first
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    legend = page.locator(".chart .u-legend")
    legend.first.get_by_text("0.75").wait_for()  # epoch 2: 1/4 + 1/2
    assert re.sub(r"\s", "", legend.nth(0).inner_text()) == "epoch2train0.75val2bound0.25"
    assert re.sub(r"\s", "", legend.nth(1).inner_text()) == "epoch2train0.5"


GRAY_IN_A_ROW = """canvas => {
    const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    const rows = Array(canvas.height).fill(0);
    for (let at = 0; at < pixels.length; at += 4)
        rows[Math.floor(at / 4 / canvas.width)] +=
            [0x57, 0x60, 0x6a].every((value, index) => Math.abs(pixels[at + index] - value) < 12);
    return Math.max(...rows);
}"""


def test_the_references_of_a_single_measurement_are_drawn(opened):
    whole = record("Run", 10)
    page = opened(report_html([replace(whole, history=whole.history[-1:])]))
    page.wait_for_function(CHARTS_FIT)
    gray = [canvas.evaluate(GRAY_IN_A_ROW) for canvas in page.locator(".chart canvas").all()]
    assert [count > 100 for count in gray] == [True, False, False, True], "bound and ideal, across the chart"


def test_training_and_validation_differ_in_the_legend(opened):
    page = opened(report_html([record("A", 10), record("B", 10)]))
    markers = page.locator(".chart .u-legend").nth(2).locator(".u-marker")
    styles = markers.evaluate_all("all => all.map(each => getComputedStyle(each).borderTopStyle)")
    assert styles[1:] == ["solid", "dashed", "solid", "dashed"], "the first is the epoch"
    names = markers.evaluate_all("all => all.map(each => each.parentNode.innerText.trim())")
    assert names[1:] == ["A, train", "val", "B, train", "val"]


def test_a_tap_shows_values_and_a_new_color_scheme_draws_again(opened):
    page = opened(report_html([record("Run", 10)]), "phone", has_touch=True)
    over = page.locator(".chart .u-over").first
    over.scroll_into_view_if_needed()
    over.tap()
    page.locator(".chart .u-legend").first.get_by_text("0.75").wait_for()
    before = page.locator(".chart canvas").first.screenshot()
    page.emulate_media(color_scheme="dark")
    page.wait_for_timeout(100)
    assert page.locator(".chart canvas").count() == 4
    assert page.locator(".chart canvas").first.screenshot() != before


def test_a_sweep_of_many_cells_fits_and_is_sorted_by_a_click(opened, tmp_path):
    results = []
    for beta, seed in itertools.product(range(40), range(3)):
        entry = {"epoch": 1.0, "geometry/train/nc2_etf": beta / 40, "loss/optimality_gap": (7 * beta) % 40 / 10}
        run = RunRecord("run", 10, 9, history=[entry])
        settings = {"objective": "hscl", "beta": beta, "seed": seed}
        results.append(Result(f"hscl-beta={beta}-seed={seed}", settings, "done", "", 1.0, run))
    page = opened(sweep_html(results, ["objective", "beta"], tmp_path, []), "phone", "dark")
    assert fits(page)
    betas = page.locator("table").first.locator("tbody tr td:nth-child(5)")
    assert betas.all_inner_texts() == [str(beta) for beta in range(10)]
    page.get_by_text("All 40 settings").click()
    assert fits(page)
    everything = page.locator("table").nth(1)
    gap = everything.get_by_role("button", name="optimality gap")
    for order in (1, -1):
        gap.click()
        shown = [int(text) for text in everything.locator("tbody tr td:nth-child(5)").all_inner_texts()]
        assert shown == sorted(range(40), key=lambda beta: (7 * beta) % 40)[::order]
    assert everything.locator("th[aria-sort=descending]").inner_text().startswith("optimality gap")


VISIBLE = "heads => heads.filter(head => head.getBoundingClientRect().right <= innerWidth).map(head => head.innerText)"


def test_a_comparison_of_three_runs_is_visible(opened):
    names = "SupervisedModule, first", "SupervisedModule, second", "SupervisedModule, a-third-one"
    page = opened(report_html([replace(record("Run", 10), name=name) for name in names]))
    page.set_viewport_size({"width": 1200, "height": 900})
    assert page.get_by_text("ideal", exact=True).last.evaluate("head => head.getBoundingClientRect().right") < 1200
    for figure in page.locator(".row figure").all():
        assert figure.evaluate("figure => figure.getBoundingClientRect().right") < 1200
    tops = page.locator(".row").first.locator("figure").evaluate_all("all => all.map(each => each.offsetTop)")
    assert len(tops) == 3
    assert len(set(tops)) == 1, "side by side"


def test_the_table_and_figures_of_a_sweep_use_the_page(opened, tmp_path):
    results = []
    for number, (beta, batches, seed) in enumerate(itertools.product((2, 5), ("random", "balanced"), (0, 1))):
        history = replace(record("Run", 10), name=str(number)).history
        history = [{key: value + number / 10 for key, value in entry.items()} for entry in history]
        settings = {"objective": "hscl", "beta": beta, "batches": batches, "seed": seed}
        results.append(Result(str(number), settings, "done", "", 1.0, RunRecord("", 10, 9, history=history)))
    axes = ["objective", "beta", "batches"]
    page = opened(sweep_html(results, axes, tmp_path, write_figures(results, axes, tmp_path / "figures")))
    heads = page.locator("table").first.locator("th")
    assert heads.evaluate_all(VISIBLE)[-1] == "seconds"
    figures = page.locator(".natural figure").evaluate_all("all => all.map(each => each.offsetTop)")
    assert figures[0] == figures[1], "side by side"
    page.set_viewport_size(SIZES["phone"])
    assert heads.evaluate_all(VISIBLE)[:5] == ["rank", "nc2 etf", "seeds", "objective", "beta"]
