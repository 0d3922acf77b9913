"""Load the module and the data of a run."""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import instantiate_module

from nc_lightning.checks import one_line
from nc_lightning.io.atomic import short_path
from nc_lightning.io.checkpoints import read_checkpoint
from nc_lightning.runs.files import find_run

_CLASS = "_class_path"
"""Hyperparameter in which LightningCLI saves the class of a module or data module."""
_DATA = LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY
_MODULE = LightningModule.CHECKPOINT_HYPER_PARAMS_KEY
_LONGEST = 400
"""Number of characters of an error of torch that is shown: it may list hundreds of weights."""


def load(run: str | os.PathLike[str]) -> tuple[LightningModule, LightningDataModule | None]:
    """Return module and data of a run of ``nc-train``: the trained module in eval mode, on the CPU.

    The module is made from the hyperparameters in the newest whole checkpoint, with its weights: those that
    ``nc-train validate`` measures, and so the averaged ones if a callback averaged weights. Training may have ended or
    not. ``compile`` is left out. The data module is that of the run's ``config.yaml``, with the training set
    standardized as in training; its ``setup`` reads the data, and is left to the caller or a Trainer.

    Your own classes must be importable, as in training. Load only runs that you trust: weights are read without
    running code, but the classes that a run names are imported and created.

    Args:
        run: Folder of the run, or a checkpoint file.

    Returns:
        The module and the data; None for the data of a checkpoint without a ``config.yaml`` in its folder or above.

    Raises:
        FileNotFoundError: If there is no such folder or file, or it has no checkpoint.
        ValueError: If the checkpoint is damaged, has other weights than the module of this version, or was saved by a
            training from Python that does not say how its module was made.
        ImportError: If a class cannot be imported.

    Example:
        >>> load("no-such-run")
        Traceback (most recent call last):
        ...
        FileNotFoundError: run: got 'no-such-run', expected the folder of a run, or a checkpoint file
    """
    return load_module(run), load_data(run)


def load_module(run: str | os.PathLike[str]) -> LightningModule:
    """Return the trained module of a run in eval mode, without its data, see `load`.

    Raises:
        FileNotFoundError: If there is no such folder or file, or it has no checkpoint.
        ValueError: If the checkpoint is damaged, or is not one of this version of ``nc-train``.
        ImportError: If a class cannot be imported.
    """
    path = find_run(run).checkpoint
    checkpoint = _read(path)
    hparams = dict(checkpoint.get(_MODULE, {}))
    if _CLASS not in hparams:
        trained = checkpoint.get("objective", "a module")
        raise ValueError(
            f"run: got {short_path(path)!r}, saved by a training of {trained} in Python, which does not say how its "
            "encoder was made, expected a run of nc-train; use load_from_checkpoint of the class, with encoder=..."
        )
    if "encoder" in hparams:
        hparams["encoder"] = without_download(hparams["encoder"])
    if "compile" in hparams:
        hparams["compile"] = False  # the first call would take a minute, and a compiled module cannot be exported
    module: LightningModule = _create(LightningModule, hparams, path, checkpoint)
    module.on_load_checkpoint(checkpoint)
    try:
        module.load_state_dict(checkpoint["state_dict"], strict=module.strict_loading)
    except RuntimeError as error:
        raise ValueError(
            f"run: got {short_path(path)!r}{_version(checkpoint)}, whose weights do not fit the module of this "
            f"version: {_shortened(str(error).partition(':')[2])}"
        ) from error
    return module.eval()


def without_download(encoder: Any) -> Any:
    """Return the settings of an encoder without downloaded weights, which those of a checkpoint replace.

    Example:
        >>> vit = {"class_path": "nc_lightning.encoders.TimmEncoder", "init_args": {"name": "vit", "pretrained": True}}
        >>> without_download(vit)["init_args"]
        {'name': 'vit', 'pretrained': False}
    """
    if not isinstance(encoder, Mapping) or not str(encoder.get("class_path")).startswith("nc_lightning."):
        return encoder
    nothing = {"pretrained": False, "weights": None}
    given = encoder.get("init_args")
    if not isinstance(given, Mapping):
        return encoder
    return {**encoder, "init_args": {key: nothing.get(key, value) for key, value in given.items()}}


def load_data(run: str | os.PathLike[str]) -> LightningDataModule | None:
    """Return the data module of a run before its ``setup``, see `load`; None if no file says which it was.

    Raises:
        FileNotFoundError: If there is no such folder or file, or it has no checkpoint.
        ValueError: If the configuration is damaged, or not one of this version of ``nc-train``.
        ImportError: If a class cannot be imported.
    """
    path, config = find_run(run)
    if config is None:
        checkpoint = _read(path)
        hparams = checkpoint.get(_DATA, {})
    else:
        path, checkpoint = config, {}
        hparams = _data_settings(config)
    created: LightningDataModule | None = None
    if _CLASS in hparams:
        created = _create(LightningDataModule, hparams, path, checkpoint)
    return created


def _data_settings(config: Path) -> dict[str, Any]:
    """Return the data's settings in a configuration, as hyperparameters."""
    try:
        data = yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
        return {_CLASS: data["class_path"], **data.get("init_args", {}), **data.get("dict_kwargs", {})}
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise ValueError(
            f"run: got {short_path(config)!r}, which is damaged or has no data, expected the config.yaml of a run"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f"run: got {error}") from error


def _create(kind: type[Any], hparams: Mapping[str, Any], path: Path, checkpoint: Mapping[str, Any]) -> Any:
    """Create a module or data module from hyperparameters of LightningCLI, leaving random states unchanged."""
    settings = {key: value for key, value in hparams.items() if key != "_instantiator"}
    with _random_states_kept():
        for class_path in _class_paths(hparams):
            _check_import(class_path, path)
        try:
            return instantiate_module(kind, settings)
        except Exception as error:
            raise ValueError(
                f"run: got {short_path(path)!r}{_version(checkpoint)}, from which {hparams[_CLASS]} cannot be created: "
                f"{_shortened(_first_cause(error))}"
            ) from error


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Restore the random states of Python, NumPy and torch, which classes change, as do imports of some packages."""
    of_python, of_numpy = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002, others draw from it
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def _class_paths(value: Any) -> Iterator[str]:
    """Yield the class paths in hyperparameters, at any depth.

    Example:
        >>> list(_class_paths({"_class_path": "a.B", "encoder": {"class_path": "c.D", "init_args": {"width": 3}}}))
        ['a.B', 'c.D']
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key in (_CLASS, "class_path") and isinstance(item, str):
                yield item
            else:
                yield from _class_paths(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _class_paths(item)


def _check_import(class_path: str, path: Path) -> None:
    module, _, name = class_path.rpartition(".")
    try:
        getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportError(
            f"run: got {short_path(path)!r} with the class {class_path}, which cannot be imported: "
            f"{one_line(error)}; run Python in the folder that has {module.partition('.')[0]}, or add it to PYTHONPATH"
        ) from error


def _first_cause(error: BaseException) -> BaseException:
    """Return the error that led to others: jsonargparse wraps it in a list of types that it has tried."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _version(checkpoint: Mapping[str, Any]) -> str:
    version = checkpoint.get("nc_lightning_version")
    return f" of version {version}" if version else ""


def _shortened(text: object) -> str:
    line = one_line(text)
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
