"""Starting weights of a run, loaded from the checkpoint of another run."""

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.io.atomic import short_path
from nc_lightning.io.checkpoints import checkpoints_below, newest_first, newest_whole, read_checkpoint

_PARTS = ("encoder.", "projector.")


class InitialWeights(Callback):
    """Start training with the encoder and the projector of a checkpoint of any objective.

    Only weights and buffers are loaded: unlike with Lightning's ``ckpt_path``, the optimizer, the schedule and the
    epoch start from scratch. A resumed run continues from its own checkpoint.

    Args:
        checkpoint: Path of a checkpoint, or of a folder, for the newest whole one below it.

    Raises:
        FileNotFoundError: If there is no whole checkpoint.
        ValueError: If its weights do not fit the module.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[InitialWeights("lightning_logs/hscl-digits-beta10")], logger=False)
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load the weights, before Lightning loads a checkpoint to resume."""
        if stage != "fit":
            return
        path = self._find()
        weights = read_checkpoint(path)["state_dict"]
        own = {key: tuple(value.shape) for key, value in pl_module.state_dict().items() if key.startswith(_PARTS)}
        for key, shape in own.items():
            got = tuple(weights[key].shape) if key in weights else "nothing"
            if got != shape:
                raise ValueError(
                    f"InitialWeights: got {got} for {key} in {short_path(path)!r}, expected {shape}, its shape in "
                    "this module"
                )
        pl_module.load_state_dict({key: weights[key] for key in own}, strict=False)
        rank_zero_info(f"starting from the weights of {short_path(path)}")

    def _find(self) -> Path:
        given = Path(self.checkpoint).expanduser()
        found, _ = newest_whole([given] if given.is_file() else newest_first(checkpoints_below(given)))
        if found is None:
            raise FileNotFoundError(
                f"InitialWeights: got {self.checkpoint!r}, expected a whole checkpoint, or a folder with one below it"
            )
        return found
