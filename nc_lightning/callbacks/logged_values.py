"""Logged values: Lightning shows each in all later epochs, also where it no longer holds."""

from lightning.pytorch import Trainer


def forget_logged(trainer: Trainer, *prefixes: str) -> None:
    """Remove values from the trainer's metrics: who logs them does so again if they still hold.

    Args:
        trainer: Trainer of a run.
        *prefixes: Beginnings of the keys.

    Example:
        >>> trainer = Trainer(logger=False, enable_checkpointing=False)
        >>> trainer.callback_metrics["loss/bound"] = 0.28
        >>> forget_logged(trainer, "loss/bound")
        >>> dict(trainer.callback_metrics)
        {}
    """
    for metrics in (trainer.callback_metrics, trainer.logged_metrics):
        for key in [key for key in metrics if key.startswith(prefixes)]:
            del metrics[key]
