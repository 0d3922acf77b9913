"""Write files atomically, and choose names that overwrite nothing."""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nc_lightning.checks import one_line


def unused_path(path: Path) -> Path:
    """Return ``path`` if it is free, else the first free one of ``name-1.ext``, ``name-2.ext``, and so on.

    Example:
        >>> unused_path(Path("no-such-folder/config.yaml")).name
        'config.yaml'
    """
    candidates = (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(1))
    return next(p for p in itertools.chain([path], candidates) if not p.exists())


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a text or bytes to a file atomically, replacing an existing one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> replace_file(path, "done")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('done', 1)
    """
    with atomic_write(path) as half:
        half.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; the file is renamed to ``path`` at the end, or deleted on an error.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "bytes"
        >>> with atomic_write(path) as half:
        ...     _ = half.write_bytes(b"done")
        >>> path.read_bytes(), len(list(path.parent.iterdir()))
        (b'done', 1)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield half
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``; it is renamed to ``path`` at the end, or deleted on an error.

    Raises:
        FileExistsError: If there is a file or folder of that name.
        OSError: If the folder cannot be written, see `errors_of`.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "export"
        >>> with atomic_folder(path) as half:
        ...     _ = (half / "bytes").write_bytes(b"done")
        >>> (path / "bytes").read_bytes(), len(list(path.parent.iterdir()))
        (b'done', 1)
    """
    if os.path.lexists(path):
        raise FileExistsError(f"output: got {str(path)!r}, which exists, expected a new folder")
    half = path.with_name(f".{path.name}.{os.getpid()}")
    with errors_of("output", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        half.mkdir()
        try:
            yield half
            half.rename(path)
        finally:
            shutil.rmtree(half, ignore_errors=True)


@contextmanager
def errors_of(argument: str, target: Path) -> Iterator[None]:
    """Name the argument and the file or folder whose atomic writing fails, as on a full disk.

    Raises:
        OSError: Instead of the error of the file system.

    Example:
        >>> with errors_of("output", Path("a/b/c.txt")):
        ...     _ = Path("a/b/c.txt").write_text("")
        Traceback (most recent call last):
        ...
        OSError: output: could not write a/b/c.txt: No such file or directory; no file was left
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or one_line(error)
        nearest = next(parent for parent in target.absolute().parents if os.path.exists(parent))
        if not nearest.is_dir():
            reason = f"{short_path(nearest)} is not a folder"
        elif isinstance(error.filename, str) and Path(error.filename) in target.parents:
            reason = f"{short_path(error.filename)}: {reason}"
        raise OSError(f"{argument}: could not write {short_path(target)}: {reason}; no file was left") from error


def short_path(path: str | Path) -> str:
    """Return a path relative to the working folder if it is inside of it, else unchanged.

    Example:
        >>> short_path(Path.cwd() / "runs" / "last.ckpt")
        'runs/last.ckpt'
    """
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
