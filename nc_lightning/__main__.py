"""Run ``nc-train`` by ``python -m nc_lightning``."""

from nc_lightning.cli.commands import nc_train

if __name__ == "__main__":
    nc_train()
