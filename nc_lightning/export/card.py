"""The model card of an exported encoder: what it is, how to load it, its geometry, and its configuration."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from nc_lightning import __version__
from nc_lightning.export.encoder import TrainedEncoder
from nc_lightning.geometry import MEASURES
from nc_lightning.reports.record import RunRecord
from nc_lightning.reports.tables import evaluation_rows, format_value, goal_texts

_HEAD = """\
---
library_name: nc-lightning
tags:
- contrastive-learning
- neural-collapse
# license: add yours
---
"""


def model_card(trained: TrainedEncoder, code: Sequence[str]) -> str:
    """Return the model card as Markdown.

    Absolute paths in the configuration are shortened to their last part, as cards are published.

    Args:
        trained: Encoder of a run.
        code: Lines of Python that load it.
    """
    encoder = type(trained.encoder).__name__
    name = getattr(trained.encoder, "name", None)
    width = getattr(trained.encoder, "out_features", "?")
    facts = {
        "objective": trained.objective,
        "encoder": f"{encoder} {name}" if name else encoder,
        "features": f"{width}, before the projector",
        "trained": f"{trained.epoch} epoch{'s' * (trained.epoch != 1)}, by nc_lightning {__version__}",
        "input": _input(trained),
    }
    return "\n".join(
        [
            f"{_HEAD}# Encoder {facts['encoder']}, trained with {trained.objective}",
            "",
            *_table(["", ""], [[key, value] for key, value in facts.items()]),
            "",
            "## Load it",
            "",
            "```python",
            *code,
            "```",
            "",
            *_measured(trained),
            *_configuration(trained.config),
        ]
    )


def _input(trained: TrainedEncoder) -> str:
    shape = "" if trained.input_shape is None else f"{' x '.join(map(str, trained.input_shape))}, "
    settings = trained.preprocess.settings()
    if not settings:
        return f"{shape}not standardized"
    return f"{shape}in [0, 1], then standardized with mean {settings['mean']} and std {settings['std']}"


def _measured(trained: TrainedEncoder) -> Iterator[str]:
    """Yield the last measurement of the run's report, and the results of ``nc-train evaluate``."""
    try:
        record = RunRecord.read(trained.folder)
    except (FileNotFoundError, ValueError):
        return
    last = record.history[-1] if record.history else {}
    sets = list(dict.fromkeys(key.split("/")[1] for key in last if key.startswith("geometry/") and key.count("/") == 2))
    if sets:
        yield from ("## Geometry of its projections", "")
        keys = [key for key, measure in MEASURES.items() if measure.headline]
        rows = [_row(key, sets, record) for key in keys if any(f"geometry/{name}/{key}" in last for name in sets)]
        yield from _table(["measure", *sets, "ideal"], rows)
        yield ""
    if record.evaluation:
        yield from ("## Accuracy of its features on the test set", "")
        yield from _table(["", *record.evaluation], evaluation_rows(record.evaluation))
        yield ""


def _row(key: str, sets: Sequence[str], record: RunRecord) -> list[str]:
    last = record.history[-1]
    values = [format_value(last.get(f"geometry/{name}/{key}", float("nan"))) for name in sets]
    goals = goal_texts(key, record.num_classes, record.feature_dim, record.own_ideals)
    return [key, *values, goals[-1]]


def _configuration(config: Path | None) -> Iterator[str]:
    if config is None:
        return
    settings = yaml.safe_load(config.read_text(encoding="utf-8"))
    shown = {key: _without_folders(settings[key]) for key in ("model", "data") if key in settings}
    yield from ("## Configuration", "", "```yaml", yaml.safe_dump(shown, sort_keys=False).rstrip(), "```", "")


def _without_folders(value: Any) -> Any:
    """Shorten absolute paths in settings to their last part.

    Example:
        >>> _without_folders({"root": "/home/me/images", "batch_size": 3})
        {'root': 'images', 'batch_size': 3}
    """
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
