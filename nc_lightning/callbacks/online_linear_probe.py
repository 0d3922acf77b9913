"""The online linear probe: how well a linear classifier tells the classes apart while the representation is trained."""

from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn

from nc_lightning.callbacks.sources import find_num_classes, step_features
from nc_lightning.geometry.checks import check_count
from nc_lightning.processes import of_all_processes, this_process


class OnlineLinearProbe(Callback):
    """Train a linear classifier on the detached features of each step, beside the module and without touching it.

    The module's steps return a dict with the features ``z`` (N, d) and ``labels`` (N,), as every objective here does;
    any other LightningModule may. Unknown, negative labels are left out. The classifier begins at zero, so that no
    random number is drawn, and no gradient reaches the module: training is the same with a probe as without. It has an
    optimizer of its own; several processes take the step of one with the whole batch, and keep equal classifiers. It is
    part of the checkpoint; a checkpoint without one loads as well, and the classifier then begins anew.

    Logs ``probe/train_loss`` and ``probe/train_accuracy``, and where validation steps return features
    ``probe/val_accuracy``. `GeometryMonitor` compares it with the class means: ``geometry/<set>/nc3`` and ``nc4``.

    Args:
        optimizer: Called with the classifier's parameters.
        num_classes: C; None to take it from the module or the data module.

    Attributes:
        classifier: The linear layer, None before the first step.

    Raises:
        ValueError: If the number of classes is nowhere to be found, or a training step returns no features.

    Source:
        The classifier of Papyan, Han, Donoho (2020), NC3 and NC4, for representations that are trained without one.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[OnlineLinearProbe()], logger=False)
    """

    def __init__(self, optimizer: OptimizerCallable = torch.optim.Adam, num_classes: int | None = None) -> None:
        if num_classes is not None:
            check_count("num_classes", num_classes, at_least=2)
        self.make_optimizer = optimizer
        self.num_classes = num_classes
        self.classifier: nn.Linear | None = None
        self._optimizer: torch.optim.Optimizer | None = None
        self._loaded: dict[str, Any] = {}
        self._evaluated = (0, 0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out the number of classes, and begin anew with every fit that does not resume one."""
        self.num_classes = find_num_classes(self.num_classes, trainer, pl_module, "OnlineLinearProbe")
        if stage == "fit":
            self.classifier, self._optimizer, self._loaded = None, None, {}

    def state_dict(self) -> dict[str, Any]:
        """Return the classifier and its optimizer's state."""
        if self.classifier is None or self._optimizer is None:
            return self._loaded
        return {"classifier": self.classifier.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the classifier of `state_dict`."""
        self._loaded = state_dict
        if "classifier" in state_dict:
            self._make(state_dict["classifier"]["weight"])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a step on the features of the batch."""
        features = step_features(outputs)
        if features is None:
            raise ValueError(
                f"OnlineLinearProbe: got no features from the training step of {type(pl_module).__name__}, expected a "
                "dict with loss, z and labels"
            )
        z, labels = _known(*features)
        classifier, optimizer = self._make(z)
        with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
            logits = classifier(z)
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
            optimizer.zero_grad()
            loss.backward()
        correct = (logits.argmax(1) == labels).sum()
        sums = torch.stack([loss.detach(), correct.to(loss), loss.new_tensor(float(len(labels)))])
        gradients = [parameter.grad for parameter in classifier.parameters() if parameter.grad is not None]
        _add_over_processes(sums, *gradients)
        known = sums[2].item()
        for gradient in gradients:
            gradient /= max(1.0, known)
        optimizer.step()
        if known > 0:
            values = {"train_loss": sums[0] / known, "train_accuracy": sums[1] / known}
            self._log(pl_module, int(known), values)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._evaluated = (0, 0)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count how many validation samples the classifier gets right, once there is one."""
        features = step_features(outputs)
        if self.classifier is None or features is None:
            return
        z, labels = _known(*features)
        with torch.autocast(z.device.type, enabled=False):
            correct = int((self._make(z)[0](z).argmax(1) == labels).sum())
        self._evaluated = self._evaluated[0] + correct, self._evaluated[1] + len(labels)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the share that the classifier gets right of all samples, whichever process had them."""
        correct, known = (sum(counts) for counts in zip(*of_all_processes(self._evaluated), strict=True))
        if known > 0:
            self._log(pl_module, known, {"val_accuracy": torch.tensor(correct / known)})

    def _make(self, like: Tensor) -> tuple[nn.Linear, torch.optim.Optimizer]:
        """Return classifier and optimizer, made when the features (N, d) are known, for such ones."""
        feature_dim, device = like.shape[1], like.device
        if self.classifier is None or self._optimizer is None:
            assert self.num_classes is not None
            # On meta no random number is drawn for weights that are to be zero.
            self.classifier = nn.Linear(feature_dim, self.num_classes, device="meta", dtype=like.dtype).to_empty(
                device=device
            )
            nn.init.zeros_(self.classifier.weight)
            nn.init.zeros_(self.classifier.bias)
            self._optimizer = self.make_optimizer(self.classifier.parameters())
            if self._loaded:
                self.classifier.load_state_dict(self._loaded["classifier"])
                self._optimizer.load_state_dict(self._loaded["optimizer"])
        if self.classifier.in_features != feature_dim:
            raise ValueError(
                f"OnlineLinearProbe: got features of {feature_dim} dimensions, expected "
                f"{self.classifier.in_features} as before"
            )
        if self.classifier.weight.device != device or self.classifier.weight.dtype != like.dtype:
            self.classifier.to(device, like.dtype)  # of a checkpoint from another device, or of another precision
            self._optimizer.load_state_dict(self._optimizer.state_dict())
        return self.classifier, self._optimizer

    def _log(self, pl_module: LightningModule, batch_size: int, values: dict[str, Tensor]) -> None:
        named = {f"probe/{key}": value for key, value in values.items()}
        pl_module.log_dict(named, on_step=False, on_epoch=True, batch_size=batch_size, sync_dist=True)


def _known(z: Tensor, labels: Tensor, instances: Tensor | None) -> tuple[Tensor, Tensor]:
    """Features in float32 or better, detached, and labels, of the samples whose label is known."""
    known = labels >= 0
    return z.detach().to(torch.promote_types(z.dtype, torch.float32))[known], labels[known]


def _add_over_processes(*tensors: Tensor) -> None:
    """Add up tensors over all processes, in place and in one message."""
    if this_process()[1] > 1:
        message = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(message)
        for tensor, total in zip(tensors, message.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))
