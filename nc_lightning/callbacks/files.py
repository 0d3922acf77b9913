"""File names that never overwrite anything."""

import itertools
from pathlib import Path


def unused_path(path: Path) -> Path:
    """Return ``path`` if nothing is there, else the first free one of ``name-1.ext``, ``name-2.ext``, and so on.

    Example:
        >>> unused_path(Path("no-such-folder/config.yaml")).name
        'config.yaml'
    """
    candidates = (path.with_stem(f"{path.stem}-{n}") for n in itertools.count(1))
    return next(p for p in itertools.chain([path], candidates) if not p.exists())
