"""Configs that would keep the parser busy for minutes, or forever, are refused before it sees them."""

from contextlib import suppress
from pathlib import Path

import yaml

MAX_DEPTH = 50
"""Levels of a config; the shipped ones have five."""
MAX_VALUES = 100_000
"""Values in a config, each as often as aliases repeat it."""


def check_nesting(path: str) -> None:
    """Raise where a config is nested deeper, or by its aliases grows larger, than any is in earnest.

    What is no YAML at all is left to the parser to refuse.

    Raises:
        ValueError: If it is, an alias stands inside of what it stands for, or the file is no text.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.yaml"
        >>> _ = path.write_text("a: &a [*a]")
        >>> try:
        ...     check_nesting(str(path))
        ... except ValueError as error:
        ...     print(str(error).replace(str(path), "mine.yaml"))
        --config: got 'mine.yaml', whose alias 'a' stands inside of itself, expected settings that end
    """
    values, anchored, still_open = 0, {}, []
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"--config: got {path!r}, which is no text in UTF-8") from error
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
                        f"--config: got {path!r}, whose alias {event.anchor!r} stands inside of itself, expected "
                        "settings that end"
                    )
                values += anchored.get(event.anchor, 0)
            values += 1
            if len(still_open) > MAX_DEPTH or values > MAX_VALUES:
                raise ValueError(
                    f"--config: got {path!r}, nested deeper than {MAX_DEPTH} levels or of more than {MAX_VALUES} "
                    "values, expected a few"
                )
