"""Usage and headings of ``nc-train SUBCOMMAND --help``; by default they are first lines of docstrings."""

from jsonargparse import ArgumentParser

_DESCRIPTIONS = {
    "fit": "Train an objective, and measure the geometry of its features.",
    "validate": "Measure a checkpoint on the validation set.",
    "test": "Measure a checkpoint on the test set.",
    "predict": "Write the features of a checkpoint to files.",
}
_HEADINGS = {
    "trainer": "Trainer of Lightning",
    "model": "Objective",
    "data": "Data",
    "geometry": "Geometry monitor: measures, layers, frequency",
    "dashboard": "Dashboard: charts, figures and the report",
    "probe": "Linear probe, trained alongside on detached features",
    "nonfinite": "NaN and infinity",
    "collapse": "Warning of dimensional collapse",
    "predictions": "Files of predictions",
    "checkpoint": "Checkpoints",
    **dict.fromkeys(_DESCRIPTIONS, "Checkpoint to start from"),
}
"""Headings of the groups of options, by their names in the parser."""


def parser_texts() -> dict[str, dict[str, str]]:
    """Return usage and description of the parser of each subcommand.

    Example:
        >>> parser_texts()["fit"]["usage"]
        'nc-train fit [--config FILE ...] [--OPTION VALUE ...]'
    """
    return {
        name: {"description": text, "usage": f"nc-train {name} [--config FILE ...] [--OPTION VALUE ...]"}
        for name, text in _DESCRIPTIONS.items()
    }


def set_headings(parser: ArgumentParser) -> None:
    """Give the groups of options our headings.

    Example:
        >>> parser = ArgumentParser()
        >>> _ = parser.add_argument_group("Use the hardware well", name="trainer")
        >>> set_headings(parser)
        >>> parser.groups["trainer"].title
        'Trainer of Lightning'
    """
    for name, group in (parser.groups or {}).items():
        group.title = _HEADINGS.get(name, group.title)
