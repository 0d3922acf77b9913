"""Base of the four objectives: encoder, projector, normalization, loss, optimizer and logging."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from nc_lightning import __version__
from nc_lightning.batch import concatenate_views, set_name
from nc_lightning.callbacks.fault_tolerance.nonfinite_guard import NonFiniteGuard
from nc_lightning.callbacks.logged_values import forget_logged, log_means
from nc_lightning.callbacks.sources import unless_present
from nc_lightning.checks import check_count
from nc_lightning.distributed.collectives import all_gather_objects, rank_and_world_size
from nc_lightning.distributed.devices import search_no_gpu_again
from nc_lightning.distributed.global_batch import Sync
from nc_lightning.encoders import ProjectionHead
from nc_lightning.encoders.base import AnyEncoder, AnyProjector
from nc_lightning.geometry import normalize
from nc_lightning.losses import ContrastiveLoss, LossResult
from nc_lightning.losses.pairs import ignores_labels
from nc_lightning.objectives.monitors import check_monitors
from nc_lightning.objectives.parts import check_features, make_projector
from nc_lightning.objectives.references import ReferencedModule
from nc_lightning.options import SignatureWithOptions
from nc_lightning.private_apis.lightning import is_from_command_line
from nc_lightning.schedules import LRInterval
from nc_lightning.strategies import check_strategy, shard

_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_BUILT_FROM_CODE = ["loss", "link", "hardening", "encoder", "projector", "optimizer", "lr_scheduler"]


class ContrastiveObjective(ReferencedModule):
    """Train an encoder and projector with a contrastive loss; `SCL`, `HSCL`, `UCL` and `HUCL` choose the loss.

    Batches are ``(x, y)`` or ``((x1, ..., xV), y)``; all views share one forward pass. `forward` returns the normalized
    projections z, the input of losses and geometry measures. Weight decay does not apply to biases and norm layers. A
    `NonFiniteGuard` is added unless the Trainer already has one.

    Logs ``loss/train`` and ``loss/val`` and, where defined, the lower bound ``loss/bound``, the distance to it
    ``loss/optimality_gap``, the value at total collapse ``loss/collapsed`` and, for unsupervised objectives, the value
    at neural collapse ``loss/neural_collapse``. The bound of HUCL is that of each batch; those of the others are for
    batches with the shares of the training classes, so that the gap of a random batch can be negative.

    The width of h is the encoder's ``out_features``; without it, that of timm's models, or of a forward pass of zeros.

    Args:
        loss: Loss of (z, labels).
        encoder: Module that maps inputs to features h (N, width).
        num_classes: Number of classes C.
        feature_dim: Dimension d of z; None for C - 1.
        projector: Module that maps h to z, or a function that makes it from (width of h, feature_dim).
        optimizer: Function that makes the optimizer from the parameters.
        lr_scheduler: Function from optimizer to scheduler, or None.
        lr_interval: When the scheduler steps.
        channels_last: Keep the encoder in channels-last format.
        compile: Compile the encoder.

    Attributes:
        preprocess: Module that standardizes uint8 images, or float images in [0, 1], as in training. `forward` takes
            standardized inputs, as the data modules of this package provide.
        class_names: Names of the training classes in order, or their labels; None if unknown.

    Raises:
        ValueError: If an argument is out of its range, or the encoder's width cannot be found out.
    """

    __signature__ = SignatureWithOptions()

    def __init__(
        self,
        loss: ContrastiveLoss,
        encoder: AnyEncoder,
        num_classes: int,
        feature_dim: int | None = None,
        projector: Callable[[int, int], AnyProjector] = nn.Linear,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: LRInterval = "epoch",
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__(optimizer, lr_scheduler, lr_interval)
        check_count("num_classes", num_classes, at_least=2)
        if feature_dim is not None:
            check_count("feature_dim", feature_dim)
        self.save_hyperparameters(ignore=_BUILT_FROM_CODE)
        if is_from_command_line(self.hparams):
            # LightningCLI provides the configuration instead of the objects: plain types, which are all saved.
            self.save_hyperparameters()
        self.loss = loss
        self.num_classes = num_classes
        self.feature_dim = num_classes - 1 if feature_dim is None else feature_dim
        self.encoder = encoder
        self.projector = make_projector(projector, encoder, self.feature_dim)
        if channels_last:
            self.encoder.to(memory_format=torch.channels_last)
        if compile:
            self.encoder.compile()
        self._is_sharded = False
        self._evaluation_sync: Sync | None = None

    def setup(self, stage: str) -> None:
        """Refuse strategies with which callbacks cannot call this module."""
        super().setup(stage)
        check_strategy(self.trainer.strategy)

    def configure_model(self) -> None:
        """Shard encoder and projector, one unit each, if the strategy is FSDP2."""
        if self.device_mesh is None or self._is_sharded:
            return
        if any(True for _ in self.loss.parameters()):
            raise ValueError("loss: got learned parameters, expected none under FSDP2; use strategy ddp")
        self._is_sharded = True
        shard(self.device_mesh, self.encoder, self.projector)

    @property
    def backbone(self) -> nn.Module:
        """The encoder, under the name that `BackboneFinetuning` expects."""
        return self.encoder

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs (N, ...) to normalized projections z (N, d) in float32 or float64."""
        h = self.encoder(x)
        if type(self.projector) in (nn.Linear, ProjectionHead):  # other projectors may take features of another shape
            check_features("encoder", self.encoder, h, next(self.projector.parameters()).shape[1])
        z = self.projector(h)
        check_features("projector", self.projector, z)
        return normalize(z, self.loss.normalization)

    def on_fit_start(self) -> None:
        """Refuse monitors of values that are not logged; warn about settings that do not have the intended effect."""
        super().on_fit_start()
        search_no_gpu_again()
        check_monitors(self.trainer, self)
        if self.class_names is not None and ignores_labels(self.loss.positives, self.loss.negatives):
            rank_zero_info("positives: by view, with all other samples as negatives; the loss does not use the labels")
        if self.trainer.accumulate_grad_batches > 1:
            rank_zero_warn(
                f"accumulate_grad_batches: got {self.trainer.accumulate_grad_batches}, which adds no negatives to a "
                "contrastive loss; for more negatives, raise batch_size, or queue_size of HardNegativeSampler"
            )
        if self.trainer.world_size > 1 and any(type(module) in _BATCH_NORMS for module in self.modules()):
            rank_zero_warn(
                "sync_batchnorm: got False with BatchNorm on several processes, which normalizes each shard separately "
                "and so leaks which process a sample is on; give the Trainer plugins=[BatchNormSync()]"
            )

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Compute the loss of a batch; return it with z and the labels for callbacks."""
        x, labels, instances = concatenate_views(batch)
        z = self(x)
        result = self._loss(z, labels, instances)
        # `NonFiniteGuard` stops at or skips non-finite steps, so they get weight 0 in the logged means. The weight is
        # computed on the device, which avoids a second synchronization.
        value = result.value.detach()
        finite = value * 0 == 0
        weight, value = finite * _weight(len(labels)), value.nan_to_num(0.0, 0.0, 0.0)
        log_means(self, {"loss/train": value}, weight, prog_bar=True)
        log_means(self, self.references(value, result), weight)
        views = {"instances": instances, "shares": result.shares}
        return {"loss": result.value, "z": z.detach(), "labels": labels, **views}

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _loss(self, z: Tensor, labels: Tensor, instances: Tensor) -> LossResult:
        # Sizes in the loss depend on the labels: compiling it with the step would cause 15 graph breaks.
        return self.loss.compute(z, labels, instances)

    def on_validation_start(self) -> None:
        """Check whether the loss can be computed over the batches of all processes."""
        super().on_validation_start()
        self._evaluation_sync = self._sync_for(self.trainer.num_val_batches)
        forget_logged(self.trainer, "loss/val")

    def on_test_start(self) -> None:
        """Check whether the loss can be computed over the batches of all processes."""
        super().on_test_start()
        self._evaluation_sync = self._sync_for(self.trainer.num_test_batches)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Log the loss of a validation batch; return z and the labels for callbacks."""
        return self._evaluate(f"loss/{set_name('val', dataloader_idx)}", batch, prog_bar=True)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Log the loss of a test batch; return z and the labels for callbacks."""
        return self._evaluate(f"loss/{set_name('test', dataloader_idx)}", batch)

    def _evaluate(self, key: str, batch: Any, prog_bar: bool = False) -> dict[str, Tensor]:
        x, labels, instances = concatenate_views(batch)
        z = self(x)
        result = self.loss.compute(z, labels, instances, sync=self._evaluation_sync)
        if result.num_pairs > 0:
            # Without pairs the loss is 0, which would look optimal.
            log_means(self, {key: result.value}, _weight(len(labels)), prog_bar)
        return {"z": z, "labels": labels}

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Return the normalized projections and the labels of a batch."""
        x, labels, _ = concatenate_views(batch)
        return {"features": self(x), "labels": labels}

    def configure_callbacks(self) -> list[Callback]:
        """Add a `NonFiniteGuard` unless the Trainer has one."""
        return unless_present(NonFiniteGuard, self)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save objective and hardness, also if a callback saves the weights of another module."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["objective"] = type(self).__name__
        checkpoint["nc_lightning_version"] = __version__
        self.loss.save_scheduled_beta(checkpoint["state_dict"], "loss.")

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another objective, whose weights could be loaded."""
        trained = checkpoint.get("objective", type(self).__name__)
        if trained != type(self).__name__:
            raise ValueError(f"checkpoint: got one of {trained}, expected one of {type(self).__name__}")
        super().on_load_checkpoint(checkpoint)

    def _sync_for(self, num_batches: list[int | float]) -> Sync | None:
        """Return the sync mode for evaluating this many batches; None to keep the configured one."""
        counts = all_gather_objects(sum(num_batches))
        if len(counts) == 1 or (len(set(counts)) == 1 and math.isfinite(counts[0])) or self.loss.sync == "local":
            return None
        rank_zero_warn(
            f"evaluation: got {', '.join(f'{n:g}' for n in counts)} batches on the {len(counts)} processes, so that "
            "the loss is computed on each process separately; use equal numbers for the loss of the global batches"
        )
        return "local"


def _weight(batch_size: int) -> int:
    # Lightning averages weights over processes as integers, which would round weights not divisible by their number.
    return batch_size * rank_and_world_size()[1]
