"""Write the encoder of a run to files that load without this package."""

from nc_lightning.export.encoder import StandardizedEncoder
from nc_lightning.export.folder import export

__all__ = ["StandardizedEncoder", "export"]
