"""The plan of a sweep: a YAML file of what to vary, and the resulting cells."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from nc_lightning.checks import one_line
from nc_lightning.cli.config_nesting import check_nesting
from nc_lightning.did_you_mean import did_you_mean

_KEYS = ("objective", "overlays", "seeds", "all", "cells", "cluster")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        name: Name of its folder, made of the varied settings.
        settings: Varied settings by the name of their axis, including the seed; axes that the cell lacks are left out.
        arguments: Command line of ``nc-train``.
    """

    name: str
    settings: dict[str, Any]
    arguments: list[str]


@dataclass(frozen=True)
class Plan:
    """All cells of a sweep.

    Attributes:
        axes: Names of the varied settings, the objective first, without the seed.
        cells: Cells in the order in which they are run.
        cluster: Parameters of the cluster's engine.
    """

    axes: list[str]
    cells: list[Cell]
    cluster: dict[str, Any] = field(default_factory=dict)


def read_plan(path: str | Path, extra: list[str] | None = None) -> Plan:
    """Read a sweep from its file.

    The file may contain the following; only ``objective`` is required, at the top or in every entry of ``cells``:

        objective: [scl.yaml, hscl.yaml]      base config, one for each value
        overlays: [digit_pairs.yaml]          configs applied after it in every cell
        seeds: [0, 1, 2]                      seeds of the network, the splits and the order of batches
        all: {data.batches: [random, balanced], model.temperature: 0.5}
        cells: [{}, {objective: hscl.yaml, model.beta: [5, 10]}]
        cluster: {timeout_min: 60}            parameters of the cluster's engine

    ``all`` holds settings by the keys of ``nc-train``: a list is swept over, a single value is fixed. A value that ends
    in ``.yaml``, or a list of such values, is passed as a further config; its key is only a name. ``null`` is left out.
    Each entry of ``cells`` is a block: the product of ``all`` and its own settings. Duplicate cells are run once.
    ``{seed}`` in a value is replaced with the seed.

    Args:
        path: Path of the file.
        extra: Arguments of ``nc-train`` for every cell, after its own arguments.

    Returns:
        The plan.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a valid plan; the message says what is wrong.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "sweep.yaml"
        >>> _ = path.write_text("{objective: [scl.yaml, hscl.yaml], seeds: [0, 1], all: {data.batches: random}}")
        >>> [cell.name for cell in read_plan(path).cells]
        ['scl-seed=0', 'scl-seed=1', 'hscl-seed=0', 'hscl-seed=1']
        >>> read_plan(path).cells[0].arguments
        ['--config=scl.yaml', '--data.batches=random', '--seed_everything=0', '--data.seed=0']
    """
    plan = _read(Path(path))
    seeds = plan.get("seeds", [0])
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        raise ValueError(f"seeds: got {seeds!r}, expected a list of integers >= 0, such as [0, 1, 2]")
    overlays = _configs("overlays", plan.get("overlays", []))
    shared = _settings("all", plan.get("all", {}))
    if "objective" in plan:
        shared = {"objective": plan["objective"], **shared}
    blocks = plan.get("cells", [{}])
    if not isinstance(blocks, list) or not blocks:
        raise ValueError(f"cells: got {blocks!r}, expected a list of blocks of settings")
    blocks = [{**shared, **_settings(f"cells[{index}]", block)} for index, block in enumerate(blocks)]
    varied = (key for block in blocks for key, value in block.items() if isinstance(value, list))
    axes = list(dict.fromkeys(["objective", *varied]))
    cells: dict[str, Cell] = {}
    for cell in _cells(blocks, axes, overlays, seeds, extra or []):
        same = cells.setdefault(cell.name, cell)
        if same.arguments != cell.arguments:
            raise ValueError(
                f"cells: got two with the name {cell.name}, once {_only(same, cell)} and once {_only(cell, same)}, "
                "expected the settings that differ as lists, such as [5], which adds them to the name"
            )
    cluster = plan.get("cluster", {})
    if not isinstance(cluster, dict):
        raise ValueError(f"cluster: got {cluster!r}, expected parameters for the engine by name")
    return Plan([short_name(key, axes) for key in axes], list(cells.values()), cluster)


