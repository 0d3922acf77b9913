"""Find the folders of a tree for training, validation and test, by their usual names."""

import re
from collections.abc import Iterator
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.data.base import SPLITS, Split
from nc_lightning.data.files.classes import listed
from nc_lightning.data.files.finding import find_images, folders_in, loose_files, real_path
from nc_lightning.data.summary import PassedOver

Folders = dict[Split, list[Path]]
"""Folders of each split."""

ROLES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Names of split folders, in lower case."""
_LIKE_TRAIN = re.compile(r"tr|trn|.*train.*|gallery|support")
_LIKE_TEST = re.compile(r"te|ts|tst|.*test.*|va|vl|vld|valid.*|eval.*|query|probe|holdout")
"""Patterns of names for splits when every folder matches one of them and both kinds occur."""
CLASSES = "or, where these are classes, move all of them into a folder train"
"""Remedy if classes have the names of splits: inside a split folder, every folder is a class."""
_SUFFIX = re.compile(r"(?<=.)(set|data|images|imgs|split)$")


def role_of(name: str) -> Split | None:
    """Return the split that a folder name means: ``Train``, ``validation``, ``test_set``, ``imagesTrain``.

    Example:
        >>> role_of("Training-Set"), role_of("dev"), role_of("eval"), role_of("trainer")
        ('train', 'val', 'test', None)
    """
    roles = {ROLES[word] for word in _words(name) if word in ROLES}
    if roles == {"train", "val"}:
        return "train"  # train_val, as opposed to a test set
    return roles.pop() if len(roles) == 1 else None


def split_folders(root: Path, labels: str, passed_over: PassedOver) -> Folders:
    """Return the folders of the splits; without split folders, all of ``root`` is for training.

    If folders are classes, each split has one folder, all of them in ``root``. A folder that has the name of a split
    and contains images itself is then a class, unless another folder differs only in the split (``seg_train`` and
    ``seg_test``). Without labels, or with those of a CSV file, splits may lie deeper.

    Args:
        root: Root folder of the tree.
        labels: Source of the labels: ``folder``, ``none``, or a CSV file, which may name files in other folders.
        passed_over: Counter of files next to the splits.

    Raises:
        ValueError: If two folders have the same split, no folder is for training, other folders with images are next
            to them, splits are inside classes, or names look like splits in another spelling.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("Training/ant", "Training/bee", "valid/ant"):
        ...     (root / name).mkdir(parents=True)
        >>> {split: folder.name for split, (folder,) in split_folders(root, "folder", PassedOver()).items()}
        {'train': 'Training', 'val': 'valid'}
    """
    by_folder = labels == "folder"
    places = list(_places(root, root, by_folder, set()))
    if by_folder and places and places[0] != root:
        train = _splits_in(places[0])["train"].name
        raise ValueError(
            f"root: got the split {train} inside {places[0]}, expected classes inside splits: "
            f"train/{places[0].name} and so on; or set root to {places[0]}"
        )
    found = [_splits_in(place) for place in (places[:1] if by_folder else places)]
    splits: Folders = {
        split: [one[split] for one in found if split in one] for split in SPLITS if any(split in one for one in found)
    }
    if not splits:
        if by_folder:
            _warn_of_splits(folders_in(root, PassedOver()))
        return {"train": [root]}
    taken = [folder for folders in splits.values() for folder in folders]
    names = ", ".join(dict.fromkeys(folder.name for folder in taken))
    if "train" not in splits:
        if by_folder:
            raise ValueError(
                f"root: got {names} in {root} without a training folder, expected train next to them; {CLASSES}"
            )
        return {"train": [root], **splits}
    if labels not in ("folder", "none"):
        return splits
    ways = {root, *places, *(parent for place in places for parent in place.parents if root in parent.parents)}
    for way in sorted(ways):
        next_to = [folder for folder in folders_in(way, PassedOver()) if folder not in ways.union(taken)]
        left = [folder.name for folder in next_to if find_images(folder, PassedOver())]
        if left:
            raise ValueError(
                f"root: got the folders {left} with images next to {names} in {way}, expected train, val and test "
                f"only; move them away, rename one that is a split, {CLASSES}"
            )
        loose_files(way, passed_over)
    return splits


def _places(folder: Path, root: Path, by_folder: bool, entered: set[Path]) -> Iterator[Path]:
    """Yield the folders that contain splits; splits themselves are not searched."""
    entered.add(real_path(folder))
    inner = folders_in(folder, PassedOver())
    named = [(role, place) for place in inner if (role := role_of(place.name))]
    if by_folder and folder == root:
        is_place = any(folders_in(place, PassedOver()) for _, place in named) or _differ_in_split(named)
        is_place = is_place or (len(named) == len(inner) and len({role for role, _ in named}) > 1)
    elif folder == root:
        is_place = bool(named)
    else:
        held_out = any(role != "train" and not _rest(place.name) for role, place in named)
        is_place = _differ_in_split(named) or (held_out and not by_folder)
    if is_place:
        yield folder
    elif _look_like_splits([place.name for place in inner]):
        raise ValueError(
            f"root: got the folders {listed([place.name for place in inner])} in {folder}, which look like splits, "
            f"expected train, val and test; rename them, {CLASSES}"
        )
    splits = [place for _, place in named] if is_place else []
    for place in inner:
        if place not in splits and real_path(place) not in entered:
            yield from _places(place, root, by_folder, entered)


def _splits_in(place: Path) -> dict[Split, Path]:
    splits: dict[Split, Path] = {}
    for folder in folders_in(place, PassedOver()):
        role = role_of(folder.name)
        if role in splits:
            raise ValueError(
                f"root: got the folders {splits[role].name} and {folder.name} in {place}, both for {role}; "
                "expected one for each split; rename or move the other"
            )
        if role is not None:
            splits[role] = folder
    return splits


def _differ_in_split(named: list[tuple[Split, Path]]) -> bool:
    """Return whether a training folder and another one have the same name except for the split."""
    roles: dict[tuple[str, ...], set[Split]] = {}
    for role, folder in named:
        roles.setdefault(_rest(folder.name), set()).add(role)
    return any("train" in alike and len(alike) > 1 for alike in roles.values())


def _look_like_splits(names: list[str]) -> bool:
    words = [_words(name) for name in names]
    train, test = ([any(map(like.fullmatch, of_one)) for of_one in words] for like in (_LIKE_TRAIN, _LIKE_TEST))
    return any(train) and any(test) and all(map(max, train, test))


def _warn_of_splits(classes: list[Path]) -> None:
    """Warn about classes that may be splits: by name, or by the same folders inside, except numbers of instances."""
    held_out = [place.name for place in classes if not _rest(place.name) and role_of(place.name) in ("val", "test")]
    if held_out:
        rank_zero_warn(f"root: used the folders {held_out} as classes; if they are splits, move the others into train")
    inner = [{folder.name for folder in folders_in(place, PassedOver())} for place in classes] or [set()]
    same = sorted(name for name in set.intersection(*inner) if not any(map(str.isdigit, name)))
    if len(classes) > 1 and len(same) > 1:
        rank_zero_warn(
            f"root: used the folders {listed([place.name for place in classes])} as classes; each holds "
            f"{listed(same)}; if they are splits, rename them train, val and test"
        )


def _words(name: str) -> list[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = [_SUFFIX.sub("", word) for word in re.split(r"[^a-z]+", apart) if word]
    return [word for word in words if word not in ("set", "data", "images", "imgs", "split")]


def _rest(name: str) -> tuple[str, ...]:
    return tuple(word for word in _words(name) if word not in ROLES)
