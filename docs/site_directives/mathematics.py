"""Formulas as MathML, made at build time: every browser shows it, and no script has to come from the internet."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.writers.html5 import HTML5Translator

_ALIGNED = re.compile(r"(\\(?:begin|end)){(?:align|equation|gather)\*?}")
_APPLIED = re.compile(r"<mo>&ApplyFunction;</mo>(?!\s*<mo[^>]*>[({[])")
"""The place between a function's name and its argument, which browsers leave without a space."""
_BAR = re.compile(r"<mo( class=\"math(?:open|close)\")?>([|‖∥])</mo>")
"""A bar that is not asked to be large: browsers would stretch one of two where the other has an exponent."""


def to_mathml(tex: str, block: bool) -> str:
    r"""Return a formula as MathML.

    Example:
        >>> "<mfrac>" in to_mathml(r"\frac{1}{2}", block=True)
        True
    """
    try:
        mathml = str(tex2mathml(_ALIGNED.sub(r"\1{aligned}", tex), as_block=block))
    except MathError as error:
        raise ExtensionError(f"formula: got {tex!r}, {error}") from error
    mathml = _BAR.sub(r'<mo\1 stretchy="false">\2</mo>', mathml)
    return _APPLIED.sub('<mspace width="0.17em"/>', mathml)


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(to_mathml(node.astext(), block=False))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    anchor = f' id="{node["ids"][0]}"' if node["ids"] else ""
    number = f'<span class="eqno">({node["number"]})</span>' if node["number"] else ""
    self.body.append(f'<div class="math"{anchor}>{number}{to_mathml(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Register the renderer that conf.py names."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
