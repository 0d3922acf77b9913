"""Names of features and labels in files: the usual ones, or those that are given."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nc_lightning.did_you_mean import did_you_mean

FEATURE_NAMES = ("features", "feature", "feats", "feat", "z", "embeddings", "embedding", "emb", "x")
LABEL_NAMES = ("labels", "label", "y", "targets", "target", "class")


@dataclass(frozen=True)
class Keys:
    """Names to look for in a file.

    Attributes:
        features: Name of the features, in any case; None for the first of the usual names.
        labels: Name of the labels, in any case; None for the first of the usual names, or no labels.
    """

    features: str | None = None
    labels: str | None = None

    def find_features(self, path: Path, names: Iterable[str]) -> str:
        """Return the name of the features among names in any case.

        Raises:
            ValueError: If it is not there.
        """
        return _find(path, list(names), self.features, FEATURE_NAMES, "--features-key") or ""

    def find_labels(self, path: Path, names: Iterable[str]) -> str | None:
        """Return the name of the labels; None if they were not named and are not there.

        Raises:
            ValueError: If they were named and are not there.
        """
        there = list(names)
        return _find(path, there, self.labels, LABEL_NAMES, "--labels-key") if self.labels or _usual(there) else None


def columns_of_features(columns: Iterable[str], name: str | None, labels: str | None) -> tuple[list[str], bool]:
    """Return the columns of a table that hold the features, and whether it is a single one with lists.

    A column of the given name, or of a usual one, has lists; ``name_0``, ``name_1``, ... are one dimension each; and
    without any of them each named column except the labels is a dimension.

    Example:
        >>> columns_of_features(["path", "emb_0", "emb_1", "label"], None, "label")
        (['emb_0', 'emb_1'], False)
        >>> columns_of_features(["z", "y"], None, "y"), columns_of_features(["a", "b", "y"], None, "y")
        ((['z'], True), (['a', 'b'], False))
    """
    others = [column for column in columns if column != labels]
    for wanted in (name,) if name is not None else FEATURE_NAMES:
        same = [column for column in others if column.lower() == wanted.lower()]
        if same:
            return [name if name in same else same[0]], True
        numbered = [c for c in others if re.fullmatch(rf"{re.escape(wanted)}[._\- ]?\d+", c, re.IGNORECASE)]
        if numbered:
            return numbered, False
    return [] if name is not None else [column for column in others if column.strip()], False


def missing(
    path: Path, names: Iterable[str], wanted: tuple[str, ...], option: str, others: Iterable[str] = ()
) -> ValueError:
    """Return the error for a name that is not in a file, with a similar one of its names or others."""
    names = sorted(map(str, names))
    there, known = ", ".join(names), "one of " * (len(wanted) > 1) + ", ".join(wanted)
    hint = f"; or name it with {option}" if len(wanted) > 1 else did_you_mean(wanted[0], [*names, *others])
    return ValueError(f"FILE: got {there} in {path.name}, expected {known} among them{hint}")


def no_features(path: Path, names: Iterable[str], wanted: str | None) -> ValueError:
    """Return the error for a table without a column of features."""
    if wanted is not None:
        names = list(names)
        return missing(path, names, (wanted,), "--features-key", [re.sub(r"[._\- ]?\d+$", "", name) for name in names])
    there = ", ".join(names) or "no columns"
    return ValueError(f"FILE: got {there} in {path.name}, expected columns of features")


def _usual(names: list[str]) -> bool:
    return any(str(name).lower() in LABEL_NAMES for name in names)


def _find(path: Path, names: list[str], given: str | None, usual: tuple[str, ...], option: str) -> str | None:
    if given in names:
        return given
    for wanted in usual if given is None else (given.lower(),):
        for name in names:
            if str(name).lower() == wanted:
                return name
    raise missing(path, names, usual if given is None else (given,), option)
