"""Where the CPU time of a training step goes: `python -m benchmarks.training --parts`."""

import re
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

from nc_lightning.callbacks import hard_negative_sampler, online_linear_probe
from nc_lightning.objectives import base

REST = "Lightning and the rest"
"""Part of everything that belongs to no other."""
WATCHING = ("logging", "OnlineLinearProbe", "NonFiniteGuard")
"""Parts that watch a step without training the model."""
SMALL = 0.005
"""Parts below this share of a step are summed."""
_HOOKS = {
    "train_dataloader_next": "loader",
    "training_step": "training step without encoder, loss and logging",
    "backward": "backward",
    "optimizer_step": "optimizer",
}


class Clock(Profiler):
    """CPU seconds of each part of training, without those of the parts that it calls.

    Lightning reports the start and the end of every hook to its profiler; `time_calls` adds other methods.

    Attributes:
        seconds: CPU seconds of each part since the last `restart`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._open = [REST]
        self._timed: list[tuple[Any, str, Callable[..., Any]]] = []
        self.restart()

    def restart(self) -> None:
        """Set all parts to zero."""
        self.seconds: dict[str, float] = defaultdict(float)
        self._since = time.process_time()

    def start(self, action_name: str) -> None:
        """Enter the part of a hook."""
        self._charge()
        self._open.append(part_of(action_name, self._open[-1]))

    def stop(self, action_name: str) -> None:
        """Leave the part of a hook."""
        self._charge()
        self._open.pop()

    def _charge(self) -> None:
        now = time.process_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def time_calls(self, owner: Any, name: str, part: str) -> None:
        """Charge the calls of a function to a part until `restore`."""
        function: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._charge()
            self._open.append(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.stop(part)

        self._timed.append((owner, name, function))
        setattr(owner, name, timed)

    def restore(self) -> None:
        """Put back the functions that `time_calls` replaced."""
        for owner, name, function in self._timed:
            setattr(owner, name, function)


def part_of(action: str, caller: str) -> str:
    """Return the part that an action of Lightning belongs to; that of its caller if it has none of its own.

    Example:
        >>> part_of("[Callback]NonFiniteGuard.on_before_backward", REST), part_of("run_training_batch", REST)
        ('NonFiniteGuard', 'Lightning and the rest')
        >>> part_of("[Strategy]SingleDeviceStrategy.backward", "optimizer")
        'backward'
    """
    callback = re.match(r"\[Callback\](\w+)", action)
    return callback[1] if callback else _HOOKS.get(action.rpartition(".")[2], caller)


class Parts(Callback):
    """Measure the parts of the steps after the first ones.

    Args:
        trainer: Trainer of a fit, before it starts.
        module: Objective that it will train.
        warm_up: Number of steps that are not counted.

    Attributes:
        milliseconds: CPU milliseconds a step of each part, since the warm-up.
    """

    def __init__(self, trainer: Trainer, module: LightningModule, warm_up: int) -> None:
        self.milliseconds: dict[str, float] = {}
        self._clock, self._warm_up = Clock(), warm_up
        trainer.profiler = self._clock  # type: ignore[attr-defined]
        self._clock.time_calls(module, "forward", "encoder")
        self._clock.time_calls(module.loss, "compute", "loss")
        logging: list[tuple[Any, str]] = [(module, "log"), (module, "references")]
        logging += [(each, "log_means") for each in (base, hard_negative_sampler, online_linear_probe)]
        for owner, name in [*logging, *((each, name) for each in trainer.loggers for name in ("log_metrics", "save"))]:
            self._clock.time_calls(owner, name, "logging")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Restart the clock after the warm-up, and read it after every later step except the last, which saves."""
        steps = trainer.global_step - self._warm_up
        if steps <= 0:
            self._clock.restart()
        else:
            self.milliseconds = {part: 1e3 * total / steps for part, total in self._clock.seconds.items()}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop timing."""
        self._clock.restore()
