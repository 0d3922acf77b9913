"""Our Sphinx extension: directives that render what the code, the configs and the result files say.

- ``command-help NAME ARGUMENT ...``: help of a command
- ``shipped-configs FOLDER``: the shipped configs, with header and contents
- ``measure-summary`` and ``measure-entries``: the registry of measures, as a table and one by one
- ``results-table FILE.json``: rows of a file in docs/results
- ``drawn NAME``: a picture, and the code that draws it
"""

from typing import Any

from sphinx.application import Sphinx

from site_directives import api, commands, configs, drawn, mathematics, measures, results


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of them."""
    for part in (api, commands, configs, drawn, mathematics, measures, results):
        part.setup(app)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
