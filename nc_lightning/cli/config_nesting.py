"""Refuse configs that would keep the parser busy for minutes, or forever."""

from contextlib import suppress
from pathlib import Path

import yaml

MAX_DEPTH = 50
"""Maximum depth of a config; the shipped ones have five levels."""
MAX_VALUES = 100_000
"""Maximum number of values in a config, after expanding aliases."""


def check_nesting(path: str) -> None:
    """Raise if a config is unreasonably deep, or expands through aliases to an unreasonable size.

    Invalid YAML is left to the parser, which refuses it.

    Raises:
        ValueError: If the config is too deep or too large, an alias contains itself, or the file is not UTF-8 text.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.yaml"
        >>> _ = path.write_text("a: &a [*a]")
        >>> try:
        ...     check_nesting(str(path))
        ... except ValueError as error:
        ...     print(str(error).replace(str(path), "mine.yaml"))
        --config: got 'mine.yaml', whose alias 'a' contains itself, expected finite settings
    """
    values, anchored, still_open = 0, {}, []
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--config: got {path!r}, which is not UTF-8 text") from error
    with suppress(yaml.YAMLError):
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                still_open.append((event.anchor, values))
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, before = still_open.pop()
                anchored[anchor] = values - before
            elif isinstance(event, yaml.AliasEvent):
                if any(anchor == event.anchor for anchor, _ in still_open):
                    raise ValueError(
                        f"--config: got {path!r}, whose alias {event.anchor!r} contains itself, expected "
                        "finite settings"
                    )
                values += anchored.get(event.anchor, 0)
            values += 1
            if len(still_open) > MAX_DEPTH or values > MAX_VALUES:
                raise ValueError(
                    f"--config: got {path!r}, nested deeper than {MAX_DEPTH} levels or with more than {MAX_VALUES} "
                    "values, expected fewer"
                )
