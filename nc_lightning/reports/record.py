"""The record of a run: the content of its report, in one JSON file in the run's folder."""

import base64
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nc_lightning.geometry import Ideal, ideal
from nc_lightning.io.atomic import replace_file

FILE_NAME = "report.json"
FORMAT = 1


@dataclass
class RunRecord:
    """Settings of a run, the history of its geometry, and its last figures.

    Attributes:
        name: Name of the run, for headings.
        num_classes: Number of classes C.
        feature_dim: Dimension d of the features.
        settings: Main settings, such as objective and hardness.
        config: Full configuration, as text.
        history: Measurements, each with ``epoch``, ``step``, and values by their logged keys.
        figures: PNG files by name.
        spectrum: Eigenvalues of the covariance of the training set's class means over the largest, at the time of the
            figures.
        cosines: Cosines of the class means as in their figure: the number of ``classes``, and of those that are shown
            the ``labels``, the ``names`` (if few), and the ``rows`` of the lower triangle.
        own_ideals: Ideals at the minimum of the loss, by key; empty where it is neural collapse, or unknown.
        layers: Dimension d of each measured layer, in the order of execution, the last being ``z``.
        evaluation: Results of ``nc-train evaluate`` by layer (and data set, if another) and key.
        losses: Losses of each epoch by their logged keys, with ``epoch``, also of epochs that are not measured.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "report.json"
        >>> record = RunRecord("mine", 10, 9, history=[{"epoch": 1, "geometry/train/nc1": float("inf")}])
        >>> record.write(path)
        >>> RunRecord.read(path) == record, record.latest("geometry/train/")
        (True, {'nc1': inf})
    """

    name: str
    num_classes: int
    feature_dim: int
    settings: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    figures: dict[str, bytes] = field(default_factory=dict)
    spectrum: list[float] = field(default_factory=list)
    cosines: dict[str, Any] = field(default_factory=dict)
    own_ideals: dict[str, Ideal] = field(default_factory=dict)
    layers: dict[str, int] = field(default_factory=dict)
    evaluation: dict[str, dict[str, float]] = field(default_factory=dict)
    losses: list[dict[str, float]] = field(default_factory=list)

    def latest(self, prefix: str) -> dict[str, float]:
        """Return the values of the last measurement with keys that start with ``prefix``, by the rest of the key."""
        last = self.history[-1] if self.history else {}
        return {key.removeprefix(prefix): value for key, value in last.items() if key.startswith(prefix)}

    def described(self) -> dict[str, Any]:
        """Return the settings and the number of epochs, as the report and TensorBoard's table of runs show them."""
        epoch = self.history[-1].get("epoch") if self.history else None
        return self.settings | {"epochs": None if epoch is None else int(epoch)}

    def ideal(self, key: str) -> Ideal | None:
        """Return the ideal of a logged measure at the minimum of the run's loss; None if it has none or is unknown.

        Example:
            >>> RunRecord("mine", 10, 9).ideal("geometry/val/effective_rank").text
            '9'
        """
        *layer, _, measure = ["", *key.removeprefix("geometry/").split("/")]
        if self.own_ideals and len(layer) == 1:
            return self.own_ideals.get(measure)
        return ideal(measure, self.num_classes, self.layers.get("/".join(layer[1:]), self.feature_dim))

    def path(self, name: str) -> list[tuple[float, float]]:
        """Return (within-class variation, effective rank) of one set, for each measurement that has both."""
        keys = f"geometry/{name}/within_class_variation", f"geometry/{name}/effective_rank"
        return [(entry[keys[0]], entry[keys[1]]) for entry in self.history if keys[0] in entry and keys[1] in entry]

    def write(self, path: Path) -> None:
        """Write the record atomically: a reader finds the old file or the new one, never a partial one.

        Raises:
            OSError: If it cannot be written; the old file is kept.
        """
        fields = asdict(self)
        fields["figures"] = {name: base64.b64encode(png).decode() for name, png in self.figures.items()}
        fields |= {name: [_to_json(entry) for entry in fields[name]] for name in ("history", "losses")}
        fields["evaluation"] = {layer: _to_json(values) for layer, values in self.evaluation.items()}
        text = json.dumps({"format": FORMAT, **fields}, allow_nan=False, default=str)
        replace_file(path, text)

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Read a record.

        Args:
            path: Path of a run's folder, or of the record in it.

        Raises:
            FileNotFoundError: If there is no record.
            ValueError: If the file is damaged or not a record.
        """
        file = path / FILE_NAME if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"RUN: got {str(path)!r}, expected the folder of a run, with its {FILE_NAME}")
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            if fields.pop("format") != FORMAT:
                raise ValueError("another format")
            fields["figures"] = {name: base64.b64decode(png) for name, png in fields["figures"].items()}
            fields["history"] = [_from_json(entry) for entry in fields["history"]]
            # Records of earlier versions have no losses of each epoch, no own ideals, and no evaluation.
            fields["losses"] = [_from_json(entry) for entry in fields.get("losses", [])]
            fields["own_ideals"] = {key: Ideal(**goal) for key, goal in fields.get("own_ideals", {}).items()}
            evaluation = fields.get("evaluation", {}).items()
            fields["evaluation"] = {layer: _from_json(values) for layer, values in evaluation}
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"RUN: got {str(file)!r}, which is damaged or not a record of a run") from error


def _to_json(values: dict[str, float]) -> dict[str, float | str]:
    """Return numbers for JSON, which has no NaN and no infinity: they become strings that `float` can parse."""
    return {key: value if math.isfinite(value) else str(value) for key, value in values.items()}


def _from_json(values: dict[str, Any]) -> dict[str, float]:
    return {key: float(value) for key, value in values.items()}
