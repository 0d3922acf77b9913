"""Find the configs for ``--config``: the user's own files and the shipped ones."""

from collections.abc import Sequence
from pathlib import Path

from nc_lightning.cli.config_nesting import check_nesting
from nc_lightning.did_you_mean import did_you_mean


def config_folder() -> Path:
    """Return the folder of the shipped configs: inside the installed package, or next to it in a checkout."""
    package = Path(__file__).parent.parent
    return next(folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir())


def find_config(name: str, argument: str = "--config", folder: str = "") -> str:
    """Return the path of a config: a file of that name if it exists, else the shipped one.

    Args:
        name: Path of a file, or of a shipped config below their folder, such as ``paper/official.yaml``.
        argument: Name of the argument in the error message.
        folder: Folder of the shipped configs that the message suggests; that of ``name`` if not given.

    Raises:
        FileNotFoundError: If neither exists.
        ValueError: If the file is too deeply nested or too large, see `check_nesting`.

    Example:
        >>> Path(find_config("hscl.yaml")).name
        'hscl.yaml'
    """
    shipped = config_folder() / name
    if Path(name).is_file():
        check_nesting(name)
        return name
    if name in shipped_configs():
        return str(shipped)
    folder = folder or name.rpartition("/")[0]
    others = ", ".join(other for other in shipped_configs() if other.rpartition("/")[0] == folder)
    raise FileNotFoundError(
        f"{argument}: got {name!r}, expected a file that exists{f' or a shipped one ({others})' if others else ''}"
        f"{did_you_mean(name, [*_configs_next_to(name), *shipped_configs()])}"
    )


def _configs_next_to(name: str) -> list[str]:
    folder = Path(name).parent
    try:
        return [str(folder / path.name) for ending in ("*.yaml", "*.yml") for path in folder.glob(ending)]
    except OSError:
        return []


def shipped_configs() -> list[str]:
    """Return the names of the shipped configs, those in subfolders last.

    Example:
        >>> shipped_configs()[:2]
        ['adaptive.yaml', 'bolts.yaml']
    """
    names = (path.relative_to(config_folder()).as_posix() for path in config_folder().rglob("*.yaml"))
    return sorted(names, key=lambda name: (name.count("/"), name))


def resolve_configs(args: Sequence[str]) -> list[str]:
    """Replace the value of every ``--config`` with the path that `find_config` returns.

    Example:
        >>> resolve_configs(["fit", "--config", "hscl.yaml"])[2].endswith("configs/hscl.yaml")
        True
    """
    resolved: list[str] = []
    for argument in args:
        flag, equals, value = argument.partition("=")
        if resolved and resolved[-1] in ("--config", "-c"):
            resolved.append(find_config(argument))
        elif flag == "--config" and equals:
            resolved.append(f"--config={find_config(value)}")
        else:
            resolved.append(argument)
    return resolved
