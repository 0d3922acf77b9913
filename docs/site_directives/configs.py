"""The shipped configs: the comments at the top of each as text, its contents to unfold."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from nc_lightning.cli.configs import config_folder, shipped_configs


def header_and_contents(text: str) -> tuple[str, str]:
    r"""Split a config into Markdown, made of the comments at its top, and the rest.

    Example:
        >>> print(header_and_contents("# SCL on digits.\n#   nc-train fit --config scl.yaml\nmodel: 1\n")[0])
        SCL on digits.
        <BLANKLINE>
        ```console
        nc-train fit --config scl.yaml
        ```
    """
    lines = text.splitlines()
    length = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    markdown: list[str] = []
    in_code = False
    for line in (line[1:] for line in lines[:length]):
        code = line.startswith("   ")
        if code != in_code:
            markdown += ["", "```console"] if code else ["```", ""]
            in_code = code
        markdown.append(line.strip() if code else re.sub(r"(--[\w.]+)", r"`\1`", line.strip()))
    return "\n".join(markdown + ["```"] * in_code), "\n".join(lines[length:]).strip()


class ShippedConfigs(SphinxDirective):
    """A section for each config; the argument is their folder below that of all, if any."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Read the files."""
        folder = self.arguments[0] if self.arguments else ""
        self.env.note_dependency(__file__)
        sections = [self._section(name) for name in shipped_configs() if name.rpartition("/")[0] == folder]
        return [node for section in sections for node in section]

    def _section(self, name: str) -> list[nodes.Node]:
        path = Path(config_folder() / name)
        self.env.note_dependency(path)
        header, contents = header_and_contents(path.read_text())
        section = nodes.section(ids=[nodes.make_id(name)], names=[name])
        section += nodes.title(name, "", nodes.literal(name, name))
        section += self.parse_text_to_nodes(header)
        section += nodes.raw("", "<details><summary>Contents</summary>", format="html")
        section += nodes.literal_block(contents, contents, language="yaml")
        section += nodes.raw("", "</details>", format="html")
        return [section]


def setup(app: Sphinx) -> None:
    """Register the directive."""
    app.add_directive("shipped-configs", ShippedConfigs)
