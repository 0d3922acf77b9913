"""What a person sees: TensorBoard and the report, in a real browser."""

import re
import sys
from io import BytesIO

import pytest
from PIL import Image

from nc_lightning.cli import main
from nc_lightning.cli import report as nc_report
from nc_lightning.sweeps import command as nc_sweep
from tests.browser.tensorboard_page import Tab, colors, tensorboard, when_loaded

pytestmark = pytest.mark.browser
FIGURES = {"cosines", "spectrum", "plane", "similarities", "trajectory"}
OBJECTIVES = ("scl", "hscl")
NAMES = ("scl-digits", "hscl-digits-beta10")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of two short runs of the command line."""
    folder = tmp_path_factory.mktemp("dashboard")
    before, sys.argv = sys.argv, ["nc-train"]
    options = ["--trainer.max_epochs=6", "--geometry.every_n_epochs=1", "--dashboard.every_n_epochs=3"]
    options += ["--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={folder}"]
    try:
        for objective in OBJECTIVES:
            main(["fit", "--config", f"{objective}.yaml", *options])
    finally:
        sys.argv = before
    return folder / "lightning_logs"


@pytest.fixture(scope="module")
def address(runs):
    with tensorboard(runs) as answered:
        when_loaded(answered, len(OBJECTIVES))
        yield answered


@pytest.fixture
def open_tab(chromium, address):
    tabs = []

    def opened(name):
        tabs.append(Tab(chromium, address, name))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.page.close()


def curves(tab, selector):
    """Number of curves with more than one point."""
    return sum("L" in (line.get_attribute("d") or "") for line in tab.locate(selector))


def test_the_first_tab_begins_with_what_decides(open_tab):
    tab = open_tab("")
    tab.wait_for_text("Overview", "/NC1, training", "/effective rank, validation", "/loss over its bound")
    assert tab.page.url.endswith("#timeseries")
    text = tab.text()
    assert text.index("Overview") < text.index("figures")


@pytest.mark.some(1)
def test_scalars(open_tab):
    tab = open_tab("scalars")
    tab.wait_for_text("Overview/NC1, training", "geometry", *NAMES)
    tab.wait_until(lambda tab: curves(tab, "tf-scalar-card path") >= 4, "curves")
    assert colors(tab.picture()) > 100


def test_custom_scalars(open_tab):
    tab = open_tab("custom_scalars")
    tab.wait_for_text("Neural collapse", "The paper's conditions", "Dimensions", "Loss", "Negatives")
    titles = "NC1, within over between classes", "NC2, distance to the simplex", "NC3, classifier and class means"
    tab.wait_for_text(*(f"{title}, {words} (ideal 0)" for title in titles for words in ("training", "validation")))
    # Both runs share a chart, in which each has one curve, in the color of the run.
    tab.wait_for_text(*(f"geometry/{s}/nc1 ({name})" for s in ("train", "val") for name in NAMES))
    for card in tab.locate("tf-custom-scalar-multi-line-chart-card")[:6]:
        lines = card.locator("path.line").all()
        assert len({line.evaluate("line => line.style.stroke || getComputedStyle(line).stroke") for line in lines}) == 2
    tab.wait_until(lambda tab: curves(tab, "tf-custom-scalar-multi-line-chart-card path.line") >= 20, "curves")
    for card in tab.locate("tf-custom-scalar-multi-line-chart-card")[:6]:
        assert colors(tab.picture(card)) > 20


def test_images(open_tab):
    tab = open_tab("images")
    tab.wait_for_text(*(f"figures/{name}" for name in FIGURES))
    loaded = "image => image.complete && image.naturalWidth > 0"

    def all_there(tab):
        images = tab.locate("tf-image-loader img")
        return len(images) == len(FIGURES) * len(OBJECTIVES) and all(image.evaluate(loaded) for image in images)

    tab.wait_until(all_there, "images")
    for image in tab.locate("tf-image-loader img"):
        source = image.evaluate("image => image.src")
        picture = Image.open(BytesIO(tab.page.request.get(source).body()))
        assert picture.width > 400
        assert colors(picture.convert("RGB")) > 10
        assert colors(tab.picture(image)) > 10


def test_projector(open_tab):
    tab = open_tab("projector")
    tab.wait_for_text("features:", "1259x9", "Label by", "10  colors")
    tab.wait_for_text("Points:\n1259\nDimension:\n9")

    def drawn(tab):
        # The images of digits are black, the axes are thin colored lines.
        canvases = [canvas for canvas in tab.locate("#scatter canvas") if canvas.is_visible()]
        return any(sum(tab.picture(canvas).convert("L").histogram()[:40]) > 1000 for canvas in canvases)

    tab.wait_until(drawn, "images of the digits")


def test_hparams(open_tab):
    tab = open_tab("hparams")
    tab.wait_for_text("objective", "beta", "temperature", "normalization", "eta", "psi", "batch_size", "seed")
    for setting in ("objective", "normalization"):  # TensorBoard shows five columns of its own choice
        tab.page.get_by_text(setting, exact=True).first.click()
    tab.wait_for_text("geometry/train/effective_rank", "HSCL", "SCL", "10.000", "unit_ball")
    assert "hp_metric" not in tab.text()


@pytest.mark.parametrize("which", ["one run", "both runs"])
def test_report(chromium, runs, tmp_path, monkeypatch, which):
    report = runs / "hscl-digits-beta10" / "report.html"
    if which == "both runs":
        monkeypatch.chdir(tmp_path)
        report = nc_report.main([*(str(runs / name) for name in NAMES)]).absolute()
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url.partition(":")[0]))
    page.context.set_offline(True)
    page.add_init_script("addEventListener('resize', event => window.follow || event.stopImmediatePropagation())")
    page.goto(report.as_uri())
    assert set(asked) <= {"file", "data"}
    assert page.locator("td").count() > 100
    for text in ("effective_rank", "loss/optimality_gap", "InfoNCE", "HSCL, hscl-digits-beta10"):
        assert page.get_by_text(text).count() > 0
    figures = page.locator("figure img")
    assert figures.count() == (len(FIGURES) if which == "one run" else 2 * len(FIGURES) + 1)
    for figure in figures.all():
        assert figure.evaluate("image => image.complete && image.naturalWidth > 400")
        assert colors(Image.open(BytesIO(figure.screenshot())).convert("RGB")) > 10
    assert not page.locator("pre").first.is_visible()
    page.locator("details:has(pre) > summary").first.click()
    assert re.search(r"class_path: nc_lightning.H?SCL", page.locator("pre").first.inner_text())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 400, "height": 800})
    page.wait_for_function("window.innerWidth === 400")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "before the charts have followed"
    page.evaluate("window.follow = true")
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.querySelector('.u-wrap').offsetWidth < 390")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "on a phone"
    page.close()


@pytest.mark.exhaustive
def test_report_of_a_sweep(chromium, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = "{objective: [scl.yaml, hscl.yaml], all: {data.batches: [random, balanced], trainer.max_epochs: 1}}"
    (tmp_path / "mine.yaml").write_text(plan)
    nc_sweep.main(["mine.yaml", "--jobs", "2"])
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    page.context.set_offline(True)
    page.goto((tmp_path / "sweeps" / "mine" / "report.html").as_uri())
    for text in ("4 cells: 4 done", "effective rank", "balanced"):
        assert page.get_by_text(text).count() > 0
    figures = page.locator("figure img")
    assert figures.count() == 14
    for figure in figures.all():
        assert figure.evaluate("image => image.complete && image.naturalWidth > 400")
        assert colors(Image.open(BytesIO(figure.screenshot())).convert("RGB")) > 10
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "on a phone"
    page.locator("li", has_text="hscl-batches=balanced-seed=0: done").get_by_role("link", name="report").click()
    page.get_by_text("Geometry of HSCL, hscl-batches=balanced-seed=0").wait_for()
    page.close()
