"""The page of logged keys names what training logs, and nothing else."""

import re
import sys

import pytest

from nc_lightning.cli import main
from nc_lightning.geometry import MEASURES

SHORT = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]
MEASURED = ("statistics", "centers", "optimum", "classifier")
"""Inputs of the measures that training computes."""


@pytest.fixture
def rows(repository):
    """The keys of the page, as patterns."""
    text = (repository / "docs" / "reference" / "logged-keys.md").read_text()
    return re.findall(r"^\| `([\w/<>]+)` \|", text, re.MULTILINE)


def logged_by(config, *options):
    trainer = main(["fit", "--config", config, *options, *SHORT, "--geometry.every_n_epochs=1"]).trainer
    return set(trainer.callback_metrics) | set(trainer.logged_metrics)


@pytest.mark.slow
def test_each_key_is_logged_and_each_logged_key_is_there(rows, in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])
    layers = ("--geometry.layers=[encoder]", "--trainer.callbacks=nc_lightning.callbacks.OnlineKNN")
    hscl, hucl = (
        logged_by("hscl.yaml", *layers),
        logged_by("hucl.yaml", "--model.beta=5"),
    )  # beyond the critical hardness
    measures = "|".join(map(re.escape, MEASURES))
    parts = {"<measure>": f"({measures})", "<layer>": "encoder", "<set>": "(train|val)"}
    patterns = {row: re.sub("<[a-z]+>", lambda part: parts[part.group()], re.escape(row)) for row in rows}
    assert len(patterns) > 12
    named = {key for pattern in patterns.values() for key in hscl | hucl if re.fullmatch(pattern, key)}
    assert named == (hscl | hucl) - {"epoch"}
    unseen = {row for row, pattern in patterns.items() if not any(re.fullmatch(pattern, key) for key in hscl)}
    assert unseen == {"loss/neural_collapse", "negatives/false_share", "loss/skipped_steps"}
    assert {"loss/neural_collapse", "negatives/false_share"} <= hucl
    for split in ("train", "val"):
        keys = {f"geometry/{split}/{key}" for key, measure in MEASURES.items() if measure.of in MEASURED}
        assert keys - {f"geometry/{split}/distance_to_optimum"} == keys & hscl
        assert keys <= hucl
