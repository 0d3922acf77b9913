"""Contrastive learning whose geometry you can see, for PyTorch Lightning.

Importing the package is cheap: the objectives, and Lightning with them, are loaded on first access.
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
