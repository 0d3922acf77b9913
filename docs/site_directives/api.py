"""Pages of the Python API: the public names of a package, by the module that defines them."""

import inspect
import sys
from importlib import import_module
from typing import Any

from docutils import nodes
from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode


def public_names(package: str) -> dict[str, list[str]]:
    """Return the public names of a package by the module that defines them; data are of the package itself.

    Example:
        >>> public_names("nc_lightning.objectives")["nc_lightning.objectives.base"]
        ['ContrastiveObjective']
    """
    module = import_module(package)
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == package]
    by_module: dict[str, list[str]] = {}
    for name in sorted(getattr(module, "__all__", own)):
        if not name.startswith("_"):
            value = getattr(module, name)
            defined = value.__module__ if inspect.isclass(value) or inspect.isfunction(value) else package
            by_module.setdefault(defined, []).append(name)
    return by_module


def pages_of(package: str, left_out: list[str]) -> dict[str, str]:
    """Return reStructuredText by module: names alone in their module are with the package, which comes first."""
    first, others = [f".. automodule:: {package}"], {}
    for module, names in public_names(package).items():
        documented = [_documented(package, name) for name in names if name not in left_out]
        if module == package or len(documented) == 1:
            first += documented
        elif documented:
            others[module] = [f".. automodule:: {module}", *documented]
    if len(first) == len(others) == 1:  # the package's own words are enough
        first += others.popitem()[1][1:]
    return {module: "\n\n".join(parts) for module, parts in {package: first, **others}.items()}


def _documented(package: str, name: str) -> str:
    value = getattr(import_module(package), name)
    if inspect.isclass(value):
        return f".. autoclass:: {package}.{name}\n   :members:"
    if inspect.isfunction(value):
        return f".. autofunction:: {package}.{name}"
    return f".. py:data:: {name}\n   :module: {package}"


class PublicApi(SphinxDirective):
    """``public-api PACKAGE``; the option ``exclude`` has names that another page documents."""

    required_arguments = 1
    option_spec = {"exclude": str.split}

    def run(self) -> list[nodes.Node]:
        """Import the package."""
        pages = pages_of(self.arguments[0], self.options.get("exclude", []))
        shown = self._parsed(pages.pop(self.arguments[0]))
        for module, text in pages.items():
            name = module.rpartition(".")[2]
            section = nodes.section("", nodes.title(name, name), ids=[nodes.make_id(module)], names=[name])
            section += self._parsed(text)
            shown.append(section)
        return shown

    def _parsed(self, text: str) -> list[nodes.Node]:
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n{text}\n```")


def _skip_hooks(app: Sphinx, what: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out methods that override one of Lightning, torch or torchmetrics, except ``forward``."""
    function = getattr(value, "fget", getattr(value, "__func__", value))
    if what != "class" or name == "forward" or not inspect.isfunction(function):
        return None
    found: Any = sys.modules.get(function.__module__)
    for part in function.__qualname__.split(".")[:-1]:
        found = getattr(found, part, None)
    bases = inspect.getmro(found)[1:-1] if inspect.isclass(found) else ()
    return True if any(name in vars(b) and not b.__module__.startswith("nc_lightning") for b in bases) else None


def _find_bare_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Link a public name that a docstring uses without its package, where only one object has it."""
    name = node.get("reftarget", "")
    if node.get("refdomain") != "py" or "." in name:
        return None
    domain = env.domains["py"]
    if not isinstance(domain, PythonDomain):
        return None
    found = [(full, entry) for full, entry in domain.objects.items() if full.endswith(f".{name}") and not entry.aliased]
    top = [(full, entry) for full, entry in found if entry.objtype in ("class", "function", "data")]
    if len(top) != 1:
        return None
    full, entry = top[0]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, content, full)


def setup(app: Sphinx) -> None:
    """Register the directive, and what makes docstrings read well outside of their files."""
    app.add_directive("public-api", PublicApi)
    app.connect("autodoc-skip-member", _skip_hooks)
    app.connect("missing-reference", _find_bare_name)
