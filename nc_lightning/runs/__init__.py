"""Runs that have ended: find their files, and load their module or data; `nc_lightning.load` loads both."""

from nc_lightning.runs.files import RunFiles, find_run
from nc_lightning.runs.loading import load_data, load_module

__all__ = ["RunFiles", "find_run", "load_data", "load_module"]
