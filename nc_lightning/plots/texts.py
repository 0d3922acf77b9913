"""Texts of a known size, so that figures can make room for them: names of any length are never cut by an edge."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import takewhile

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

LONGEST_NAME = 48
"""Largest number of letters of a name; longer ones lose their middle, as many begin or end alike."""


@lru_cache(maxsize=4096)
def width(text: str, size: float) -> float:
    """Return the width of a line of text in inches.

    Example:
        >>> width("iiii", 9) < width("WWWW", 9)
        True
    """
    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0]) / 72


def widest(texts: Iterable[str], size: float) -> float:
    """Return the width in inches of the widest of some texts, 0 if there is none."""
    return max((width(text, size) for text in texts), default=0.0)


def shortened(names: Iterable[str], longest: int = LONGEST_NAME) -> list[str]:
    """Return each name on one line, without its middle if it is long, and safe from matplotlib's mathematics.

    Names that would become equal keep the part in which they differ.

    Example:
        >>> shortened(["a name of a class that is much longer than a figure is wide"])
        ['a name of a class that …r than a figure is wide']
        >>> shortened([f"canis lupus familiaris, {dog}, terrier breed number 1" for dog in ("male dog", "female dog")])
        ['canis lupus fam…male dog, terri… breed number 1', 'canis lupus fam…female dog, ter… breed number 1']
    """
    lines = [" ".join(name.split()) for name in names]
    distinct = _distinct(list(dict.fromkeys(lines)), longest, ())
    return [distinct[line].replace("$", r"\$") for line in lines]


def _distinct(lines: Sequence[str], longest: int, places: tuple[int, ...]) -> dict[str, str]:
    """Return a different short text for each of some lines, with the words at the given places."""
    alike: dict[str, list[str]] = {}
    for line in lines:
        alike.setdefault(_cut(line, longest, places), []).append(line)
    found: dict[str, str] = {}
    for text, group in alike.items():
        place = sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*group, strict=False)))
        if len(group) == 1:
            found[group[0]] = text
        elif place not in places:
            found |= _distinct(group, longest, (*places, place))
    return found if len(set(found.values())) == len(lines) else {line: line for line in lines}


def _cut(line: str, longest: int, places: Sequence[int]) -> str:
    """Return a line without its middle, except for the words at the given places."""
    if len(line) <= longest:
        return line
    part = max(1, longest // (len(places) + 2) - 1)
    starts = [0, *(max(line.rfind(" ", 0, place) + 1, place - part // 2) for place in places)]
    kept = {index for start in starts for index in range(start, start + part)}
    kept |= set(range(len(line) - part, len(line)))
    return "".join(letter if k in kept else "…" if k - 1 in kept else "" for k, letter in enumerate(line))


def wrapped(text: str, size: float, inches: float) -> str:
    r"""Break a text into lines of at most a width: between words, and within a word that is wider, such as a path.

    Example:
        >>> wrapped("effective rank over training", 12, 1.5)
        'effective rank\nover training'
    """
    lines: list[str] = []
    for word in text.split():
        if lines and width(f"{lines[-1]} {word}", size) <= inches:
            lines[-1] += f" {word}"
            continue
        lines.append("")
        for letter in word:
            if lines[-1] and width(lines[-1] + letter, size) > inches:
                lines.append("")
            lines[-1] += letter
    return "\n".join(lines)
