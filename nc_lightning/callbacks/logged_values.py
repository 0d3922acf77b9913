"""Logged values, which Lightning keeps showing in later epochs even if they are out of date."""

from lightning.pytorch import Trainer


def forget_logged(trainer: Trainer, *prefixes: str) -> None:
    """Remove outdated values, whose keys start with one of the prefixes, from the trainer's metrics.

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
