"""``python -m nc_lightning`` is ``nc-train``."""

from nc_lightning.cli import console_script

if __name__ == "__main__":
    console_script()
