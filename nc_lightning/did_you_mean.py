"""Suggestions for misspelled names; standard library only, as the commands use it before they load torch."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return the known names that are most similar to a name, ignoring case, the nearest first.

    Example:
        >>> nearest("hslc.yaml", ["hscl.yaml", "hucl.yaml", "ddp.yaml"], count=1)
        ['hscl.yaml']
        >>> nearest("mlp", ["MLP", "SmallCNN"])
        ['MLP']
    """
    by_case: dict[str, str] = {}
    for each in known:
        by_case.setdefault(each.lower(), each)
    return [by_case[each] for each in difflib.get_close_matches(name.lower(), by_case, n=count, cutoff=cutoff)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message with the nearest known name; empty if no name is near.

    Example:
        >>> did_you_mean("fitt", ["fit", "validate"])
        '; did you mean fit?'
        >>> did_you_mean("sing", ["fit", "validate"])
        ''
    """
    return "".join(f"; did you mean {each}?" for each in nearest(name, known, count=1))


def nearest_option(key: str, known: Iterable[str]) -> list[str]:
    """Return the known dotted key that is most similar to a key, or nothing.

    A misspelled group, the first part, is corrected first. Keys of one group have a long common beginning, so that
    their last parts are compared, and then the whole keys.

    Example:
        >>> known = ["trainer.max_epochs", "trainer.max_steps", "geometry.every_n_epochs", "dashboard.every_n_epochs"]
        >>> nearest_option("trainer.max_epoch", known)
        ['trainer.max_epochs']
        >>> nearest_option("max_epochs", known)
        ['trainer.max_epochs']
        >>> nearest_option("geometri.every_n_epochs", known)
        ['geometry.every_n_epochs']
        >>> nearest_option("trainr.callbacks.k", ["model", "trainer.callbacks"])
        ['trainer.callbacks.k']
        >>> nearest_option("trainer.color", known)
        []
    """
    known = list(known)
    group, _, rest = key.partition(".")
    groups = {each.partition(".")[0] for each in known}
    if rest and group not in groups and (near := nearest(group, groups, count=1)):
        corrected = f"{near[0]}.{rest}"
        same_group = [each for each in known if each.startswith(f"{near[0]}.")]
        return [corrected] if corrected in known else nearest_option(corrected, same_group) or [corrected]
    last = nearest(key.rpartition(".")[2], {each.rpartition(".")[2] for each in known}, count=3)
    same = [each for each in known if each.rpartition(".")[2] in last[:1]] if last else []
    return nearest(key, same, count=1, cutoff=0.0)
