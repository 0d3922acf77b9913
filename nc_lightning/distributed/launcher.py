"""The launching process: on one machine, Lightning starts the other processes of a run from the first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLE = "NC_LAUNCHER"


@contextmanager
def announced() -> Iterator[None]:
    """Announce this process to those that Lightning starts from it; has no effect in those processes.

    Lightning runs the same command line again, with this environment and a LOCAL_RANK.

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
    """Return the pid of the process that launched this one as a worker, alive or not; None if there is none.

    With torchrun and SLURM there is none.

    Example:
        >>> launcher() is None
        True
    """
    announced = os.environ.get(_VARIABLE)
    return int(announced) if announced and int(os.environ.get("LOCAL_RANK", 0)) > 0 else None
