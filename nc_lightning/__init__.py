"""Contrastive learning whose geometry you can see, for PyTorch Lightning.

Importing the package is cheap: the objectives, and Lightning with them, are loaded on first access, as are subpackages.
"""

import random
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nc_lightning import batch as batch
    from nc_lightning import callbacks as callbacks
    from nc_lightning import cli as cli
    from nc_lightning import data as data
    from nc_lightning import encoders as encoders
    from nc_lightning import evaluation as evaluation
    from nc_lightning import export as export
    from nc_lightning import geometry as geometry
    from nc_lightning import hub as hub
    from nc_lightning import io as io
    from nc_lightning import losses as losses
    from nc_lightning import metrics as metrics
    from nc_lightning import objectives as objectives
    from nc_lightning import optim as optim
    from nc_lightning import plots as plots
    from nc_lightning import reports as reports
    from nc_lightning import runs as runs
    from nc_lightning import schedules as schedules
    from nc_lightning import strategies as strategies
    from nc_lightning import sweeps as sweeps
    from nc_lightning.objectives import HSCL, HUCL, SCL, UCL
    from nc_lightning.runs.loading import load

__version__ = "0.1.0"
__all__ = ["HSCL", "HUCL", "SCL", "UCL", "__version__", "load"]


def __dir__() -> list[str]:
    """List what `__getattr__` loads, for completion in notebooks, without loading it."""
    modules = {module.name for module in iter_modules(__path__)} - {"__main__", "private_apis"}
    return sorted({*__all__, *modules, *(name for name in globals() if name.startswith("__"))})


if not TYPE_CHECKING:  # type checkers would take any misspelled name for one that it knows

    def __getattr__(name: str) -> Any:
        """Load an objective, `load` or a subpackage, such as ``nc_lightning.runs``, on first access."""
        state = random.getstate()  # packages that Lightning imports draw numbers
        try:
            if name in __all__:
                return getattr(
                    import_module("nc_lightning.runs.loading" if name == "load" else "nc_lightning.objectives"), name
                )
            if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
                return import_module(f"{__name__}.{name}")
        finally:
            random.setstate(state)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
