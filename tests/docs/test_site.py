"""The site builds without a warning, links lead somewhere, and reference pages have all there is."""

import doctest
import pkgutil
from importlib import import_module
from urllib.parse import unquote, urlparse

import pytest

import nc_lightning
from nc_lightning import plots
from nc_lightning.cli import shipped_configs
from nc_lightning.geometry import MEASURES
from tests.docs.site import Page, documented, site  # noqa: F401 - a fixture

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def pages(site):  # noqa: F811
    return {path: Page(path) for path in site.rglob("*.html")}


def test_links_lead_somewhere(site, pages):  # noqa: F811
    assert len(pages) > 40
    inner, broken = 0, []
    for path, page in pages.items():
        for link in page.links:
            parts = urlparse(link)
            if parts.scheme or link == "#":
                continue
            inner += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert inner > 3000
    assert broken == []


def test_pictures_are_there(pages):
    images = [path.parent / unquote(image) for path, page in pages.items() for image in page.images if ":" not in image]
    assert len(images) >= 7
    assert all(image.stat().st_size > 0 for image in images)


def test_nothing_comes_from_the_internet(site):  # noqa: F811
    for path in site.rglob("*.html"):
        text = path.read_text()
        assert 'src="http' not in text, path
        assert 'rel="stylesheet" type="text/css" href="http' not in text, path


def public_packages():
    yield "nc_lightning"
    for _, name, _ in pkgutil.walk_packages(nc_lightning.__path__, "nc_lightning."):
        if "private_apis" not in name and hasattr(import_module(name), "__all__"):
            yield name


def loaded(name):
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def test_each_public_name_is_documented_once(site):  # noqa: F811
    places = {}
    for name, kind, place in documented(site):
        if kind in ("class", "function", "data"):
            places.setdefault(id(loaded(name)), set()).add(place)
    names = {f"{package}.{name}" for package in public_packages() for name in loaded_all(package)}
    assert len(names) > 100
    assert [name for name in names if len(places.get(id(loaded(name)), ())) != 1] == []


def loaded_all(package):
    return [name for name in import_module(package).__all__ if not name.startswith("_")]


def test_each_config_measure_and_figure_is_there(site):  # noqa: F811
    configs, measures, gallery = (
        (site / page).read_text() for page in ("reference/configs.html", "reference/measures.html", "gallery.html")
    )
    assert [name for name in shipped_configs() if f">{name}<" not in configs] == []
    assert [key for key in MEASURES if f">{key}<" not in measures] == []
    assert [name for name in plots.__all__ if name.endswith("_figure") and f"{name}<" not in gallery] == []


def test_commands_show_their_help(site):  # noqa: F811
    text = (site / "reference" / "cli.html").read_text()
    for command in ("nc-train", "nc-measure", "nc-report", "nc-sweep"):
        assert f"usage: {command}" in text
    assert "--model.differentiate_weights" in text


def test_examples_of_the_directives(site, repository, monkeypatch):  # noqa: F811
    monkeypatch.syspath_prepend(repository / "docs")
    package = import_module("site_directives")
    ran = 0
    for _, name, _ in pkgutil.iter_modules(package.__path__, "site_directives."):
        result = doctest.testmod(import_module(name))
        assert result.failed == 0, name
        ran += result.attempted
    assert ran >= 8
    formulas = import_module("site_directives.formulas").FORMULAS
    assert set(formulas) <= set(MEASURES)


def test_the_tutorials_run(site):  # noqa: F811
    for tutorial in (site / "tutorials").glob("*.html"):
        assert tutorial.stem == "index" or "cell_output" in tutorial.read_text(), tutorial
