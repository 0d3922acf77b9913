"""Take a picture of the dashboard's page of charts, as the README shows it.

python -m tests.browser.take_picture LOGDIR OUT.png
"""

import sys

from PIL import Image

from tests.browser.tensorboard_page import Tab, browser, tensorboard, when_loaded


def main(logdir, out):
    with browser() as chromium, tensorboard(logdir) as address:
        when_loaded(address, 1)
        tab = Tab(chromium, address, "custom_scalars&_smoothingWeight=0", width=1500, height=1130)
        tab.wait_for_text("Neural collapse", "Dimensions", "Negatives")
        tab.page.wait_for_timeout(5000)  # curves move to their places
        tab.picture().resize((1100, 829), Image.Resampling.LANCZOS).quantize(64).save(out, optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
