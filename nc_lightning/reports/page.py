"""Pages of reports: templates, and the scripts and styles that a page holds itself."""

import base64
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from nc_lightning import __version__

Cell = str | tuple[str, bool]
"""Text of a cell, or text and whether it meets the ideal."""
Table = tuple[list[str], list[list[Cell]]]
"""Header and rows."""
_BROAD = 800


def render(template: str, title: str, **values: Any) -> str:
    """Render a template of ``nc_lightning/reports/templates``; all texts are escaped.

    Args:
        template: Name of the template, without its extension.
        title: Title of the page.
        **values: Values used in the template.

    Returns:
        A complete HTML document without external resources.

    Example:
        >>> page = render("page", "<b>")
        >>> "<title>&lt;b&gt;</title>" in page
        True
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nc_lightning.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"data_url": data_url, "is_broad": is_broad}
    environment.globals["asset"] = _asset
    return environment.get_template(f"{template}.html.j2").render(title=title, version=__version__, **values)


def data_url(png: bytes) -> str:
    """Return an address that holds a PNG file itself.

    Example:
        >>> data_url(b"abc")
        'data:image/png;base64,YWJj'
    """
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def is_broad(png: bytes) -> bool:
    """Return whether a PNG file is too wide for a column of a grid, where its texts would be too small.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from nc_lightning.plots import to_png
        >>> [is_broad(to_png(Figure(figsize=(width, 1), dpi=100))) for width in (5, 10)]
        [False, True]
    """
    return int.from_bytes(png[16:20], "big") > _BROAD  # the width, in the header


@cache
def _asset(name: str) -> str:
    """Return a file of ``nc_lightning/reports/assets`` as it is."""
    return files("nc_lightning.reports").joinpath(f"assets/{name}").read_text(encoding="utf-8")
