"""A picture next to the code that draws it, drawn when the site is built."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from nc_lightning.plots import to_png

FOLDER = "_build/drawn"


class Drawn(SphinxDirective):
    """``drawn NAME``: runs its code, in the names that earlier ones on the page have left, and shows ``figure``.

    Code that leaves no ``figure`` is shown alone.
    """

    required_arguments = 1
    has_content = True
    option_spec = {"alt": str}

    def run(self) -> list[nodes.Node]:
        """Draw the picture into the folder of built files."""
        code = "\n".join(self.content)
        names: Any = self.env.temp_data.setdefault("drawn", {})
        names.pop("figure", None)
        exec(compile(code, self.get_location(), "exec"), names)
        shown: list[nodes.Node] = []
        if "figure" in names:
            path = Path(self.env.srcdir) / FOLDER / f"{self.arguments[0]}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_png(names["figure"]))
            shown = [nodes.image(uri=f"/{FOLDER}/{path.name}", alt=self.options["alt"])]
        return [*shown, nodes.literal_block(code, code, language="python")]


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("drawn", Drawn)
