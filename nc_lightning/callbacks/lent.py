"""Settings of other objects that a callback changes during a run."""

from contextlib import ExitStack
from typing import Any


class Lent(ExitStack):
    """Override attributes until `close` restores them.

    Example:
        >>> from types import SimpleNamespace
        >>> lent, logger = Lent(), SimpleNamespace(level=1)
        >>> lent.lend(logger, "level", 2)
        >>> lent.close()
        >>> logger.level
        1
    """

    def lend(self, instance: Any, name: str, value: Any) -> None:
        """Set an attribute; `close` restores it, or deletes it if the instance had none of its own."""
        if name in vars(instance):
            self.callback(setattr, instance, name, vars(instance)[name])
        else:
            self.callback(delattr, instance, name)
        setattr(instance, name, value)
