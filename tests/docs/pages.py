"""The pages of the documentation, and the commands and blocks that a reader would copy from them."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = [
    "README.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts),
]


def text_of(page):
    return (ROOT / page).read_text()


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), flags=re.MULTILINE | re.DOTALL)


def commands(page):
    """The commands of a page, each as the list of its words, with a program or ``python -m MODULE`` in front."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            program, *arguments = shlex.split(line, comments=True) or [""]
            if program == "python" and arguments[0] == "-m":
                program, arguments = arguments[1].replace("nc_lightning", "nc-train"), arguments[2:]
            yield [program, *arguments]


def commands_of(page, program):
    """The arguments of a page's commands of a program."""
    return [arguments for name, *arguments in commands(page) if name == program]


def modules(page):
    """Python blocks that are a file, by its name, which is their first line."""
    return {block.partition("\n")[0][2:]: block for block in blocks(page, "python") if is_module(block)}


def is_module(block):
    return re.match(r"# \w+\.py\n", block) is not None


def configs(page):
    """YAML blocks that are settings of ``nc-train``."""
    return [block for block in blocks(page, "yaml") if block.startswith("trainer:")]


def plans(page):
    """YAML blocks that are plans of ``nc-sweep``."""
    return [block for block in blocks(page, "yaml") if block.startswith("objective:")]
