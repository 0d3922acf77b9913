"""Messages for misspelled options, classes and values of ``nc-train``, with what was probably meant."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from torch.optim.lr_scheduler import LRScheduler
from torchvision import models

from nc_lightning.checks import one_line
from nc_lightning.data import ArrayDataModule, SimCLR
from nc_lightning.did_you_mean import did_you_mean, nearest, nearest_option
from nc_lightning.encoders import MLP, ProjectionHead, ResNet, SmallCNN, SmallResNet, TimmEncoder, TorchvisionEncoder
from nc_lightning.losses import Hardening, Link
from nc_lightning.objectives import HUCL, ContrastiveObjective

_CLASSES: dict[str, tuple[type, ...]] = {
    "model": (ContrastiveObjective,),
    "data": (LightningDataModule,),
    "encoder": (MLP, SmallCNN, SmallResNet, ResNet, TorchvisionEncoder, TimmEncoder),
    "projector": (ProjectionHead,),
    "optimizer": (torch.optim.Optimizer,),
    "lr_scheduler": (LRScheduler,),
    "link": (Link,),
    "hardening": (Hardening,),
    "augmentation": (SimCLR,),
    "callbacks": (Callback,),
    "logger": (Logger,),
    "strategy": (Strategy,),
}
"""Base classes of the values of options, by the last part of the option."""
_CLASS_KEYS = ("class_path", "init_args")
_USUAL = {"epochs": "trainer.max_epochs", "steps": "trainer.max_steps", "seed": "seed_everything"}
"""Our options by the names that they have in other programs."""
_NESTED = ("model.optimizer.lr", "model.optimizer.weight_decay")
_DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50}
_UNKNOWN = re.compile(r"unrecognized arguments: (\S+)|Subcommand '\w+' does not accept option '([^']+)'")
_MISSING = re.compile(r"the following arguments are required: .*\.(model|data)\b")
_UNKNOWN_OPTION = re.compile(r"Option '([^']+)' is not accepted")
_WITH_CLASS = re.compile(r"Problem with given class_path '([^']*)'|Got value: Namespace\(class_path='([^']*)'")
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NO_IMPORT = re.compile(
    r"module '[^']*' has no attribute '[^']*'|No module named '[^']*'|'linked_targets'|\(\S+\.py, line \d+\)"
)
_NESTED_KEY = re.compile(r"NestedArg\(key='([^']*)'")
_HELP = re.compile(r"--([\w.]+)\.help: Expected a dot import path string: (\S+)")
_HELP_OF_NONE = re.compile(r"unrecognized arguments: --([\w.]+)\.help=")
_NO_VALUE = re.compile(r"argument --([\w.]+)\S*: expected one argument")
_LITERAL = re.compile(r"Expected a typing\.Literal(\[[^\]]*\])")
_PLAIN_TYPE = re.compile(r"Expected a <class '(\w+)'>")
_VALUE = re.compile(r"(?:Got value: |Given value: NestedArg\(key='[^']*', val='?|Given value: )([\w./+-]+)'?\)?\s*$")


def parser_message(key: str, text: str) -> str | None:
    """Return a message for an unknown option of a class, an unknown class or an unknown choice; None for other errors.

    Args:
        key: Option that the parser refused, such as ``model.encoder``.
        text: Message of jsonargparse.

    Example:
        >>> parser_message("geometry.measures", "Expected a typing.Literal['headline', 'all']. Got value: headlin")
        "--geometry.measures: got 'headlin', expected one of headline, all; did you mean headline?"
    """
    if asked := _HELP.search(text):
        option = ".".join(filter(None, (key, asked[1])))
        bases = _CLASSES.get(option.rpartition(".")[2], ())
        return (
            f"--{option}.help: got {asked[2]!r}, expected {_class(asked[2], bases) if bases else 'the path of a class'}"
        )
    if key and (asked := _HELP_OF_NONE.search(text)):
        return f"--{key}.{asked[1]}.help: expected after --{key} CLASS that has {asked[1]}, or --config FILE"
    # Where several classes were tried, one of them may have the option, and refuse its value.
    if (unknown := _UNKNOWN_OPTION.search(text)) and f'Parser key "{unknown[1]}"' not in text:
        paths = [path for pair in _WITH_CLASS.findall(text) for path in pair if path]
        return _no_option(key, unknown[1], paths[-1]) if paths else None
    name, last = _given_class(key, text), key.rpartition(".")[2]
    if name is not None and (nested := _NESTED_KEY.search(text)) and not f".{key}".endswith(f".{nested[1]}"):
        key, last = f"{key}.{nested[1]}", nested[1].rpartition(".")[2]
    if name is not None and (reason := _in_its_module(name, _CLASSES.get(last, ()))):
        return f"--{key}: got {name!r}, {reason}"
    if name is not None and last == "encoder":
        return f"--{key}: got {name!r}, expected {_encoder(f'--{key}', name)}"
    if name is not None and last in _CLASSES:
        return f"--{key}: got {name!r}, expected {_class(name, _CLASSES[last])}"
    value = _VALUE.search(text)
    choices = [str(choice) for part in _LITERAL.findall(text) for choice in ast.literal_eval(part)]
    others = set(_PLAIN_TYPE.findall(text)) - {"NoneType"}
    choices += ["true", "false"] if "bool" in others else []
    if value is not None and choices and others <= {"bool"}:
        return (
            f"--{key}: got {value[1]!r}, expected one of {', '.join(dict.fromkeys(choices))}"
            f"{did_you_mean(value[1], choices)}"
        )
    return None


def subcommand_message(text: str, known: Iterable[str], subcommand: str, arguments: Sequence[str] = ()) -> str | None:
    """Return a message for an option, or key of a config, that is unknown or missing; None for other errors.

    Args:
        text: Message of jsonargparse.
        known: Options of the subcommand, without ``--``. Those of classes for ``model`` and ``data`` are added.
        subcommand: Name of the subcommand.
        arguments: Command line.

    Example:
        >>> subcommand_message("unrecognized arguments: --trainer.max_epoch 1", ["trainer.max_epochs"], "fit")
        'nc-train fit has no option --trainer.max_epoch; did you mean --trainer.max_epochs?'
        >>> subcommand_message("unrecognized arguments: --beta 1", ["model"], "fit")
        'nc-train fit has no option --beta; did you mean --model.beta?'
    """
    if _MISSING.match(text):
        return (
            f"nc-train {subcommand}: got no --model or no --data, expected both, or a config with both, such as "
            "--config hscl.yaml"
        )
    if bare := _NO_VALUE.match(text):
        following = zip(arguments, [*arguments[1:], "--"], strict=True)
        options = (this for this, after in following if this.startswith(f"--{bare[1]}") and after.startswith("--"))
        option = next((option for option in options if "=" not in option), f"--{bare[1]}")
        return f"{option}: got no value, expected one after it"
    unknown = _UNKNOWN.match(text)
    return None if unknown is None else _unknown(unknown[1] or unknown[2], bool(unknown[1]), known, subcommand)


def _unknown(argument: str, given: bool, known: Iterable[str], subcommand: str) -> str:
    option = argument.startswith("-")
    if given and not option:
        return f"nc-train {subcommand}: got {argument!r}, expected an option before it, such as --config {argument}"
    key = argument.partition("=")[0].removeprefix("--").removesuffix("+")
    classes = {"model": HUCL, "data": ArrayDataModule}
    of_classes = (f"{part}.{name}" for part, cls in classes.items() for name in _options(cls))
    options = [*(each for each in known if "init_args" not in each), *of_classes, *_NESTED]
    near = [_USUAL[key]] if _USUAL.get(key) in options else nearest_option(key, options)
    dashes = "--" if option else ""
    what = "option" if option else "key"
    hint = f"did you mean {dashes}{near[0]}?" if near else f"nc-train {subcommand} --help lists all"
    return f"nc-train {subcommand} has no {what} {dashes}{key}; {hint}"


def _no_option(key: str, name: str, path: str) -> str:
    name, _, rest = name.partition(".")
    cls = path.rpartition(".")[2]
    near = nearest(name, [*_options(_imported(path)), *_CLASS_KEYS], count=1)
    hint = f"did you mean --{key}.{near[0]}?" if near else f"--{key}.help {cls} lists its options"
    return f"--{key}.{name}{rest and '.'}{rest}: {cls} has no such option; {hint}"


def _given_class(key: str, text: str) -> str | None:
    """Return the name of a class that was given and does not exist, or is a function."""
    if found := _NO_CLASS.search(text):
        return found[1]
    if not (failed := _NO_IMPORT.search(text)):
        return None
    last = re.escape(key.rpartition(".")[2])
    places = (r"NestedArg\(key='[^']*', val=", rf"'{last}': (?:\{{'class_path': )?", "Given value: (?!NestedArg)")
    given = next((found for place in places if (found := re.search(rf"{place}'?([\w.]+)", text))), None)
    paths = [path for path, _ in _WITH_CLASS.findall(text[: failed.start()]) if path]
    return paths[-1] if paths and "linked_targets" not in failed[0] else given[1] if given else None


def _class(name: str, bases: tuple[type, ...]) -> str:
    names = _names(bases)
    last = name.rpartition(".")[2]
    longer = [each for each in names if len(last) > 2 and each.lower().startswith(last.lower())]
    near = did_you_mean(last, names) or "".join(f"; did you mean {each}?" for each in longer[:1])
    if near:
        return f"the name of a class, or its path{near}"
    ours = [cls for cls, module in names.items() if module.startswith("nc_lightning.")]
    return f"{', '.join(ours or names)}, or the path of a class"


def _in_its_module(path: str, bases: tuple[type, ...]) -> str:
    """Return what is wrong with the module of a class's path, or which of the module's classes is near; or ""."""
    module, _, name = path.rpartition(".")
    if not module or module.partition(".")[0] == "nc_lightning":
        return ""
    try:
        found = vars(import_module(module))
    except Exception as error:  # a module of the user may raise anything
        if not isinstance(error, ModuleNotFoundError) or not f"{module}.".startswith(f"{error.name}."):
            return f"whose module {module} cannot be imported: {one_line(f'{type(error).__name__}: {error}')}"
        if _names(bases).get(name, "").startswith("nc_lightning."):
            return f"expected the name of a class, or its path; did you mean {name}?"
        near = nearest(module, (file.stem for file in Path.cwd().glob("*.py")), count=1)
        hint = (
            f"did you mean {near[0]}.{name}?" if near else "expected MODULE.CLASS of a module here or an installed one"
        )
        return f"but there is no module {error.name}; {hint}"
    # Any module can be an encoder.
    wanted = (*bases, torch.nn.Module) if bases == _CLASSES["encoder"] else bases
    classes = [key for key, each in found.items() if isinstance(each, type) and issubclass(each, wanted)]
    near = [] if name in found else nearest(name, classes, count=1)
    return f"expected the name of a class, or its path; did you mean {module}.{near[0]}?" if near else ""


def _names(bases: tuple[type, ...]) -> dict[str, str]:
    """Return the modules of all loaded public subclasses by their names."""
    found: dict[str, str] = {}
    for base in bases:
        for cls in (base, *_subclasses(base)):
            if not cls.__name__.startswith("_") and not getattr(cls, "__abstractmethods__", None):
                found[cls.__name__] = cls.__module__
    return found


def _subclasses(cls: type) -> Iterator[type]:
    subclasses: list[type] = type.__subclasses__(cls)
    for each in subclasses:
        yield each
        yield from _subclasses(each)


def _encoder(option: str, name: str) -> str:
    """Return the encoders that would do for the name of an architecture, ready to paste, or of a class."""
    last, classes = name.rpartition(".")[2], list(_names(_CLASSES["encoder"]))
    known = models.list_models(module=models)
    near = did_you_mean(last, classes)
    is_class = last.lower() in map(str.lower, classes)
    if near and (is_class or not any(model.startswith(last) for model in known)):
        return f"the name of an encoder, or the path of a class{near}"
    architecture = _nearest_model(last, known)
    ready = [f"{option} ResNet {option}.depth {_DEPTHS[architecture]}"] if architecture in _DEPTHS else []
    if architecture:
        ready.append(f"{option} TorchvisionEncoder {option}.name {architecture}")
    if in_timm := _in_timm(last):
        ready.append(f"{option} TimmEncoder {option}.name {in_timm}")
    if not ready:
        return f"{', '.join(classes)}, or the path of a class"
    return f"the class of an encoder: {', or '.join(filter(None, (', '.join(ready[:-1]), ready[-1])))}"


def _in_timm(name: str) -> str:
    """Return the nearest model of timm; without timm, the name itself if torchvision has it, too."""
    if find_spec("timm") is None:
        return name if name in _DEPTHS else ""
    return _nearest_model(name, import_module("timm").list_models())


def _nearest_model(name: str, known: list[str]) -> str:
    """Return a model of this name, or a short one that begins with or contains it, or the most similar one, or ""."""
    if name in known:
        return name
    flat = name.replace("_", "")
    longer = [each for each in known if flat in each.replace("_", "")]
    longer.sort(key=lambda each: (not each.startswith(name), len(each)))
    return "".join(longer[:1] or nearest(name, known, count=1, cutoff=0.75))


def _imported(path: str) -> type | None:
    module, _, name = path.rpartition(".")
    found = getattr(import_module(module), name, None) if module and find_spec(module) else None
    return found if isinstance(found, type) else None


def _options(cls: type | None) -> list[str]:
    """Return the names of a class's options, as the command line takes them."""
    if cls is None:
        return []
    added = ArgumentParser().add_class_arguments(cls, "it", fail_untyped=False)
    return list(dict.fromkeys(name.split(".")[1] for name in added if "." in name))
