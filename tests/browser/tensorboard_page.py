"""TensorBoard on a free port of this machine, and a headless Chromium to look at it."""

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from io import BytesIO

from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 120  # seconds; a busy machine may need many
FLAGS = [
    "--no-sandbox",  # containers run as root
    "--disable-dev-shm-usage",
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # the projector needs WebGL
    *("--no-first-run", "--disable-quic", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--disable-default-apps", "--disable-extensions", "--mute-audio"),
]
DEEP_TEXT = """() => {
    const found = [];
    const walk = node => {
        if (node.nodeType === Node.TEXT_NODE) {
            const tag = node.parentElement ? node.parentElement.tagName : '', text = node.textContent.trim();
            if (text && !['STYLE', 'SCRIPT', 'NOSCRIPT'].includes(tag)) found.push(text);
        }
        if (node.shadowRoot) walk(node.shadowRoot);
        node.childNodes.forEach(walk);
    };
    walk(document);
    return found.join('\\n');
}"""


@contextmanager
def browser():
    """A Chromium without a window; playwright must be installed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def tensorboard(logdir):
    """The real server and its address."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--host", "127.0.0.1", "--port", "0"]
    # It prints its port once it is ready.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        said = []
        for line in server.stdout:
            said.append(line)
            if "http://" in line:
                address = "http://127.0.0.1:" + line.split("http://")[1].split(":")[1].split("/")[0]
                break
        else:
            raise RuntimeError("tensorboard ended: " + "".join(said))
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)
        server.stdout.close()


def when_loaded(address, runs):
    """Wait until the server has read all runs, because pages do not show a run before that."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with urllib.request.urlopen(f"{address}/data/runs", timeout=PATIENCE) as answer:
            if answer.read().count(b'"') >= 2 * runs:
                return
        time.sleep(0.2)
    raise TimeoutError(f"{address}: fewer than {runs} runs after {PATIENCE} seconds")


class Tab:
    """One tab of TensorBoard, such as ``custom_scalars``, in a page of its own."""

    def __init__(self, chromium, address, name, width=1500, height=1100):
        self.page = chromium.new_page(viewport={"width": width, "height": height})
        self.page.goto(f"{address}/#{name}", timeout=1000 * PATIENCE)

    def text(self):
        """All text of the page, including frames and shadow trees."""
        return "\n".join(frame.evaluate(DEEP_TEXT) for frame in self.page.frames)

    def locate(self, selector):
        """All elements of the page and its frames that match a CSS selector."""
        return [element for frame in self.page.frames for element in frame.locator(selector).all()]

    def wait_until(self, condition, what):
        """Wait until a condition on this tab holds."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if condition(self):
                return
            self.page.wait_for_timeout(300)
        raise TimeoutError(f"no {what} after {PATIENCE} seconds, the page says: {self.text()[-2000:]}")

    def wait_for_text(self, *texts):
        """Wait until the page shows all of these."""
        self.wait_until(lambda tab: all(text in tab.text() for text in texts), f"{texts}")

    def picture(self, element=None):
        """A screenshot of the page or of one element."""
        return Image.open(BytesIO((element or self.page).screenshot(timeout=1000 * PATIENCE))).convert("RGB")


def colors(picture):
    """Number of different colors."""
    return len(picture.getcolors(2**24))
