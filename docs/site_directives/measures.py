"""The registry of measures: key, title, formula, range, ideal, tolerance and source of each."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from nc_lightning import geometry
from nc_lightning.geometry import MEASURES, Measure
from site_directives.formulas import FORMULAS

_MORE = {
    "nc3": geometry.nc3,
    "nc4": geometry.nc4_mismatches,
    "nc5": geometry.nc5,
    "intrinsic_dimension": geometry.intrinsic_dimension,
    "distance_to_optimum": geometry.distance_to_optimum,
}
"""Functions of measures whose row in the registry has none, as they need more than statistics and class centers."""
_NESTED = r"\((?:[^()]|\([^()]*\))*\)"


def function_of(measure: Measure) -> Callable[..., Any] | None:
    """Return the function that computes a measure."""
    return measure.compute or _MORE.get(measure.key)


def summary_of(function: Callable[..., Any]) -> str:
    """Return the first paragraph of a docstring without its range.

    Example:
        >>> summary_of(geometry.zero_sum)
        'Compute the norm of the mean of class means.'
    """
    return re.split(r"\s*Range ", _paragraphs(function)[0])[0]


def range_of(function: Callable[..., Any]) -> str:
    """Return the range that a docstring names, empty if it names none.

    Example:
        >>> range_of(geometry.zero_sum), range_of(geometry.nc3)
        ('[0, 1] in the unit ball', '[0, 2]')
    """
    found = re.search(rf"[Rr]ange ([\[(](?:[^()\[\]]|{_NESTED})*[)\]](?: in the unit ball)?)", _text(function))
    return found[1].replace("inf", "∞") if found else ""


def source_of(function: Callable[..., Any]) -> str:
    """Return the source that a docstring names, or that of the function it says it applies; empty without one.

    Example:
        >>> source_of(geometry.nc1)
        'Tirer, Huang, Niles-Weed (2023), Perturbation analysis of neural collapse.'
        >>> source_of(geometry.class_mean_effective_rank)
        'Roy, Vetterli (2007), The effective rank: a measure of effective dimensionality.'
        >>> source_of(geometry.zero_sum)
        'arXiv 2311.05139'
    """
    for paragraph in _paragraphs(function):
        if paragraph.startswith("Source:"):
            return paragraph.removeprefix("Source:").strip()
    if found := re.search(r"arXiv \d+\.\d+|Papyan, Han, Donoho \(2020\)[^.]*", _text(function)):
        return found[0]
    named = re.match(r"Compute [^,.`]*`(\w+)`", _text(function))
    return source_of(getattr(geometry, named[1])) if named else ""


def ideal_of(measure: Measure) -> str:
    """Return the ideal in words.

    Example:
        >>> ideal_of(MEASURES["nc1"]), ideal_of(MEASURES["effective_rank"])
        ('0', 'min(C - 1, d)')
    """
    if measure.of == "optimum":
        return "0 at the minimum of the loss"
    if measure.ideal is None:
        return "none"
    if measure.floor is not None:
        return f"least possible for collapsed classes, {{py:func}}`~nc_lightning.geometry.{measure.floor.__name__}`"
    return "min(C - 1, d)" if measure.ideal == "rank" else f"{measure.ideal:g}"


def tolerance_of(measure: Measure) -> str:
    """Return the largest distance from the ideal that counts as met."""
    if measure.of == "optimum":
        return f"{measure.tolerance:g}"
    if measure.ideal is None or (measure.tolerance == 0 and measure.ideal != "rank"):
        return ""
    if measure.ideal == "rank":
        return f"{100 * measure.tolerance:g} %" if measure.tolerance else "exact"
    return f"{measure.tolerance:g}"


def _text(function: Callable[..., Any]) -> str:
    return inspect.getdoc(function) or ""


def _paragraphs(function: Callable[..., Any]) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in _text(function).split("\n\n")]


def _with_links(text: str) -> str:
    return re.sub(r"arXiv (\d+\.\d+)", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def _anchor(measure: Measure) -> str:
    return f"measure-{nodes.make_id(measure.key)}"


class MeasureSummary(SphinxDirective):
    """All measures in one table."""

    def run(self) -> list[nodes.Node]:
        """Read the registry."""
        rows = [
            f"| [`{m.key}`](#{_anchor(m)}) | {m.title} | {ideal_of(m)} | {tolerance_of(m)} |" for m in MEASURES.values()
        ]
        head = ["| key | title | ideal | tolerance |", "| --- | --- | --- | --- |"]
        return self.parse_text_to_nodes("\n".join(head + rows))


class MeasureEntries(SphinxDirective):
    """One by one, with formula, range and source."""

    def run(self) -> list[nodes.Node]:
        """Read the registry and the docstrings."""
        return self.parse_text_to_nodes("\n\n".join(map(entry, MEASURES.values())))


def entry(measure: Measure) -> str:
    """Return the entry of a measure in Markdown."""
    function = function_of(measure)
    lines = [f"({_anchor(measure)})=", f"`{measure.key}`", f": **{measure.title}.** "]
    if function is not None:
        lines[-1] += f"{summary_of(function)} {{py:func}}`~nc_lightning.geometry.{function.__name__}`"
    if measure.key in FORMULAS:
        lines += ["", f"  $$\n  {FORMULAS[measure.key]}\n  $$"]
    facts = {
        "Range": function and range_of(function),
        "Ideal": ideal_of(measure),
        "Tolerance": tolerance_of(measure),
        "Source": _with_links((function and source_of(function)) or "this package"),
    }
    lines += ["", "  " + " · ".join(f"*{name}:* {fact}" for name, fact in facts.items() if fact)]
    return "\n".join(lines)


def setup(app: Sphinx) -> None:
    """Register the directives."""
    app.add_directive("measure-summary", MeasureSummary)
    app.add_directive("measure-entries", MeasureEntries)
