"""The built site, once for all tests of a session, and what its pages hold."""

import os
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).parents[2]


def build(out, *options):
    """Build the site as `make docs` does, where a warning is an error."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", out.parent / "doctrees"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*command, *options, "docs", out], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return out


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site, with the outputs of the tutorials."""
    try:
        import furo  # noqa: F401
        import myst_nb  # noqa: F401
    except ImportError as error:
        if os.environ.get("NC_REQUIRE"):
            pytest.fail(f"the extra docs is not installed, and NC_REQUIRE is set: {error}")
        pytest.skip(f"the extra docs is not installed: {error}")
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # one that all workers share
    with FileLock(folder / "site.lock"):
        if not (folder / "site" / "objects.inv").exists():
            build(folder / "site", "-D", f"nb_execution_cache_path={folder / 'notebooks'}")
    return folder / "site"


class Page(HTMLParser):
    """Links, pictures and anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.images, self.anchors = [], [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "img":
            self.images.append(found["src"])


def documented(site):
    """The inventory of the Python API: full name, kind and place of each entry; a second name has the same place."""
    data = (site / "objects.inv").read_bytes()
    for line in zlib.decompress(data.split(b"\n", 4)[4]).decode().splitlines():
        name, kind, _, place, _ = line.split(" ", 4)
        if kind.startswith("py:"):
            yield name, kind.removeprefix("py:"), place.replace("$", name)
