"""``python -m nc_lightning`` is ``nc-train``."""

from nc_lightning.cli import main

if __name__ == "__main__":
    main()
