"""Online linear probe: the accuracy of a linear classifier trained alongside the representation."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from nc_lightning import optim
from nc_lightning.batch import UNLABELED, set_name, step_features
from nc_lightning.callbacks.logged_values import forget_logged, log_means
from nc_lightning.callbacks.sources import find_num_classes
from nc_lightning.checks import check_count, check_labels
from nc_lightning.distributed.collectives import rank_and_world_size
from nc_lightning.geometry.blocks import row_blocks
from nc_lightning.private_apis.torch import divide_all


class OnlineLinearProbe(Callback):
    """Train a linear classifier on the detached features of each step, alongside the module, which it does not affect.

    The steps of any LightningModule can return the required dict with features ``z`` (N, d) and ``labels`` (N,), as the
    objectives here do; negative, unknown labels are ignored. The classifier starts at zero, draws no random numbers and
    passes no gradient to the module, so training is the same with and without a probe. It has its own optimizer.
    Several processes take the step of a single one with the global batch, and keep equal classifiers. Checkpoints
    include the classifier; if one does not, the classifier starts from scratch.

    Logged at the end of an epoch are ``probe/train_loss``, ``probe/train_accuracy`` and, if validation steps return
    features, ``probe/val_accuracy`` (``probe/val_1_accuracy`` for a second loader); until then the sums stay on the
    device, so that no step waits for them. `GeometryMonitor` compares the classifier with the class means:
    ``geometry/<set>/nc3`` and ``nc4``.

    Args:
        optimizer: Callable that makes an optimizer of the classifier's parameters.
        num_classes: C; None to take it from the module or the data module.

    Attributes:
        classifier: The linear layer, None before the first step.

    Raises:
        ValueError: If the number of classes is unknown, or a training step returns no features.

    Source:
        NC3 and NC4 of Papyan, Han, Donoho (2020), for representations that are trained without a classifier.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[OnlineLinearProbe()], logger=False)
    """

    def __init__(self, optimizer: OptimizerCallable = torch.optim.Adam, num_classes: int | None = None) -> None:
        if num_classes is not None:
            check_count("num_classes", num_classes, at_least=2)
        self.make_optimizer = optim.without_parser(optimizer)
        self.num_classes = num_classes
        self.classifier: nn.Linear | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._made: optim.Configured | None = None
        self._loaded: dict[str, Any] = {}
        self._trained: Tensor | None = None
        self._evaluated: dict[int, Tensor] = {}
        self._num_classes = num_classes or 0
        self._module: LightningModule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the number of classes; drop the classifier of an earlier fit, or of another module."""
        self._num_classes = find_num_classes(self.num_classes, trainer, pl_module, "OnlineLinearProbe")
        if stage == "fit" or self._module is not pl_module:
            self._module = pl_module
            self.classifier, self._optimizer, self._loaded, self._trained = None, None, {}, None

    def state_dict(self) -> dict[str, Any]:
        """Return the classifier, its optimizer's state, and the sums of the epoch."""
        if self.classifier is None or self._optimizer is None or self._made is None:
            return self._loaded
        return {
            "classifier": self.classifier.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "settings": self._made.plain(),
            "trained": self._trained,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the classifier, its optimizer and the sums of the epoch."""
        self._loaded = state_dict
        self._trained = state_dict.get("trained")
        if "classifier" in state_dict:
            self._make(state_dict["classifier"]["weight"])

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the sums; Lightning skips this hook when it resumes in the middle of an epoch."""
        self._trained = None
        forget_logged(trainer, "probe/train_")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take an optimizer step on the features of the batch."""
        features = step_features(outputs)
        if features is None:
            raise ValueError(
                f"OnlineLinearProbe: got no features from the training step of {type(pl_module).__name__}, expected a "
                "dict with loss, z and labels"
            )
        z, labels = _whole_precision(features.z, features.labels)
        classifier, optimizer = self._make(z)
        with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
            gradients: list[Tensor] = []
            sums = z.new_zeros(3)
            for rows in row_blocks(max(1, len(z)), self._num_classes):  # a process without samples has gradients, too
                logits = classifier(z[rows])
                loss = nn.functional.cross_entropy(logits, labels[rows], reduction="sum", ignore_index=UNLABELED)
                of_rows = torch.autograd.grad(loss, (classifier.weight, classifier.bias))
                gradients = [a + b for a, b in zip(gradients, of_rows, strict=True)] if gradients else [*of_rows]
                sums += torch.stack([loss.detach(), *_counts(logits, labels[rows], loss.dtype)])
        _add_over_processes(sums, *gradients)
        divide_all(gradients, sums[2].clamp(min=1))
        classifier.weight.grad, classifier.bias.grad = gradients
        optimizer.step()
        self._trained = sums if self._trained is None else self._trained.to(sums) + sums

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over the epoch, if any label was known."""
        loss, correct, count = (0.0, 0.0, 0.0) if self._trained is None else self._trained.tolist()
        if count > 0:
            self._log(pl_module, {"train_loss": loss / count, "train_accuracy": correct / count})
        self._trained = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Reset the counts of correct predictions."""
        self._evaluated = {}
        forget_logged(trainer, "probe/val")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count correct predictions on the validation batch, once there is a classifier."""
        features = step_features(outputs)
        if self.classifier is None or features is None:
            return
        z, labels = _whole_precision(features.z, features.labels)
        with torch.autocast(z.device.type, enabled=False):
            classifier, blocks = self._make(z)[0], row_blocks(max(1, len(z)), self._num_classes)
            of_blocks = [_counts(classifier(z[rows]), labels[rows], torch.long) for rows in blocks]
        counts = torch.stack(of_blocks).sum(0)
        before = self._evaluated.get(dataloader_idx)
        self._evaluated[dataloader_idx] = counts if before is None else before + counts

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the accuracy over the samples of all processes."""
        # A process without a batch takes part in the all-reduce, too.
        none = torch.zeros(2, dtype=torch.long, device=pl_module.device)
        counts = torch.stack([self._evaluated.get(i, none).to(none) for i in range(len(trainer.num_val_batches))])
        _add_over_processes(counts)
        for i, (correct, count) in enumerate(counts.tolist()):
            if count > 0:
                self._log(pl_module, {f"{set_name('val', i)}_accuracy": correct / count})

    def _make(self, like: Tensor) -> tuple[nn.Linear, torch.optim.Optimizer]:
        """Return classifier and optimizer, made for features like these (N, d) if there are none yet."""
        feature_dim, device = like.shape[1], like.device
        weight = None if self.classifier is None else self.classifier.weight
        if weight is not None and (weight.device, weight.dtype) != (device, like.dtype):
            # Loaded on another device or in another precision: both are remade, as an optimizer keeps its parameters.
            self._loaded, self.classifier = self.state_dict(), None
        if self.classifier is None or self._optimizer is None:
            # Created on the meta device so that no random numbers are consumed; the weights are zeroed below.
            self.classifier = nn.Linear(feature_dim, self._num_classes, device="meta", dtype=like.dtype).to_empty(
                device=device
            )
            nn.init.zeros_(self.classifier.weight)
            nn.init.zeros_(self.classifier.bias)
            self._optimizer = self.make_optimizer(self.classifier.parameters())
            self._made = optim.configured(self._optimizer, optim.group_settings(self._optimizer), None)
            if self._loaded:
                self.classifier.load_state_dict(self._loaded["classifier"])
                was = self._loaded.get("settings", self._made.plain())
                optim.check_same_optimizer(was["optimizer"], self._optimizer, "probe.optimizer")
                self._optimizer.load_state_dict(self._loaded["optimizer"])
                optim.tell(optim.resume_settings(was, self._made, self._optimizer), "probe.optimizer")
        if self.classifier.in_features != feature_dim:
            raise ValueError(
                f"OnlineLinearProbe: got features of {feature_dim} dimensions, expected "
                f"{self.classifier.in_features} as before"
            )
        return self.classifier, self._optimizer

    def _log(self, pl_module: LightningModule, values: dict[str, float]) -> None:
        named = {f"probe/{key}": torch.tensor(value, device=pl_module.device) for key, value in values.items()}
        log_means(pl_module, named, weight=1)


def _whole_precision(z: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return detached features in at least float32, and int64 labels on their device, with -1 for all unknown ones."""
    check_labels(labels, len(z))
    labels = labels.to(z.device, torch.int64).clamp(min=UNLABELED)
    return z.detach().to(torch.promote_types(z.dtype, torch.float32)), labels


def _counts(logits: Tensor, labels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (2,): the number of correct predictions, and of known labels."""
    return torch.stack([logits.argmax(1) == labels, labels != UNLABELED]).sum(1, dtype=dtype)


def _add_over_processes(*tensors: Tensor) -> None:
    """Sum tensors over all processes, in place and in one all-reduce."""
    if rank_and_world_size()[1] > 1:
        message = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(message)
        for tensor, total in zip(tensors, message.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))
