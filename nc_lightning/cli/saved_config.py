"""Save the configuration of a run as a file in its folder."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks.timer import Interval
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from nc_lightning.io.atomic import unused_path

# Default of `Timer`, a string that YAML cannot write.
yaml.SafeDumper.add_representer(Interval, lambda dumper, value: dumper.represent_str(value.value))


class SavedConfig(SaveConfigCallback):
    """Save the configuration to the run's folder, with a numeric suffix if a config exists already.

    ``ckpt_path`` is null there, because the config describes a run and not the checkpoint that it resumed; the report
    names that checkpoint.
    """

    def __init__(self, parser: LightningArgumentParser, config: Any, **kwargs: Any) -> None:
        config = config.clone()
        config.ckpt_path = None
        super().__init__(parser, config, **kwargs)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Choose the file name, and save."""
        if trainer.barebones:
            return
        if not self.already_saved and trainer.log_dir is not None:
            self.config_filename = unused_path(Path(trainer.log_dir) / self.config_filename).name
        super().setup(trainer, pl_module, stage)
