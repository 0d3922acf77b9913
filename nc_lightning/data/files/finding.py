"""Find the images in a folder that Pillow can read, each file once, and count what is skipped."""

import functools
import mimetypes
import os
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageFile

from nc_lightning.data.summary import PassedOver

TOOL_FOLDERS = {
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@__thumb", "#recycle", "#snapshot", "$recycle.bin"),
    *("system volume information", "lost+found", "__macosx", "thumbnails", "thumbs"),
    *("__pycache__", "node_modules", "lightning_logs", "wandb", "mlruns"),
}
"""Folders made by tools, which hold no images of the user; their names in lower case."""
_NO_PICTURES = ("MPEG", "EPS")
"""Formats that Pillow recognizes but cannot decode itself."""
File = Path | tuple[int, int]
"""Identity of a file under all its names, see `file_at`."""


def real_path(path: Path | str) -> Path:
    """Return a path without ``~``, ``..`` and links, so that files can be compared.

    Example:
        >>> real_path("/nowhere/./a/../b").as_posix()
        '/nowhere/b'
    """
    return Path(os.path.realpath(os.path.expanduser(path)))


def file_at(path: Path, real: Path | None = None) -> File:
    """Return the identity of a file under all its names: its real path, or device and inode if it has hard links.

    ``real`` is its real path, if known.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.png").touch()
        >>> os.link(folder / "a.png", folder / "b.png")
        >>> file_at(folder / "a.png") == file_at(folder / "b.png")
        True
    """
    try:
        status = os.stat(path)
    except OSError:  # a dangling link
        return real or real_path(path)
    # Not every file system has reliable inodes, so they are used only for files with hard links.
    return (status.st_dev, status.st_ino) if status.st_nlink > 1 else real or real_path(path)


def find_images(folder: Path, passed_over: PassedOver, leave: frozenset[Path] = frozenset()) -> dict[Path, File]:
    """Return the images in a folder and its subfolders, in alphabetical order, each with its `file_at`.

    An image is a file that Pillow can read, judged by its extension, or by its content if the extension is unknown.
    Links are followed; a file or folder with several links is read once, and a link to a parent folder is skipped. A
    dangling link counts as an image, so that reading it fails. Hidden names (with a leading dot) and tool folders are
    skipped.

    Args:
        folder: Folder to search.
        passed_over: Counter of what is skipped.
        leave: Real paths of folders not to enter.

    Raises:
        OSError: If a folder cannot be listed.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("L", (1, 1)).save(folder / "a.jfif", "JPEG")
        >>> [path.name for path in find_images(folder, PassedOver())]
        ['a.jfif']
    """
    real = folder if (real := real_path(folder)) == folder else real
    found = dict(sorted(_walk(folder, real, {real}, leave, passed_over)))
    seen: set[File] = set()
    for path, file in list(found.items()):
        if file in seen:
            passed_over.add("linked again", path)
            del found[path]
        seen.add(file)
    return found


def folders_in(folder: Path, passed_over: PassedOver) -> list[Path]:
    """Return the subfolders of a folder, in alphabetical order, without hidden ones and tool folders.

    Example:
        >>> folders_in(Path(__file__).parent, PassedOver())
        []
    """
    return [Path(entry.path) for entry in _visible(folder, passed_over) if _is_folder(entry)]


def loose_files(folder: Path, passed_over: PassedOver) -> None:
    """Count the files and dangling links in a folder that should contain only folders.

    Example:
        >>> loose_files(Path(__file__).parent, passed_over := PassedOver())
        >>> list(passed_over.counts)
        ['not an image']
    """
    for entry in _visible(folder, PassedOver()):
        if not _is_folder(entry):
            passed_over.add("outside the folders" if _is_image(entry) else "not an image", entry.path)


def dangling_links(folder: Path) -> list[Path]:
    """Return the dangling links in a folder.

    Example:
        >>> dangling_links(Path(__file__).parent)
        []
    """
    return [Path(entry.path) for entry in _visible(folder, PassedOver()) if _is_dangling(entry)]


def _walk(
    folder: Path, real: Path, entered: set[Path], leave: frozenset[Path], passed_over: PassedOver
) -> Iterator[tuple[Path, File]]:
    for entry in _visible(folder, passed_over):
        path = Path(entry.path)
        place = real_path(path) if entry.is_symlink() else path if real is folder else real / entry.name
        if _is_folder(entry):
            if place in leave and not entry.is_symlink():
                continue
            if place in entered or place in leave:
                passed_over.add("linked again", path)
            else:
                entered.add(place)
                yield from _walk(path, path if place == path else place, entered, leave, passed_over)
        elif _is_image(entry):
            yield path, file_at(path, place)
        else:
            passed_over.add("not an image", path)


def _visible(folder: Path, passed_over: PassedOver) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        if entry.name.startswith(".") or (entry.name.lower() in TOOL_FOLDERS and _is_folder(entry)):
            passed_over.add("hidden or of a tool", entry.path)
        elif entry.is_symlink() and real_path(entry.path) in (real := real_path(folder), *real.parents):
            passed_over.add("linked again", entry.path)  # a loop
        else:
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()  # entry.is_dir raises for circular links


def _is_dangling(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not os.path.exists(entry.path)


def _is_image(entry: os.DirEntry[str]) -> bool:
    if _is_dangling(entry):
        return True
    if not entry.is_file():
        return False
    if os.path.splitext(entry.name)[1].lower() in _endings():
        return True
    kind = mimetypes.guess_type(entry.name)[0]
    if kind is not None and not kind.startswith("image/"):
        return False
    try:
        with Image.open(entry.path) as image:
            return not isinstance(image, ImageFile.StubImageFile) and image.format not in _NO_PICTURES
    except PermissionError:
        raise
    except Exception:  # Pillow raises many kinds of errors for files that are not images
        return False


@functools.cache
def _endings() -> frozenset[str]:
    """Return the file extensions that Pillow decodes."""
    Image.init()
    openers = {name: opener for name, (opener, _) in Image.OPEN.items() if name not in _NO_PICTURES}
    stubs = {
        name
        for name, opener in openers.items()
        if isinstance(opener, type) and issubclass(opener, ImageFile.StubImageFile)
    }
    decoded = openers.keys() - stubs
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in decoded)
