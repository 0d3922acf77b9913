"""Warnings and messages of Lightning that do not help a user of the shipped configs."""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_WARNINGS = (
    ".*does not have many workers.*",  # the embedded data sets are in memory, where workers only cost time
    ".*is smaller than the logging interval.*",
    ".*LightningCLI's args parameter.*",  # we pass the command line itself, with the paths of shipped configs
    ".*The dirpath has changed from.*",  # every run has its own folder, also one that resumes another
    ".*Couldn't infer the batch indices.*",  # the indices are not used
    ".*is currently marked under review.*",  # half of lightning-bolts warns like this
    ".*WeightAveraging callback with a model that overrides.*",  # objectives shard only under FSDP2
    ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 under torch >= 2.13
)
_MESSAGES = re.compile(
    "💡 Tip|[GT]PU available: False"
    "|LOCAL_RANK: "  # which the line on the GPU says
    r"|`Trainer\.fit` stopped: `max_epochs="  # as asked
    "|Restored all states|Loaded model weights|-{100}"  # the line before has announced it
)
_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.pytorch.accelerators.cuda",
)


@contextmanager
def without_noise() -> Iterator[None]:
    """Suppress warnings and messages of Lightning that do not help a user of the shipped configs.

    Example:
        >>> with without_noise():
        ...     logging.getLogger("lightning.pytorch.utilities.rank_zero").info("TPU available: False")
    """
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(_tells_something)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(_tells_something)


def _tells_something(record: logging.LogRecord) -> bool:
    return _MESSAGES.match(record.getMessage()) is None
