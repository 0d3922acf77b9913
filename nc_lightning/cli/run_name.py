"""Name a run after its objective, its data and what was chosen on the command line."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

_MAX_LENGTH = 100
_SOURCES = {"ImageFolderDataModule": "root"}
"""Arguments that say which data a module reads, where it is not ``path``."""
_UNSAID = ("config", "scl", "hscl", "ucl", "hucl")
"""Names of configs that a name leaves out: it has the class of the objective, which may be another one."""
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def default_name(config: Any, arguments: Sequence[str]) -> str:
    """Return a name for a run, such as ``hscl-digits-beta10``.

    It has the objective, the data (the file or folder, if the user named one), beta, and what distinguishes the run:
    configs that the name does not mention yet, and the options of model, data and seed on the command line.

    Args:
        config: Configuration of a subcommand.
        arguments: Command line of ``nc-train``, without the program.

    Example:
        >>> from jsonargparse import Namespace
        >>> model = Namespace(class_path="nc_lightning.HSCL", init_args=Namespace(beta=10.0))
        >>> data = Namespace(class_path="nc_lightning.data.DigitsDataModule", init_args=Namespace())
        >>> config = Namespace(model=model, data=data)
        >>> default_name(config, ["fit", "--config", "hscl.yaml"])
        'hscl-digits-beta10'
        >>> default_name(config, ["fit", "--config", "hscl.yaml", "--config=fast_gpu.yaml", "--data.batches", "random"])
        'hscl-digits-beta10-fast-gpu-random'
    """
    beta = (config.model.get("init_args") or {}).get("beta")
    parts = [config.model.class_path.rpartition(".")[2], _data_name(config.data)]
    parts += [f"beta{beta:g}"] if isinstance(beta, (int, float)) else []
    words = [_slug(part) for part in parts]
    for option, value in _options(arguments):
        if option == "config":
            stem = _slug(Path(value).stem)
            if stem not in _UNSAID and not set(stem.split("-")) <= set("-".join(words).split("-")):
                words.append(stem)
        elif option.startswith(("model.", "data.")) or option == "seed_everything":
            words.append(_choice(option.rpartition(".")[2].removesuffix("_everything"), value))
    return "-".join(dict.fromkeys(word for word in words if word))[:_MAX_LENGTH].strip("-.")


def check_name(name: str) -> str:
    """Return the name of a run that a user gave.

    Raises:
        ValueError: If it cannot be the name of a folder.

    Example:
        >>> check_name("beta5")
        'beta5'
    """
    if not name.strip() or Path(name).name != name or name.startswith(".") or "\0" in name:
        raise ValueError(f"--name: got {name!r}, expected the name of a new folder, without '/', such as beta5")
    return name


def _data_name(data: Any) -> str:
    kind = data.class_path.rpartition(".")[2]
    source = (data.get("init_args") or {}).get(_SOURCES.get(kind, "path"))
    return Path(source).stem if isinstance(source, str) and source else kind.removesuffix("DataModule")


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the options of a command line that have a value, in either form."""
    given = list(arguments)
    for argument, following in zip(given, [*given[1:], "--"], strict=True):
        if argument.startswith("--"):
            option, equals, value = argument.removeprefix("--").partition("=")
            if equals or not following.startswith("--"):
                yield option, value if equals else following


def _choice(key: str, value: str) -> str:
    """Return the words for a setting: a number follows its key, any other value stands for itself.

    Example:
        >>> _choice("beta", "5.0"), _choice("batches", "random"), _choice("channels_last", "true"), _choice("x", "[1]")
        ('beta5', 'random', 'channels-last', '')
        >>> _choice("projector", "torch.nn.Identity"), _choice("path", "sets/flowers.npz")
        ('identity', 'flowers')
    """
    if _NUMBER.fullmatch(value):
        return f"{_slug(key)}{float(value):g}"
    if value.lower() in ("true", "false", "null", "none"):
        return _slug(key if value.lower() == "true" else f"no-{key}")
    if re.search(r"[\[\]{}\s]", value):
        return ""
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", value) and "/" not in value and not Path(value).suffix.islower():
        return _slug(value.rpartition(".")[2])
    return _slug(Path(value).stem)


def _slug(text: str) -> str:
    """Return a text in the characters of plain folder names.

    Example:
        >>> _slug("DigitPairs"), _slug("CIFAR10"), _slug("unit_sphere"), _slug("HSCL"), _slug("beta0.5")
        ('digit-pairs', 'cifar10', 'unit-sphere', 'hscl', 'beta0.5')
    """
    return re.sub(r"[^a-z0-9.+=]+", "-", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text).lower()).strip("-.")
