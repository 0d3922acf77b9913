"""Guard against NaN and infinity: reports where they came from, before a step spreads them."""

import math
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from nc_lightning.callbacks.sources import checkpoint_folder
from nc_lightning.checks import check_choice
from nc_lightning.distributed.collectives import all_gather_objects, own_share, rank_and_world_size
from nc_lightning.io.atomic import unused_path
from nc_lightning.private_apis.torch import copy_all, largest_of_all, tree_leaves

OnNonFinite = Literal["raise", "skip"]

INPUTS, FEATURES, LOSS, GRADIENT = range(4)
"""Where a non-finite value can first appear, in the order of a training step."""


class Finding(NamedTuple):
    """First non-finite tensor found by a process; the smallest finding of all processes is the origin.

    ``backward`` is the index of the backward pass: an optimizer step has several if gradients accumulate.
    """

    backward: int
    kind: int
    batch_idx: int
    detail: str


class Seen(NamedTuple):
    """Tensors before a backward pass: the index of their batch, and the kind and `ends` of each."""

    batch_idx: int
    kinds: list[int]
    ends: list[tuple[Tensor, ...]]


class NonFiniteGuard(Callback):
    """Stop at NaN or infinity in inputs, features, loss or gradients, before they reach the weights.

    In any LightningModule, every optimizer step is checked once, before it is taken. The message names the step, the
    epoch and batch, the rank, and what was non-finite first: the inputs; else the features, which the module returns
    when it is called; else the loss; else the gradient that the backward pass computes first, that of the last such
    parameter in ``named_parameters()``. All processes act alike, even if only one has bad numbers. Under fp16 mixed
    precision, infinite gradients are expected and handled by the gradient scaler.

    ``raise`` saves the state before the step to ``before-nonfinite-epoch=E-step=S.ckpt`` next to the other checkpoints,
    or in ``default_root_dir`` if there are none; a run that resumes it continues with the batch after the bad one, if
    the data come from `nc_lightning.data`. ``skip`` keeps weights, buffers and the optimizer's state unchanged, shows
    zeros instead of bad features to callbacks, warns the first time, and logs ``loss/skipped_steps`` from then on. If a
    weight itself is not finite, no later step can be good, and ``skip`` raises as well. The objectives add a guard
    unless the Trainer already has one.

    Args:
        on_nonfinite: Action, ``raise`` or ``skip``.

    Attributes:
        skipped_steps: Number of skipped steps.

    Raises:
        ValueError: If ``on_nonfinite`` is neither, or training meets NaN or infinity.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[NonFiniteGuard(on_nonfinite="skip")], logger=False)
    """

    def __init__(self, on_nonfinite: OnNonFinite = "raise") -> None:
        check_choice("on_nonfinite", on_nonfinite, OnNonFinite)
        self.on_nonfinite = on_nonfinite
        self.skipped_steps = 0
        self._hook: RemovableHandle | None = None
        self._batch_idx = 0
        self._inputs: list[Tensor] = []
        self._features: list[Tensor] = []
        self._stateful: list[torch.nn.Module] = []
        self._buffers: list[Tensor] = []
        self._seen: list[Seen] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset the count of skipped steps when a fit starts."""
        if stage == "fit":
            self.skipped_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the count of skipped steps."""
        return {"skipped_steps": self.skipped_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the count of skipped steps."""
        self.skipped_steps = state_dict["skipped_steps"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register a forward hook that records the features; find the modules with buffers."""
        self._stateful = [module for module in pl_module.modules() if any(True for _ in module.buffers(recurse=False))]
        self._hook = pl_module.register_forward_hook(self._see_features)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the forward hook, and drop the tensors of the last step."""
        if self._hook is not None:
            self._hook.remove()
        self._inputs, self._features, self._buffers, self._seen, self._stateful = [], [], [], [], []

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the forward hook, and drop the tensors of the last step."""
        self.on_train_end(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the inputs, and a copy of the buffers, such as running statistics, which bad inputs would spoil."""
        self._batch_idx, self._inputs, self._features = batch_idx, _floats(batch), []
        if not self._seen:
            self._remember(self._current_buffers())

    def _current_buffers(self) -> list[Tensor]:
        return [buffer for module in self._stateful for buffer in module.buffers(recurse=False)]

    def _remember(self, buffers: list[Tensor]) -> None:
        if [(b.shape, b.dtype, b.device) for b in buffers] != [(b.shape, b.dtype, b.device) for b in self._buffers]:
            self._buffers = [torch.empty_like(buffer) for buffer in buffers]
        for dtype in {buffer.dtype for buffer in buffers}:
            # One kernel per dtype; cloning each buffer would take one per buffer.
            before, now = ([b for b in tensors if b.dtype == dtype] for tensors in (self._buffers, buffers))
            copy_all(before, now)

    def _see_features(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        # With several processes the module is also called for its training step, which returns the loss.
        if torch.is_grad_enabled() and isinstance(output, Tensor) and output.ndim > 0:
            self._features += _floats(output)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Record the ends of the inputs, features and loss, without waiting for the device."""
        tensors = {INPUTS: self._inputs, FEATURES: self._features, LOSS: _floats(loss)}
        kinds = [kind for kind, of_kind in tensors.items() for _ in of_kind]
        self._seen.append(Seen(self._batch_idx, kinds, ends([t for of_kind in tensors.values() for t in of_kind])))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check all tensors of this step; raise, or skip the step, if any is non-finite on any process."""
        seen, self._seen = self._seen, []
        values = [of_one for one in seen for of_one in one.ends]
        gradients = []
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            gradients = _floats([p.grad for group in optimizer.param_groups for p in group["params"]])
        # The sum of finite gradients may overflow, but reading it takes a third of the time of minimum and maximum.
        if any(_all_finite(values + of_all(gradients), pl_module.device) for of_all in (totals, ends)):
            return
        findings = all_gather_objects(_first(seen, pl_module))
        for buffer, before in zip(self._current_buffers(), self._buffers, strict=True):
            buffer.copy_(before)
        message, hopeless = _explain(findings, trainer), _bad_weight(pl_module)
        if hopeless is not None:
            remedy = f"; the weight {hopeless} is not finite itself: restart from scratch or from an earlier checkpoint"
        else:
            remedy = ", or skip such steps with on_nonfinite"
        if self.on_nonfinite == "raise" or hopeless is not None:
            raise ValueError(message + remedy + _save(trainer))
        optimizer.zero_grad(set_to_none=True)
        for z in self._features:
            z.nan_to_num_(0.0, 0.0, 0.0)
        if self.skipped_steps == 0:
            rank_zero_warn(f"{message}; the step is skipped, as any later one like it will be")
        self.skipped_steps += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the number of skipped steps, if any."""
        if self.skipped_steps > 0:
            pl_module.log("loss/skipped_steps", float(self.skipped_steps))


def totals(tensors: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Return a scalar for each tensor that is NaN or infinite if any value is, and sometimes if all are finite.

    Example:
        >>> totals([torch.tensor([1.0, -3.0]), torch.tensor([2.0, torch.nan]), torch.tensor([3e38, 3e38])])
        [(tensor(-2.),), (tensor(nan),), (tensor(inf),)]
    """
    return [(t.sum(),) for t in tensors] if all(t.device.type == "cpu" for t in tensors) else ends(tensors)


def ends(tensors: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Return scalars for each tensor, one of them NaN or infinite if any value is, without waiting for the device.

    Example:
        >>> ends([torch.tensor([1.0, -3.0]), torch.tensor([2.0, torch.nan])])
        [(tensor(-3.), tensor(1.)), (tensor(nan), tensor(nan))]
    """
    # Exact, unlike a sum of squares. On the CPU the maximum norm takes 20 times as long as minimum and maximum; on a
    # GPU it takes one kernel for all tensors instead of one for each.
    elsewhere = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    norms = iter(largest_of_all(elsewhere))
    return [tuple(torch.aminmax(t)) if t.device.type == "cpu" else (next(norms),) for t in tensors]


def _all_finite(values: list[tuple[Tensor, ...]], device: torch.device) -> bool:
    """Return whether the numbers are finite on all processes; this waits for the device."""
    numbers = [number.to(device) for of_one in values for number in of_one] or [torch.zeros((), device=device)]
    bad = (torch.stack(numbers) * 0).sum() != 0  # 0 times NaN or infinity is NaN
    if rank_and_world_size()[1] > 1:
        bad = bad.int()
        dist.all_reduce(bad, op=dist.ReduceOp.MAX)
    return not bad


def _floats(values: Any) -> list[Tensor]:
    """Return the floating-point tensors of any structure, detached: shards of sharded, values of sparse ones."""
    tensors = (own_share(value.detach()) for value in tree_leaves(values) if isinstance(value, Tensor))
    tensors = (t.coalesce().values() if t.layout == torch.sparse_coo else t for t in tensors)
    return [t for t in tensors if t.is_floating_point() and t.numel() > 0 and t.layout == torch.strided]


def _first(seen: list[Seen], module: LightningModule) -> Finding | None:
    """Return what was non-finite first on this process; None if it began on another."""
    for backward, one in enumerate(seen):
        for kind, of_one in zip(one.kinds, one.ends, strict=True):
            for value in map(float, of_one):
                if not math.isfinite(value):
                    return Finding(backward, kind, one.batch_idx, str(abs(value)))
    for name, parameter in reversed(list(module.named_parameters())):
        if parameter.grad is not None and not torch.isfinite(own_share(parameter.grad)).all():
            return Finding(len(seen), GRADIENT, seen[-1].batch_idx if seen else 0, name)
    return None


def _bad_weight(module: LightningModule) -> str | None:
    """Return the first non-finite weight of any process; each process checks its own shards."""
    names = (name for name, weight in module.named_parameters() if not torch.isfinite(own_share(weight)).all())
    return next((name for name in all_gather_objects(next(names, None)) if name is not None), None)


def _explain(findings: list[Finding | None], trainer: Trainer) -> str:
    """Return one line: what was non-finite first on any process, where, and the remedy."""
    elsewhere = Finding(0, GRADIENT, 0, "a parameter that is not the module's")
    backward, kind, batch_idx, detail = min((found for found in findings if found is not None), default=elsewhere)
    ranks = [rank for rank, finding in enumerate(findings) if finding is not None and finding[:2] == (backward, kind)]
    on = f"rank {ranks[0]}" if ranks and (len(ranks) < len(findings) or len(findings) == 1) else "every rank"
    where = f"in batch {batch_idx} of epoch {trainer.current_epoch} (step {trainer.global_step}, {on})"
    slower = "lower the learning rate"
    if trainer.precision == "16-true":
        slower = "16-true holds nothing above 65504 and nothing below 6e-8: set precision to bf16-true or 16-mixed"
    return {
        INPUTS: f"data: got NaN or infinite inputs {where}, expected finite numbers; look at the samples of this batch",
        FEATURES: f"features: got NaN or infinite z {where} from finite inputs; {slower}",
        LOSS: f"loss: got {detail} {where} from finite features; {slower} or normalize the features",
        GRADIENT: f"gradient: got NaN or infinity, first in that of {detail}, {where} from a finite loss; "
        f"{slower} or clip gradients (gradient_clip_val)",
    }[kind]


def _save(trainer: Trainer) -> str:
    """Save the state before this step, on all processes, and return where it is."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return ""
    name = f"before-nonfinite-epoch={trainer.current_epoch}-step={trainer.global_step}.ckpt"
    path = trainer.strategy.broadcast(unused_path(checkpoint_folder(trainer, otherwise="") / name))
    try:
        trainer.save_checkpoint(path)
    except OSError as error:
        return f"; the state before this step could not be saved to {path}: {error}"
    return f"; the state before this step is in {path}"
