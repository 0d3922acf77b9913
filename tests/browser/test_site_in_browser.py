"""The documentation's site, as a reader sees it."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.docs.site import site  # noqa: F401 - a fixture

pytestmark = [pytest.mark.browser, pytest.mark.exhaustive]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def address(site):  # noqa: F811
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def page(chromium, address):
    """A page that notes errors, requests that fail, and requests to anywhere else."""
    opened = chromium.new_page(viewport={"width": 1300, "height": 900})
    wrong = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    # Leaving a page aborts what it still loads.
    opened.on("requestfailed", lambda r: None if r.failure == "net::ERR_ABORTED" else wrong.append(r.url))
    opened.on("response", lambda response: wrong.append(response.url) if response.status >= 400 else None)
    opened.on(
        "request", lambda request: None if request.url.startswith((address, "data:")) else wrong.append(request.url)
    )
    yield opened
    opened.close()
    assert wrong == []


def test_the_way_through_the_navigation(page, address):
    page.goto(f"{address}/index.html")
    page.locator(".grid").get_by_role("link", name="Reference").click()
    page.locator("article").get_by_role("link", name="Measures").click()
    assert page.locator("h1").inner_text().startswith("Measures")
    page.locator("article").get_by_role("link", name="nc2_etf", exact=True).click()
    assert page.url.endswith("#measure-nc2-etf")
    page.locator(".sidebar-tree").get_by_role("link", name="Gallery").click()
    for picture in page.locator("article img").all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("image => image.complete && image.naturalWidth > 400")


def test_search_finds_the_effective_rank(page, address):
    page.goto(f"{address}/index.html")
    page.get_by_role("searchbox").or_(page.locator("input[name=q]")).first.fill("effective rank")
    page.keyboard.press("Enter")
    results = page.locator("#search-results li a")
    results.first.wait_for()
    page.wait_for_function("document.querySelector('#search-results p')?.innerText.includes('found')")
    assert any("Measures" in title for title in results.all_inner_texts())
    with page.expect_navigation():
        results.first.click()


def test_a_page_of_each_kind(page, address):
    for path, shown in {
        "getting-started.html": "pre",
        "tutorials/hscl-on-digits.html": ".cell_input",
        "how-to/own-data.html": "pre",
        "reference/cli.html": ".help pre",
        "reference/configs.html": "details",
        "reference/measures.html": "math",
        "reference/api/losses.html": "dl.py.class",
        "explanations/neural-collapse.html": "math",
        "comparison.html": "table",
        "glossary.html": "dl",
        "changelog.html": "h2",
    }.items():
        page.goto(f"{address}/{path}")
        assert page.locator("article h1").count() == 1, path
        assert page.locator(f"article {shown}").first.is_visible(), path


def test_formulas_have_a_height_and_contents_unfold(page, address):
    page.goto(f"{address}/reference/measures.html")
    assert page.locator('math[display="block"]').count() > 20
    assert page.locator('math[display="block"] mfrac').first.bounding_box()["height"] > 20
    page.goto(f"{address}/reference/configs.html")
    contents = page.locator("details pre").first
    assert not contents.is_visible()
    page.locator("details summary").first.click()
    assert contents.is_visible()


def test_every_page_fits_on_a_phone(page, address, site):  # noqa: F811
    page.set_viewport_size({"width": 390, "height": 800})
    wide = []
    for path in sorted(site.rglob("*.html")):
        page.goto(f"{address}/{path.relative_to(site)}", wait_until="domcontentloaded")
        if page.evaluate("document.documentElement.scrollWidth > window.innerWidth"):
            wide.append(str(path.relative_to(site)))
    assert wide == []
