"""User errors: the exceptions that bad input raises, explained on one line.

This module does not load Lightning, which ``nc-measure`` does not need.
"""

import os
import re
import select
import sys
import threading
import traceback
from argparse import ArgumentError
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.multiprocessing import ProcessRaisedException

from nc_lightning.checks import one_line
from nc_lightning.cli.command_error import CommandError

_USER_ERRORS = (
    *(ArgumentError, ValueError, TypeError, OSError, ModuleNotFoundError, RuntimeError, AttributeError),
    ProcessRaisedException,
)
"""Exceptions that bad input may raise, next to Lightning's MisconfigurationException; see `is_user_error`."""

_SIGPIPE = 141
"""Exit code of a program whose output pipe was closed."""
_STATE_DICT = "Error(s) in loading state_dict"
_NO_BACKEND = "Distributed package doesn't have"
_SKIPPED = re.compile(
    r"\s*(-\s*)?(Does not validate against any of the Union subtypes|Subtypes:|Errors:|Given value( type)?:"
    r"|Expected a <class 'NoneType'>|Expected a path but)"
)
_KEY = re.compile(r"Parser key \"([^\"]+)\":?")
_FRAME = re.compile(r"Problem with given class_path '[^']*':|Type typing\.Callable.*? callable class:")
_GIVEN = re.compile(r"^\s*Given value: (?:NestedArg\(key='[^']*', val=(.*)\)|(?!Namespace|\{)(.{1,80}))$", re.MULTILINE)
_INTERNAL = re.compile(
    r"argument of type '\w+' is not iterable|'\w+' object has no attribute '\w+'|unhashable type: '\w+'"
)
_OF_CHECKPOINT = re.compile(r"^RunCheckpoint: got monitor ")
_LINK = re.compile(r"Call to compute_fn of link .* failed: ", re.DOTALL)


@contextmanager
def errors_on_one_line(command: str) -> Iterator[None]:
    """Raise a `CommandError` with one line on bad input; with ``NC_DEBUG=1``, the exception itself.

    It decorates the ``main`` of each command, which notebooks call with the command line as a list; console scripts
    print the line and exit, see `exit_on_error`. When the reader of a pipe has gone away (``| head``), the command
    exits silently. After ``--help`` and the like, it returns None instead of ending the program.

    Raises:
        CommandError: Instead of the exception for bad input, which is its cause.

    Example:
        >>> with errors_on_one_line("nc-measure"):
        ...     raise ValueError("num_classes: got 1")
        Traceback (most recent call last):
        ...
        nc_lightning.cli.command_error.CommandError: num_classes: got 1
    """
    in_threads = threading.excepthook
    threading.excepthook = lambda args: None if _is_of_a_writer(args) else in_threads(args)
    try:
        yield
        sys.stdout.flush()
    except SystemExit as ended:
        if ended.code or type(ended) is not SystemExit:  # a subclass ends a worker that a signal has stopped
            raise
    except Exception as raised:
        error = _of_its_process(raised)
        if not isinstance(error, _USER_ERRORS) and type(error).__name__ != "MisconfigurationException":
            raise
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise SystemExit(_SIGPIPE) from None
        if os.environ.get("NC_DEBUG") == "1" or not is_user_error(error):
            raise
        raise CommandError(_printable(explain(error)), command) from error
    finally:
        threading.excepthook = in_threads


def is_user_error(error: BaseException) -> bool:
    """Return whether an error is due to bad input; for a bug of this package the traceback is shown.

    Example:
        >>> is_user_error(ValueError("temperature: got 0")), is_user_error(RuntimeError("shape mismatch in mm"))
        (True, False)
    """
    if isinstance(error, ProcessRaisedException):
        return False
    if not isinstance(error, (RuntimeError, AttributeError)) or isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return str(error).startswith((_STATE_DICT, _NO_BACKEND)) or _raised_in(error).startswith("lightning.")


def _of_its_process(error: BaseException) -> BaseException:
    """Return the error that ended a spawned or forked process, parsed from its traceback; other errors unchanged."""
    if isinstance(error, ProcessRaisedException):
        kinds: dict[str, Any] = {kind.__name__: kind for kind in (ValueError, TypeError, OSError, ModuleNotFoundError)}
        kinds["MisconfigurationException"] = ValueError
        text = str(error)
        heads = [head for head in re.finditer(r"^(?:\w+\.)*(\w+): ", text, re.MULTILINE) if head[1] in kinds]
        if heads:
            original: BaseException = kinds[heads[-1][1]](text[heads[-1].end() :])
            return original
    return error


def _raised_in(error: BaseException) -> str:
    """Return the module that raised an error itself, such as a module of Lightning that refuses a setting."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")) if frames else ""


def explain(error: BaseException) -> str:
    r"""Return the message of an error on one line: the argument, the value, and what is expected.

    jsonargparse reports a nested argument as a tree with one attempt per type; only the path of the argument and the
    reason are kept.

    Example:
        >>> explain(ValueError("first\n  second"))
        'first; second'
    """
    text = _OF_CHECKPOINT.sub("--checkpoint.monitor: got ", _LINK.sub("", str(error)))
    if text.startswith(_STATE_DICT):
        return f"--ckpt_path: the checkpoint does not fit the configured model: {one_line(text.partition(':')[2])}"
    if text.startswith(_NO_BACKEND):
        return (
            f"--trainer.strategy: {one_line(text)}; use a torch with it, or a strategy with process_group_backend gloo"
        )
    keys = ".".join(dict.fromkeys(_KEY.findall(text)))  # each type of a union that was tried repeats its keys
    if keys or "Expected a dot import path" in text:
        from nc_lightning.cli.suggestions import parser_message  # noqa: PLC0415 - loads Lightning

        if (message := parser_message(keys, text)) is not None:
            return message
    given = _GIVEN.search(text)
    lines = (line for line in text.splitlines() if not _SKIPPED.match(line))
    reasons = [one_line(re.sub(r"^\s*-\s+", "", _FRAME.sub("", _KEY.sub("", line)))) for line in lines]
    reason = "; ".join(dict.fromkeys(r for r in reasons if r and not r.startswith("Expected a dot import path")))
    reason = re.sub(r"Expected a (?:<class '([^']+)'>)?", r"expected \1", reason)
    if keys:
        # The internal error of jsonargparse for a number or list instead of a class.
        reason = _INTERNAL.sub("expected a class path, or a mapping with class_path and init_args", reason)
    if given and "got" not in reason.lower():
        reason = f"got {given[1] or given[2]}, {reason or 'expected a class path or a value'}"
    return f"--{keys}: {reason}" if keys else reason or type(error).__name__


def _printable(text: str) -> str:
    r"""Escape control characters and characters that cannot be encoded: names in a config may contain any.

    Example:
        >>> print(_printable("M\x1a: \udc80"))
        M\x1a: \udc80
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_of_a_writer(args: threading.ExceptHookArgs) -> bool:
    """Return whether a thread's error is a full disk in TensorBoard's writer, which raises it again on use."""
    return issubclass(args.exc_type, OSError) and os.environ.get("NC_DEBUG") != "1"


def _nobody_reads() -> bool:
    """Check whether stdout is a closed pipe, and if so redirect it to /dev/null."""
    try:
        poll = select.poll()
        poll.register(sys.stdout, 0)
    except (AttributeError, OSError):  # the system has no poll, or stdout is not a file
        return False
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True
