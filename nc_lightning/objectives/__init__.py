"""One LightningModule per objective: SCL, HSCL, UCL and HUCL on one shared base."""

from nc_lightning.objectives.base import ContrastiveObjective
from nc_lightning.objectives.hscl import HSCL
from nc_lightning.objectives.hucl import HUCL
from nc_lightning.objectives.scl import SCL
from nc_lightning.objectives.ucl import UCL

__all__ = ["HSCL", "HUCL", "SCL", "UCL", "ContrastiveObjective"]
