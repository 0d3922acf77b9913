"""A headless Chromium for the tests of this folder."""

import os

import pytest

from tests.browser import tensorboard_page


@pytest.fixture(scope="module")
def chromium():
    """Need a browser: in CI its absence is a failure, elsewhere a skip."""
    reason = None
    if tensorboard_page.CHROMIUM is None:
        reason = "there is no chromium"
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError as error:
        reason = f"playwright cannot be imported: {error}"
    if reason is not None:
        if os.environ.get("NC_REQUIRE"):
            pytest.fail(f"{reason}, and NC_REQUIRE is set")
        pytest.skip(f"{reason}: no page was looked at")
    with tensorboard_page.browser() as opened:
        yield opened
