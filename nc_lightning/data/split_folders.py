"""Which folder of a tree is for training, validation and test, by the usual names."""

import re
from pathlib import Path

from nc_lightning.data.base import SPLITS, Split
from nc_lightning.data.finding import PassedOver, find_images, folders_in, loose_files

ROLES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Names of split folders, in lower case."""
_SUFFIX = re.compile(r"(?<=.)(set|data|images|imgs|split)$")


def role_of(name: str) -> Split | None:
    """Return the split that a folder's name stands for: ``Train``, ``validation``, ``test_set``, ``seg_train``.

    Example:
        >>> role_of("Training-Set"), role_of("dev"), role_of("eval"), role_of("trainer")
        ('train', 'val', 'test', None)
    """
    roles = {ROLES[word] for word in _words(name) if word in ROLES}
    if roles == {"train", "val"}:
        return "train"  # train_val, as opposed to a test set
    return roles.pop() if len(roles) == 1 else None


def split_folders(root: Path, labels: str, passed_over: PassedOver) -> dict[Split, Path]:
    """Return the folders of the splits there are; without split folders all of ``root`` is for training.

    A folder with the name of a split and with images of its own, among folders with other names, is a class.

    Args:
        root: The tree.
        labels: ``folder`` where folders are classes, ``none``, or a CSV file, which may name files in other folders.
        passed_over: Counts files next to the splits.

    Raises:
        ValueError: If two folders stand for one split, there is no training folder among them, or further folders with
            images are next to them.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("Training/ant", "Training/bee", "valid/ant"):
        ...     (root / name).mkdir(parents=True)
        >>> {split: folder.name for split, folder in split_folders(root, "folder", PassedOver()).items()}
        {'train': 'Training', 'val': 'valid'}
    """
    folders = folders_in(root, PassedOver())
    named = [(role, folder) for folder in folders if (role := role_of(folder.name))]
    if labels == "folder" and not any(folders_in(folder, PassedOver()) for _, folder in named):
        plain = {role for role, folder in named if len(_words(folder.name)) == 1}
        if len(plain) < 2 or not ("train" in plain or len(named) == len(folders)):
            named = []
    splits: dict[Split, Path] = {}
    for role, folder in named:
        if role in splits:
            raise ValueError(
                f"root: got the folders {splits[role].name} and {folder.name} in {root}, both for {role}; "
                "expected one for each split; rename or move the other"
            )
        splits[role] = folder
    splits = {split: splits[split] for split in SPLITS if split in splits}
    if not splits:
        if labels == "folder":
            _refuse_splits_in_classes(folders)
        return {"train": root}
    if "train" not in splits:
        if labels == "folder":
            names = ", ".join(folder.name for folder in splits.values())
            raise ValueError(f"root: got {names} in {root} without a training folder, expected train next to them")
        return {"train": root, **splits}
    if labels not in ("folder", "none"):
        return splits
    left = [folder.name for folder in folders if folder not in splits.values() and find_images(folder, PassedOver())]
    if left:
        taken = ", ".join(folder.name for folder in splits.values())
        raise ValueError(
            f"root: got the folders {left} with images next to {taken} in {root}, expected train, val and test alone; "
            "move them away, or rename one that is a split"
        )
    loose_files(root, passed_over)
    return splits


def _refuse_splits_in_classes(folders: list[Path]) -> None:
    for folder in folders:
        roles = {ROLES.get(inner.name.lower()): inner for inner in folders_in(folder, PassedOver())}
        if "train" in roles and len(roles.keys() - {None}) > 1:
            raise ValueError(
                f"root: got the split {roles['train'].name} inside {folder}, expected classes inside splits: "
                f"train/{folder.name}"
            )


def _words(name: str) -> list[str]:
    words = [_SUFFIX.sub("", word) for word in re.split(r"[^a-z]+", name.lower()) if word]
    return [word for word in words if word not in ("set", "data", "images", "imgs", "split")]
