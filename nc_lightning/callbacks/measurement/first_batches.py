"""Check of the first batch of each set, before training or evaluation starts."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.callbacks.measurement import loaders
from nc_lightning.callbacks.measurement.features import Measured, look_like_logits
from nc_lightning.callbacks.measurement.loaders import Source, in_evaluation
from nc_lightning.callbacks.measurement.passes import check_batches, undisturbed, with_layers
from nc_lightning.callbacks.measurement.readers import layers_to_read
from nc_lightning.data.preprocess import Preprocess


class FirstBatches:
    """Checks of the sets that are not yet checked; each raises what a measurement of the batch would raise.

    Args:
        measured: Sources of features and labels.
        num_classes: Number of classes C.
    """

    def __init__(self, measured: Measured, num_classes: int) -> None:
        self.measured, self.num_classes = measured, num_classes
        self._warned = False
        self.restart()

    def restart(self) -> None:
        """Check every set again."""
        self._checked: set[str] = set()

    def warn_of_logits(self, pl_module: LightningModule, width: int | None) -> None:
        """Warn, once, if features of this dimension look like the logits of a classifier."""
        chosen = self.measured.features is not None or self.measured.classifier is not None
        ours = isinstance(getattr(pl_module, "preprocess", None), Preprocess)  # an objective, whose forward returns z
        if width is None or chosen or ours or self._warned:
            return
        if (advice := look_like_logits(pl_module, width, self.num_classes)) is not None:
            self._warned = True
            rank_zero_warn(advice)

    def check_unread(self, trainer: Trainer, pl_module: LightningModule, held_out: dict[str, list[Source]]) -> None:
        """Check the first batch of each set whose loader is not being read by a loop."""
        with undisturbed(pl_module):
            sets = {"train": loaders.own_training_sources(trainer), **held_out}
            # As in Lightning's own sanity check.
            with in_evaluation(trainer, RunningStage.SANITY_CHECKING):
                for name, sources in sets.items():
                    unread = [source for source in sources if not loaders.is_being_read(trainer, name, source)]
                    first = [source._replace(limit=min(source.limit, 1)) for source in unread]
                    if first:
                        measured = with_layers(self.measured, layers_to_read(trainer))
                        self._check(pl_module, name, loaders.features(trainer, pl_module, first, measured))

    def check(self, trainer: Trainer, pl_module: LightningModule, name: str, batch: Any) -> None:
        """Check a batch of a set that is not yet checked."""
        if name in self._checked:
            return
        batches = loaders.single_batches(trainer, batch) if name == "train" else [batch]
        with undisturbed(pl_module):
            measured = with_layers(self.measured, layers_to_read(trainer))
            mapped = (loaders.batch_features(trainer, pl_module, one, measured) for one in batches)
            self._check(pl_module, name, mapped)

    def _check(self, pl_module: LightningModule, name: str, batches: Iterable[loaders.Batch]) -> None:
        self._checked.add(name)
        self.warn_of_logits(pl_module, check_batches(name, batches, pl_module, self.num_classes, self.measured))
