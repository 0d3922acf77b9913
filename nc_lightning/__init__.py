"""Contrastive learning whose geometry you can see, for PyTorch Lightning.

Importing the package is cheap: an objective, and Lightning with it, is loaded when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nc_lightning.objectives import HSCL, HUCL, SCL, UCL

__version__ = "0.1.0"
__all__ = ["HSCL", "HUCL", "SCL", "UCL", "__version__"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("nc_lightning.objectives"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
