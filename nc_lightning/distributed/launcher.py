"""Which process has started this one: those of a run on one machine are started by its first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "NC_LAUNCHER"


@contextmanager
def announced() -> Iterator[None]:
    """Let the processes that Lightning starts from this one know it; of no effect in one of those.

    Lightning hands on the environment, and runs the same command line again with a LOCAL_RANK.

    Example:
        >>> with announced():
        ...     os.environ["NC_LAUNCHER"] == str(os.getpid())
        True
    """
    if "LOCAL_RANK" in os.environ:
        yield
        return
    os.environ[_VARIABLE] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)


def launcher() -> int | None:
    """Return the process that has started this one to train beside it, be it alive or not; None if there is none.

    Under torchrun and SLURM there is none.

    Example:
        >>> launcher() is None
        True
    """
    announced = os.environ.get(_VARIABLE)
    return int(announced) if announced and int(os.environ.get("LOCAL_RANK", 0)) > 0 else None