def short_name(key: str, keys: list[str]) -> str:
    """Return the last part of a key, or as many parts as distinguish it from the other keys.

    Example:
        >>> keys = ["model.beta", "model.optimizer.init_args.lr", "probe.optimizer.init_args.lr"]
        >>> [short_name(key, keys) for key in keys]
        ['beta', 'model.optimizer.init_args.lr', 'probe.optimizer.init_args.lr']
    """
    parts = key.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[-count:])
        if sum(other == name or other.endswith(f".{name}") for other in keys) == 1:
            return name
    return key


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"SWEEP: got {str(path)!r}, expected a YAML file with the settings to vary")
    check_nesting(str(path))
    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"SWEEP: got {str(path)!r}, which is not YAML: {one_line(error)}") from error
    if not isinstance(plan, dict) or set(plan) - set(_KEYS):
        got = sorted(map(str, set(plan) - set(_KEYS))) if isinstance(plan, dict) else type(plan).__name__
        near = did_you_mean(got[0], _KEYS) if isinstance(got, list) else ""
        raise ValueError(f"SWEEP: got {got} in {str(path)!r}, expected a mapping with only {', '.join(_KEYS)}{near}")
    return plan


def _settings(where: str, plan: Any) -> dict[str, Any]:
    if not isinstance(plan, dict) or not all(isinstance(key, str) for key in plan):
        raise ValueError(f"{where}: got {plan!r}, expected settings by the keys of nc-train, such as model.beta: [5]")
    for key, value in plan.items():
        if key in ("seed_everything", "data.seed"):
            raise ValueError(f"{where}: got {key}, expected seeds at the top of the file, which sets it")
        if value == []:
            raise ValueError(f"{where}: got no value for {key}, expected a list of at least one")
    return plan


def _configs(where: str, value: Any) -> list[str]:
    names = value if isinstance(value, list) else [value]
    if not all(_is_config(name) for name in names):
        raise ValueError(f"{where}: got {value!r}, expected names of configs that end in .yaml")
    return names


def _is_config(value: Any) -> bool:
    """Return whether a value is a config, or a list of configs, rather than a setting."""
    if isinstance(value, list):
        return bool(value) and all(map(_is_config, value))
    return isinstance(value, str) and value.endswith(".yaml")


def _cells(
    blocks: list[dict[str, Any]], axes: list[str], overlays: list[str], seeds: list[int], extra: list[str]
) -> Iterator[Cell]:
    for index, block in enumerate(blocks):
        if "objective" not in block:
            raise ValueError(
                f"cells[{index}]: got no objective, expected one or several, such as [scl.yaml, hscl.yaml]"
            )
        choices = [value if isinstance(value, list) else [value] for value in block.values()]
        for values in product(*choices):
            chosen = dict(zip(block, values, strict=True))
            for seed in seeds:
                settings = {
                    short_name(key, axes): _label(chosen[key], seed) for key in axes if chosen.get(key) is not None
                }
                arguments = [*_arguments(chosen, overlays, seed), *extra]
                yield Cell(_name(settings, seed), {**settings, "seed": seed}, arguments)


def _arguments(chosen: dict[str, Any], overlays: list[str], seed: int) -> list[str]:
    configs = [*_configs("objective", chosen["objective"]), *overlays]
    given = []
    for key, value in chosen.items():
        if key == "objective" or value is None:
            continue
        if _is_config(value):
            configs += _configs(key, value)
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            given.append(f"--{key}={text.replace('{seed}', str(seed))}")
    return [*(f"--config={name}" for name in configs), *given, f"--seed_everything={seed}", f"--data.seed={seed}"]


def _label(value: Any, seed: int) -> Any:
    """Return the label of a value in tables and names: a config by its stem, a class by name and numeric arguments."""
    if isinstance(value, list):
        return "+".join(str(_label(each, seed)) for each in value)
    if isinstance(value, dict):
        arguments = value.get("init_args")
        arguments = arguments if isinstance(arguments, dict) else {}
        numbers = {k: v for k, v in arguments.items() if isinstance(v, int | float)}
        name = str(value.get("class_path", json.dumps(value))).rpartition(".")[2]
        return f"{name}({','.join(f'{k}={v}' for k, v in numbers.items())})" if numbers else name
    if isinstance(value, str):
        return Path(value).stem if _is_config(value) else value.replace("{seed}", str(seed))
    return value


def _name(settings: Mapping[str, Any], seed: int) -> str:
    parts = [str(value) if key == "objective" else f"{key}={value}" for key, value in settings.items()]
    name = re.sub(r"[^\w.=+,()-]+", "_", "-".join([*parts, f"seed={seed}"]))
    if len(name) > _LONGEST_NAME:
        raise ValueError(
            f"cells: got settings that make a name of {len(name)} characters, expected at most {_LONGEST_NAME}"
        )
    return name


def _only(cell: Cell, other: Cell) -> str:
    return " ".join(argument for argument in cell.arguments if argument not in other.arguments) or "nothing of it"
