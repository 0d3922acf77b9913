"""The documentation's site: `make docs` builds it into docs/_build/html, without the internet."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])  # for notebooks

import nc_lightning  # noqa: E402 - from this checkout

project = "nc_lightning"
author = "nc_lightning developers"
version = release = nc_lightning.__version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb", "sphinx_copybutton", "site_directives"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
smartquotes_action = "D"  # dashes; quotes can be copied as they are
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # what a tutorial writes is no source
nb_execution_timeout = 600
nb_render_markdown_format = "myst"  # plain commonmark, the default, has no tables

default_role = "py:obj"  # `a name` in a docstring is a link where the name has a page
autodoc_member_order = "groupwise"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_inherit_docstrings = False  # Lightning's hooks are described by Lightning
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape", "Source"]

html_theme = "furo"
html_title = f"nc_lightning {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
