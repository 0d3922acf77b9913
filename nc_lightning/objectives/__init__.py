"""The objectives SCL, HSCL, UCL and HUCL as LightningModules on a shared base."""

from nc_lightning.objectives.base import ContrastiveObjective
from nc_lightning.objectives.family import HSCL, HUCL, SCL, UCL

__all__ = ["HSCL", "HUCL", "SCL", "UCL", "ContrastiveObjective"]
