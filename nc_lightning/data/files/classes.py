"""Choose the classes of a data set to keep, and their order."""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

Classes = list[str] | list[int] | Literal["found"]
"""Names or numbers of classes, or ``found`` for all."""

NUMBER = re.compile(r"[+-]?(?:[0-9]+[.,]?[0-9]*|[.,][0-9]+)(?:e[+-]?[0-9]+)?", re.IGNORECASE)
"""A number in a table, with a decimal point or comma."""
_WHOLE = re.compile(r"([+-]?)([0-9]+)(?:\.0*)?")
_INVISIBLE = dict.fromkeys([*map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"), *range(9), *range(14, 28), 127])
"""Control characters, soft hyphen, zero-width space, direction marks, word joiner and byte order mark."""


def class_name(written: str) -> str:
    """Return a name as it is displayed: accents composed, white space as single spaces, no invisible characters.

    Example:
        >>> class_name(" two\u00a0words\u200b"), class_name("e\u0301") == "\u00e9"
        ('two words', True)
    """
    return " ".join(unicodedata.normalize("NFC", written.translate(_INVISIBLE)).split())


def whole_numbers(labels: Sequence[str]) -> list[str] | None:
    """Return labels with whole numbers written without sign and fraction, such as ``1`` for ``1.0`` in a table.

    Returns:
        The labels; None if some of them are numbers with fractions, which are kept as written.

    Example:
        >>> whole_numbers(["1.0", "+2", "ant"]), whole_numbers(["1.0", "2.5"])
        (['1', '2', 'ant'], None)
    """
    wholes = [_WHOLE.fullmatch(label) for label in labels]
    if any(NUMBER.fullmatch(label) and whole is None for label, whole in zip(labels, wholes, strict=True)):
        return None
    return [label if whole is None else _whole(*whole.groups()) for label, whole in zip(labels, wholes, strict=True)]


def _whole(sign: str, digits: str) -> str:
    return f"-{digits}" if sign == "-" and int(digits) else digits


def pick_classes(classes: Classes | None, found: Sequence[int], names: Sequence[str] | None) -> list[int]:
    """Return the labels of the chosen classes, in the order of the choice.

    A name takes precedence over a number: if class folders are called 2, 3 and 10, ``[2, 3]`` are those called 2 and 3.

    Args:
        classes: Names or numbers; ``found`` for all; None for all, which must be 0 to C - 1.
        found: Labels that occur, in ascending order.
        names: Names of these labels, if they have any.

    Raises:
        ValueError: If a class does not exist, is ambiguous or is chosen twice, or there are fewer than two.

    Example:
        >>> pick_classes(["3", 2], found=[0, 1, 2], names=["10", "2", "3"])
        [2, 1]
        >>> pick_classes([7, 2], found=range(10), names=None)
        [7, 2]
    """
    looks = [class_name(name) for name in names or []]
    if len(set(looks)) < len(looks):
        twice = next(name for name in looks if looks.count(name) > 1)
        raise ValueError(f"classes: got the name {twice!r} for two classes, expected different names")
    if classes is None and list(found) != list(range(len(found))):
        raise ValueError(
            f"labels: got {listed(found)}, expected 0 to C - 1; choose and renumber them with classes=[...], "
            "or all of them with classes='found'"
        )
    if classes is None or classes == "found":
        chosen = list(found)
    else:
        label_of = dict(zip(looks, found, strict=False))
        value_of = {name: Decimal(name.replace(",", ".")) for name in label_of if NUMBER.fullmatch(name)}
        picked = [_label(entry, found, label_of, value_of) for entry in classes]
        absent = [entry for entry, label in zip(classes, picked, strict=True) if label is None]
        if absent:
            by_name = names is not None and (isinstance(absent[0], str) or bool(value_of))
            shown = listed(names if by_name and names is not None else found)
            raise ValueError(f"classes: got {absent}, which the data does not have, expected some of {shown}")
        chosen = [label for label in picked if label is not None]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"classes: got {classes}, expected different classes, but two of them are the same")
    if len(chosen) < 2:
        raise ValueError(f"labels: got only {listed(chosen)}, expected at least two classes")
    return chosen


def _label(
    entry: str | int, found: Sequence[int], label_of: dict[str, int], value_of: dict[str, Decimal]
) -> int | None:
    if isinstance(entry, bool):
        raise ValueError(f"classes: got {entry}, expected names in quotes, or numbers")
    if isinstance(entry, str):
        if label_of or not _is_number(entry):
            return label_of.get(class_name(entry))
        return int(entry) if int(entry) in found else None
    same = [name for name, value in value_of.items() if value == entry]
    if len(same) > 1:
        raise ValueError(f"classes: got {entry}, which may be {' or '.join(same)}, expected a name in quotes")
    if same and same[0] != str(entry):
        # YAML reads 010 as the octal number 8, so the original spelling is unknown.
        raise ValueError(f"classes: got {entry}, which may mean {same[0]!r}, expected a name in quotes")
    if same:
        return label_of[same[0]]
    if any(_is_number(name) and name != str(int(name)) for name in label_of):
        raise ValueError(f"classes: got {entry} where names begin with zeros, expected names in quotes")
    if value_of:
        return None
    return entry if entry in found else None


def listed(labels: Sequence[int] | Sequence[str]) -> str:
    """Return labels as a short list for messages.

    Example:
        >>> listed(range(100))
        '[0, 1, 2, 3, 4, ..., 99]'
    """
    return str(list(labels)) if len(labels) <= 12 else f"[{', '.join(map(repr, labels[:5]))}, ..., {labels[-1]!r}]"


def warn_of_case(names: Sequence[str]) -> None:
    """Warn about names that differ only in case; they are treated as different classes.

    Example:
        >>> warn_of_case(["ant", "bee"])
    """
    first: dict[str, str] = {}
    pairs = [(first[look], name) for name in names if first.setdefault(look := name.casefold(), name) != name]
    if pairs:
        rank_zero_warn(
            f"classes: {len(pairs)} differ from another only in case, {pairs[0][0]!r} and {pairs[0][1]!r} first; "
            "rename one if they are meant to be the same"
        )


def _is_number(name: str) -> bool:
    return name.isdecimal() and name.isascii()
