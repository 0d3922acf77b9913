"""Write files atomically, and choose names that overwrite nothing."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def unused_path(path: Path) -> Path:
    """Return ``path`` if it is free, else the first free one of ``name-1.ext``, ``name-2.ext``, and so on.

    Example:
        >>> unused_path(Path("no-such-folder/config.yaml")).name
        'config.yaml'
    """
    candidates = (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(1))
    return next(p for p in itertools.chain([path], candidates) if not p.exists())


def replace_file(path: Path, text: str) -> None:
    """Write a text file atomically, replacing an existing one.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "note.txt"
        >>> replace_file(path, "done")
        >>> path.read_text(), len(list(path.parent.iterdir()))
        ('done', 1)
    """
    with atomic_write(path) as half:
        half.write_text(text, encoding="utf-8")


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


def short_path(path: str | Path) -> str:
    """Return a path relative to the working folder if it is inside of it, else unchanged.

    Example:
        >>> short_path(Path.cwd() / "runs" / "last.ckpt")
        'runs/last.ckpt'
    """
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
